"""A key file, and the keys that it contains only as hashes."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}
