"""Fixtures: the application that asks for API keys."""

from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.service.keyring import KeyRing


@pytest.fixture
def every_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request looks at the key file, instead of the first of each second."""
    monkeypatch.setattr("service.access.keys.AGE", -1.0)


@pytest.fixture
def guarded(make_app: Callable[..., Any], ring: KeyRing, every_look: None) -> FlaskClient:
    """A client of an application that asks for the ring's keys."""
    client: FlaskClient = make_app(api_keys_file=ring.path).test_client()
    return client
