"""The `local` provider: executes the requests of Pulumi's engine on this machine.

Every operation can be repeated: creating an existing resource corrects it, and deleting a missing resource succeeds.
"""

import asyncio
import os
import shutil
import sys
import threading
import traceback
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import grpc
import grpc.aio
from pulumi.provider.experimental import provider as api
from pulumi.provider.experimental.property_value import PropertyValue
from pulumi.provider.experimental.server import ProviderServicer
from pulumi.runtime.proto import provider_pb2_grpc

from infra.errors import LocalError, one_line
from infra.local.reloading import reload, says
from infra.local.supervisor import Program, Supervisord
from infra.loopback import spare_loopback
from infra.plugin import end_with_engine

VERSION = "0.1.0"

Inputs = Mapping[str, Any]


class Kind(Protocol):
    """How a type of resource is created, read and removed. Ids are paths, or a path and a name."""

    replaces: frozenset[str]
    """Inputs whose change replaces the resource."""

    def make(self, inputs: Inputs, interrupted: threading.Event) -> str:
        """Create or correct the resource; returns its id. It has no other outputs than its inputs, because they would
        be unknown in a preview."""
        ...

    def look(self, inputs: Inputs) -> dict[str, Any] | None:
        """The inputs as they are on the machine; None if the resource doesn't exist."""
        ...

    def remove(self, inputs: Inputs) -> None:
        """Remove the resource, if it exists."""
        ...


class DirectoryKind:
    replaces = frozenset({"path"})

    def make(self, inputs: Inputs, interrupted: threading.Event) -> str:  # noqa: ARG002
        try:
            Path(inputs["path"]).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LocalError(f"{inputs['path']} can't be created: {error.strerror}") from None
        return str(inputs["path"])

    def look(self, inputs: Inputs) -> dict[str, Any] | None:
        return dict(inputs) if Path(inputs["path"]).is_dir() else None

    def remove(self, inputs: Inputs) -> None:
        path = Path(inputs["path"])
        if not inputs.get("keep"):
            shutil.rmtree(path, ignore_errors=True)
            if path.exists():
                raise LocalError(f"{path} can't be removed: does a file in it belong to another user?")
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()


class FileKind:
    replaces = frozenset({"path"})

    def make(self, inputs: Inputs, interrupted: threading.Event) -> str:  # noqa: ARG002
        path = Path(inputs["path"])
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.new")
        fresh.write_text(inputs["content"])
        fresh.replace(path)
        return str(path)

    def look(self, inputs: Inputs) -> dict[str, Any] | None:
        try:
            return {**inputs, "content": Path(inputs["path"]).read_text()}
        except FileNotFoundError:
            return None

    def remove(self, inputs: Inputs) -> None:
        Path(inputs["path"]).unlink(missing_ok=True)


class SupervisorKind:
    replaces = frozenset({"directory"})

    def make(self, inputs: Inputs, interrupted: threading.Event) -> str:  # noqa: ARG002
        Supervisord(Path(inputs["directory"])).start()
        return str(inputs["directory"])

    def look(self, inputs: Inputs) -> dict[str, Any] | None:
        return dict(inputs) if Supervisord(Path(inputs["directory"])).alive() else None

    def remove(self, inputs: Inputs) -> None:
        Supervisord(Path(inputs["directory"])).stop()


class ProcessKind:
    replaces = frozenset({"name", "directory"})

    def make(self, inputs: Inputs, interrupted: threading.Event) -> str:
        program = Program(
            name=inputs["name"],
            command=inputs["command"],
            working_directory=inputs["workingDirectory"],
            environment=inputs["environment"],
            health_url=inputs["healthUrl"],
            timeout=float(inputs["timeout"]),
            folders=inputs["folders"],
        )
        Supervisord(Path(inputs["directory"])).run(program, interrupted)
        return f"{inputs['directory']}:{inputs['name']}"

    def look(self, inputs: Inputs) -> dict[str, Any] | None:
        return dict(inputs) if Supervisord(Path(inputs["directory"])).running(inputs["name"]) else None

    def remove(self, inputs: Inputs) -> None:
        Supervisord(Path(inputs["directory"])).remove(inputs["name"])


KINDS: dict[str, Kind] = {
    "local:index:Directory": DirectoryKind(),
    "local:index:File": FileKind(),
    "local:index:Supervisor": SupervisorKind(),
    "local:index:Process": ProcessKind(),
}


class LocalProvider(api.Provider):
    """Passes Pulumi's requests to the kinds above; slow calls run in threads, so that resources start in parallel."""

    def __init__(self) -> None:
        self._interrupted = threading.Event()

    async def check(self, request: api.CheckRequest) -> api.CheckResponse:
        if request.type not in KINDS:
            failure = api.CheckFailure(
                "", f"{request.type} is not a resource type of this provider; its types are {', '.join(KINDS)}"
            )
            return api.CheckResponse(inputs=request.new_inputs, failures=[failure])
        return api.CheckResponse(inputs=request.new_inputs)

    async def diff(self, request: api.DiffRequest) -> api.DiffResponse:
        old, new = request.old_state, request.new_inputs
        replaces = KINDS[request.type].replaces
        changed = {key for key in new if key not in request.ignore_changes and old.get(key) != new[key]}
        kinds = api.PropertyDiffKind
        return api.DiffResponse(
            changes=bool(changed),
            replaces=sorted(changed & replaces),
            diffs=sorted(changed),
            delete_before_replace=True,  # the old and the new resource would need the same port or path
            detailed_diff={
                key: api.PropertyDiff(kinds.UPDATE_REPLACE if key in replaces else kinds.UPDATE, input_diff=True)
                for key in sorted(changed)
            },
        )

    async def create(self, request: api.CreateRequest) -> api.CreateResponse:
        if request.preview:
            return api.CreateResponse(properties=request.properties)
        return api.CreateResponse(await self._make(request.type, request.properties), request.properties)

    async def update(self, request: api.UpdateRequest) -> api.UpdateResponse:
        if not request.preview and not await self._reload(request):
            await self._make(request.type, request.news)
        return api.UpdateResponse(properties=request.news)

    async def _reload(self, request: api.UpdateRequest) -> bool:
        """Whether the change needs no restart, and the running process has taken it over."""
        changed = {key for key in request.news if request.olds.get(key) != request.news[key]}
        inputs = {key: plain(value) for key, value in request.news.items()}
        if changed != {"reloads"} or not ProcessKind().look(inputs):
            return False
        version = inputs["reloads"]["version"]
        # A new card of the same version, or an `up` after one that was interrupted: nothing would tell when it is done.
        if await asyncio.to_thread(says, inputs["healthUrl"], version):
            return False
        await asyncio.to_thread(
            reload,
            Supervisord(Path(inputs["directory"])),
            inputs["name"],
            inputs["healthUrl"],
            version,
            float(inputs["timeout"]),
            self._interrupted,
        )
        return True

    async def _make(self, kind: str, properties: Mapping[str, PropertyValue]) -> str:
        inputs = {key: plain(value) for key, value in properties.items()}
        return await asyncio.to_thread(KINDS[kind].make, inputs, self._interrupted)

    async def read(self, request: api.ReadRequest) -> api.ReadResponse:
        inputs = {key: plain(value) for key, value in request.inputs.items()}
        found = await asyncio.to_thread(KINDS[request.type].look, inputs)
        if found is None:
            return api.ReadResponse()
        seen = {key: wrapped(value) for key, value in found.items()}
        return api.ReadResponse(request.resource_id, request.properties | seen, seen)

    async def delete(self, request: api.DeleteRequest) -> None:
        inputs = {key: plain(value) for key, value in request.properties.items()}
        await asyncio.to_thread(KINDS[request.type].remove, inputs)

    async def cancel(self) -> None:
        self._interrupted.set()


def plain(value: PropertyValue) -> Any:
    """The property as a plain Python value."""
    inner = value.value
    if isinstance(inner, Mapping):
        return {key: plain(item) for key, item in inner.items()}
    if isinstance(inner, tuple):
        return [plain(item) for item in inner]
    return inner


def wrapped(value: Any) -> PropertyValue:
    """A plain Python value as a property."""
    if isinstance(value, Mapping):
        return PropertyValue({key: wrapped(item) for key, item in value.items()})
    if isinstance(value, list):
        return PropertyValue([wrapped(item) for item in value])
    return PropertyValue(value)


class Servicer(ProviderServicer):
    """Reports an expected error by its message only; any other error is reported as a fault of Atlas, in one line."""

    async def Create(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's names
        return await _told(super().Create(request, context), context)

    async def Update(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await _told(super().Update(request, context), context)

    async def Delete(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await _told(super().Delete(request, context), context)

    async def Read(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await _told(super().Read(request, context), context)


async def _told(call: Awaitable[Any], context: Any) -> Any:
    """The call's answer; its error ends the request with a line for the user."""
    try:
        return await call
    except (LocalError, OSError) as error:
        message = str(error)
    except grpc.aio.AbortError:
        raise
    except Exception as error:  # the user sees a line, whatever a library raises
        place = traceback.extract_tb(error.__traceback__)[-1]
        message = (
            f"a fault of Atlas, please report it: {type(error).__name__}: {one_line(error)} "
            f"({Path(place.filename).name}:{place.lineno})"
        )
    return await context.abort(grpc.StatusCode.UNKNOWN, message)


async def serve(engine: str) -> None:
    """Serve on a free port, and print its number, as Pulumi expects."""
    server = grpc.aio.server()
    servicer = Servicer(sys.argv[1:], VERSION, LocalProvider(), engine_address=engine)
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    end_with_engine()
    spare_loopback(os.environ)  # the processes that it starts inherit it
    with suppress(KeyboardInterrupt):
        # The engine's address is the only argument that isn't an option.
        asyncio.run(serve(next(argument for argument in sys.argv[1:] if not argument.startswith("-"))))
