"""The recorded world: a JSON-lines file that every provider process appends to, and what can be read from it."""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RECORD = "ATLAS_RECORD"
"""Names the file."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call that a provider answered."""

    operation: str
    """create, update, delete, read, invoke; a failed one has `error`."""
    token: str
    name: str
    urn: str
    id: str
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    error: str
    begun: float
    ended: float


class World:
    """What happened, in order, and what exists because of it."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def note(self, **fields: Any) -> None:
        """Append one call; many processes may do so at once."""
        with self.file.open("a") as out:
            fcntl.flock(out, fcntl.LOCK_EX)
            out.write(json.dumps(fields) + "\n")

    def calls(self, *operations: str) -> list[Call]:
        """All calls in the order in which they ended, or those of some operations."""
        if not self.file.exists():
            return []
        found = [Call(**json.loads(line)) for line in self.file.read_text().splitlines()]
        return [call for call in found if not operations or call.operation in operations]

    def existing(self) -> dict[str, Call]:
        """What exists: id by type -> the last call that made or changed it. Retained things aren't counted."""
        living: dict[str, Call] = {}
        for call in self.calls("create", "update", "delete"):
            if call.error:
                continue
            key = f"{call.token} {call.id}"
            if call.operation == "delete":
                living.pop(key, None)
            else:
                living[key] = call
        return living

    def deleted(self) -> list[Call]:
        """Successful deletes, in order."""
        return [call for call in self.calls("delete") if not call.error]

    def fail(self, operation: str, which: int, message: str = "RequestLimitExceeded: Request limit exceeded.") -> None:
        """Let the which-th such call from now on fail (0: none)."""
        _control(self.file).write_text(json.dumps({"operation": operation, "which": which, "message": message}))

    def refused(self, operation: str) -> str | None:
        """Whether this call is the one that shall fail; its message. For the providers."""
        control = _control(self.file)
        if not control.exists():
            return None
        with control.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            order = json.loads(file.read())
            if order["operation"] != operation or order["which"] <= 0:
                return None
            order["which"] -= 1
            file.seek(0)
            file.truncate()
            file.write(json.dumps(order))
            return str(order["message"]) if order["which"] == 0 else None

    def kinds(self) -> Iterator[str]:
        """Types of what exists."""
        yield from (call.token for call in self.existing().values())


def _control(file: Path) -> Path:
    return file.with_suffix(".control")


def this_world() -> World:
    """The world of the running provider process."""
    return World(Path(os.environ[RECORD]))


def now() -> float:
    return time.time()
