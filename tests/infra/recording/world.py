"""The recorded world: a JSON-lines file that every provider appends to, and what can be read from it."""

import fcntl
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RECORD = "ATLAS_RECORD"
"""Names the file."""
ANSWERED = ("create", "update", "delete")

NAMED_BY: Mapping[str, str] = {
    "clusterName": "aws:eks/cluster:Cluster",
    "role": "aws:iam/role:Role",
    "iamInstanceProfile": "aws:iam/instanceProfile:InstanceProfile",
    "bucket": "aws:s3/bucket:Bucket",
    "repository": "aws:ecr/repository:Repository",
}
"""Inputs that hold another thing's name, which is its id."""
MADE_ID = re.compile(
    r"\b(?:vpc|subnet|igw|nat|rtb|sg|i|vol|lt|eipalloc)-[0-9a-f]{17}\b|\barn:aws:[^:]*:[^:]*:\d{12}:\S+"
)
"""What only AWS can have made: whoever names one names another thing."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call that a provider answered."""

    operation: str
    """create, update, delete, invoke, or `vanish` (nobody's call: it was removed by hand); a failed one has `error`."""
    token: str
    name: str
    urn: str
    id: str
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    error: str
    begun: float
    ended: float

    @property
    def key(self) -> str:
        """What it was about: type and id."""
        return f"{self.token} {self.id}"


class World:
    """What happened, in order, and what exists because of it."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.after: Callable[[str, str], None] | None = None
        """Called with operation and URN once a provider in this process has done it, and before the engine knows."""
        self._reading = threading.Lock()
        self._read: list[Call] = []
        self._offset = 0

    # --- for the providers ---

    def note(self, **fields: Any) -> None:
        """Append one call; many processes may do so at once."""
        with self.file.open("a") as out:
            fcntl.flock(out, fcntl.LOCK_EX)
            out.write(json.dumps(fields) + "\n")

    def refused(self, operation: str, urn: str) -> tuple[str, bool] | None:
        """Whether this call is one that shall fail: its message, and whether the thing is made all the same."""
        if not self._control_file.exists():
            return None
        with self._orders() as orders:
            order = orders.get(operation)
            if order is None:
                return None
            refusal = str(order["message"]), bool(order["half"])
            if order["each"]:
                kind = urn.split("::")[2] if urn else ""
                ends = tuple(order["tokens"])
                if urn in order["failed"] or not (kind.endswith(ends) or urn.endswith(ends)):
                    return None
                order["failed"].append(urn)
                return refusal
            if order["which"] <= 0:
                return None
            order["which"] -= 1
            return refusal if order["which"] == 0 else None

    def delay(self, token: str) -> float:
        """Seconds that a create, update or delete of this type takes."""
        if not self._control_file.exists():
            return 0
        with self._orders() as orders:
            slow = orders.get("slow", {"seconds": 0, "types": []})
            return float(slow["seconds"]) if any(kind in token for kind in slow["types"]) else 0

    # --- what happened ---

    def calls(self, *operations: str) -> list[Call]:
        """All calls in the order in which they ended, or those of some operations."""
        with self._reading:
            if self.file.exists():
                with self.file.open() as record:
                    fcntl.flock(record, fcntl.LOCK_SH)
                    record.seek(self._offset)
                    self._read += [Call(**json.loads(line)) for line in record.read().splitlines()]
                    self._offset = record.tell()
            found = list(self._read)
        return [call for call in found if not operations or call.operation in operations]

    def existing(self) -> dict[str, Call]:
        """What exists: type and id -> the last call that made or changed it. Retained things are there still."""
        living: dict[str, Call] = {}
        for call in self._successes():
            _live_on(living, call)
        return living

    def of(self, token: str) -> list[Call]:
        """What exists of a type, or of all types that end so, such as `:Deployment`."""
        return [call for call in self.existing().values() if call.token.endswith(token)]

    def created(self) -> list[Call]:
        """Successful creates, in order."""
        return [call for call in self.calls("create") if not call.error]

    def deleted(self) -> list[Call]:
        """Successful deletes, in order."""
        return [call for call in self.calls("delete") if not call.error]

    def order_problems(self) -> list[str]:
        """Where something named what wasn't there: made before it, or left behind by its delete; AWS refuses most."""
        problems: list[str] = []
        living: dict[str, Call] = {}
        for call in self._successes():
            if call.operation in ("create", "update"):
                given = {handle for other in living.values() for handle in handles(other)} | set(handles(call))
                missing = sorted(handle for handle in named(call) if handle not in given)
                problems += [f"{call.operation} of {call.name} ({call.token}): there is no {name}" for name in missing]
            before = living.get(call.key)
            _live_on(living, call)
            if call.operation == "delete" and before is not None:
                # Another of the same name may go on; only what is truly gone is missed.
                kept = {handle for other in living.values() for handle in handles(other)}
                gone = set(handles(before)) - kept
                problems += [
                    f"delete of {call.name} ({call.token}): {other.name} ({other.token}) still names it"
                    for other in living.values()
                    if gone & set(named(other))
                ]
        return problems

    # --- what shall happen ---

    def fail(
        self,
        operation: str,
        which: int,
        message: str = "RequestLimitExceeded: Request limit exceeded.",
        *,
        half: bool = False,
    ) -> None:
        """Let the which-th such call from now on fail (0: none); `half`: it is made, but never becomes ready."""
        with self._orders() as orders:
            orders[operation] = {"which": which, "each": False, "message": message, "half": half, "failed": []}

    def fail_each_once(
        self,
        operation: str,
        message: str = "InternalError: An internal error has occurred",
        *,
        tokens: tuple[str, ...] = ("",),
        half: bool = False,
    ) -> None:
        """Let the first such call for each resource (whose type or URN ends so) fail, and the second succeed."""
        order = {"which": 0, "each": True, "message": message, "half": half, "failed": [], "tokens": tokens}
        with self._orders() as orders:
            orders[operation] = order

    def slow(self, seconds: float, *types: str) -> None:
        """Let every create, update and delete (of types with such parts) take so long; the rest takes no time."""
        with self._orders() as orders:
            orders["slow"] = {"seconds": seconds, "types": types or [""]}

    def vanish(self, call: Call) -> None:
        """Somebody removes it by hand."""
        self.note(
            operation="vanish", token=call.token, name=call.name, urn=call.urn, id=call.id, inputs={}, outputs={},
            error="", begun=time.time(), ended=time.time(),
        )  # fmt: skip

    def _successes(self) -> Iterator[Call]:
        return (call for call in self.calls(*ANSWERED, "vanish") if not call.error)

    @property
    def _control_file(self) -> Path:
        return self.file.with_suffix(".control")

    @contextmanager
    def _orders(self) -> Iterator[dict[str, Any]]:
        with self._control_file.open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            before = file.read()
            orders: dict[str, Any] = json.loads(before or "{}")
            yield orders
            after = json.dumps(orders)
            if after != before:
                file.seek(0)
                file.truncate()
                file.write(after)


def _live_on(living: dict[str, Call], call: Call) -> None:
    if call.operation in ("delete", "vanish"):
        living.pop(call.key, None)
    else:
        living[call.key] = call


def handles(call: Call) -> Iterator[str]:
    """What others know a thing by: the ids it was given, or `type name`."""
    if call.token in NAMED_BY.values():
        yield f"{call.token} {call.id}"
    if call.token == "kubernetes:core/v1:Namespace":
        yield f"namespace {call.outputs['metadata']['name']}"
    if call.token == "aws:eks/cluster:Cluster":
        yield call.outputs["vpcConfig"]["clusterSecurityGroupId"]
    for text in (call.id, call.outputs.get("arn")):
        if isinstance(text, str) and MADE_ID.fullmatch(text):
            yield text


def named(call: Call) -> Iterator[str]:
    """The handles that a thing's inputs name."""
    for key, token in NAMED_BY.items():
        if isinstance(call.inputs.get(key), str) and call.token != token:
            yield f"{token} {call.inputs[key]}"
    namespace = (call.inputs.get("metadata") or {}).get("namespace")
    if call.token.startswith("kubernetes:") and namespace is not None:
        yield f"namespace {namespace}"
    yield from (text for text in _texts(call.inputs) if MADE_ID.fullmatch(text) and not _foreign(text))


def _foreign(text: str) -> bool:
    """Principals, the permissions boundary, certificates, and EKS's own policies are others', not the stack's."""
    return bool(re.match(r"arn:aws:(acm:|iam::\d{12}:(user/|role/(deploy|admin|team)|policy/atlas-boundary-))", text))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            if not str(key).startswith("__"):
                yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def this_world() -> World:
    """The world of the running provider process."""
    return World(Path(os.environ[RECORD]))
