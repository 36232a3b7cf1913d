"""Waiting for what must come."""

import time
from collections.abc import Callable
from typing import Any


def eventually(condition: Callable[[], Any], what: str = "it", patience: float = 60, pause: float = 0.5) -> Any:
    """The first answer that is true, asked for every `pause` seconds; the test fails after `patience` seconds."""
    end = time.monotonic() + patience
    while not (answer := condition()):
        assert time.monotonic() < end, f"not within {patience} s: {what}"
        time.sleep(pause)
    return answer
