"""A stack of this repository on the real engine: one that isn't there, and one that is."""

import sys

import pulumi
import pytest

from infra.engine.stack import AtlasStack
from infra.engine.workspace import stack_settings
from tests.infra.conftest import Checkout

pytestmark = pytest.mark.slow


@pytest.fixture
def stack(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> AtlasStack:
    monkeypatch.setenv("ATLAS_PYTHON", sys.executable)  # for the policy pack: the copy has no .venv
    return AtlasStack("local", stack_settings("local", checkout.path), lambda _: None, checkout.path)


def test_stack_that_is_not_there_tells_nothing_and_is_not_made(checkout: Checkout, stack: AtlasStack) -> None:
    before = (checkout.path / "Pulumi.local.yaml").read_bytes()
    assert not stack.exists
    assert (stack.outputs(), stack.resources(), stack.deployed(), stack.last()) == ({}, [], (None, False), None)
    assert (stack.refresh(), stack.destroy()) == ({}, [])
    stack.take_up()
    stack.forget()
    assert not AtlasStack("local", stack.settings, lambda _: None, checkout.path).exists
    assert (checkout.path / "Pulumi.local.yaml").read_bytes() == before


def test_stack_is_made_by_up_told_by_another_look_and_forgotten(checkout: Checkout, stack: AtlasStack) -> None:
    assert stack.up(lambda: pulumi.export("answer", 42)) == ({"answer": 42}, {})
    seen = AtlasStack("local", stack.settings, lambda _: None, checkout.path)
    assert seen.outputs() == {"answer": 42}
    last = seen.last()
    assert last is not None
    assert (last.kind, last.result) == ("update", "succeeded")
    assert seen.destroy() == []
    seen.forget()
    assert not AtlasStack("local", stack.settings, lambda _: None, checkout.path).exists
