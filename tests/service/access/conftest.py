"""Fixtures: a key file, and the application that asks for its keys."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from service.access.keys import hashed, new_token


@dataclass
class KeyRing:
    """A key file, and the keys that it contains only as hashes."""

    path: Path
    entries: list[dict[str, Any]] = field(default_factory=list)

    def add(self, name: str, **more: Any) -> str:
        """A new key with an entry in the file."""
        token = new_token()
        self.entries.append({"name": name, "sha256": hashed(token), **more})
        self.write()
        return token

    def remove(self, name: str) -> None:
        self.entries = [entry for entry in self.entries if entry["name"] != name]
        self.write()

    def write(self) -> None:
        self.path.write_text(json.dumps({"keys": self.entries}))


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    """An empty key file."""
    made = KeyRing(tmp_path / "keys.json")
    made.write()
    return made


@pytest.fixture
def every_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request looks at the key file, instead of the first of each second."""
    monkeypatch.setattr("service.access.keys.AGE", -1.0)


@pytest.fixture
def guarded(make_app: Callable[..., Any], ring: KeyRing, every_look: None) -> FlaskClient:
    """A client of an application that asks for the ring's keys."""
    client: FlaskClient = make_app(api_keys_file=ring.path).test_client()
    return client


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}
