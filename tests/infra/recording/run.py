"""A stack of the real engine whose providers record: preview, up, refresh, destroy, and what each did."""

import asyncio
import gc
import json
import os
import shutil
import signal
import sys
import threading
import time
import warnings
import weakref
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from pulumi import automation as auto
from pulumi.automation import events

from infra.engine.install import ensure, pinned_version
from infra.engine.interruption import Engine
from infra.engine.workspace import ask_nothing_afterwards, drop_debug_messages
from infra.names import PROJECT
from tests.infra.recording import sdk_internals
from tests.infra.recording.eks import Components
from tests.infra.recording.provider import Recorder, start
from tests.infra.recording.world import RECORD, World
from tests.infra.support import warm
from tests.infra.support.homes import home_without_logs
from tests.infra.support.waiting import eventually

REPOSITORY = Path(__file__).parents[3]
PACKAGES = ("aws", "eks", "kubernetes", "docker-build", "random")
SAVED_AT_THE_END = {"PULUMI_EXPERIMENTAL": "true", "PULUMI_SKIP_CHECKPOINTS": "true"}
"""Variables for an engine that saves the state when a run ends, well or badly, and not after each step besides: half of
its work in a stack of a hundred things. A killed engine has then saved nothing: not for tests that kill."""
IDLE = 10
"""Tenths of a second without work after which a failed program's loop is taken as given up."""


@dataclass(slots=True)
class Result:
    """What one run of the engine did."""

    steps: dict[str, str] = field(default_factory=dict)
    """Resource (type::name) -> create, update, replace or delete, of those that changed."""
    keys: dict[str, list[str]] = field(default_factory=dict)
    """Resource -> inputs that differ."""
    paths: dict[str, list[str]] = field(default_factory=dict)
    """Resource -> the same in depth, such as vpcConfig.publicAccessCidrs[0]."""
    errors: list[str] = field(default_factory=list)
    policies: list[str] = field(default_factory=list)
    """What the policy pack said: level, rule and message."""
    failed: bool = False


def recorders(folder: Path, packages: Iterable[str] = PACKAGES) -> None:
    """Put a recording provider for each package into the folder, which then goes first on PATH."""
    folder.mkdir(parents=True, exist_ok=True)
    for package in packages:
        module = "eks" if package == "eks" else f"provider {package}"
        script = folder / f"pulumi-resource-{package}"
        script.write_text(
            f'#!/bin/sh\nPYTHONPATH={REPOSITORY} exec {warm.python()} -m tests.infra.recording.{module} "$@"\n'
        )
        script.chmod(0o755)


@contextmanager
def attached(
    world: World,
    packages: Iterable[str] = PACKAGES,
    environment: Mapping[str, str] | None = None,
    *,
    aws: type[Recorder] = Recorder,
) -> Iterator[dict[str, str]]:
    """Recording providers in this process; gives the variables by which an engine attaches to them.

    Starting them as processes, as the engine does with providers on PATH, would take longer than their work.
    `aws`: the provider for AWS. `environment` is what they read beside `os.environ`.
    """
    servers, addresses = [], []
    for package in packages:
        given = ChainMap(dict(environment or {}), os.environ)
        kind = aws if package == "aws" else Recorder
        server, port = start(Components() if package == "eks" else kind(package, world, given))
        servers.append(server)
        addresses.append(f"{package}:{port}")
    try:
        yield {"PULUMI_DEBUG_PROVIDERS": ",".join(addresses), RECORD: str(world.file)}
    finally:
        for server in servers:
            server.stop(None)


class Life:
    """A stack from its first preview to its end.

    Recording providers run in this process, where the engine attaches to them: their start would take longer than their
    work. `on_path` starts them from PATH instead, as the engine does with any provider. `checkpoints`: the engine saves
    the state after each step, as it does for users, and not only when a run ends.
    """

    def __init__(
        self,
        folder: Path,
        program: Callable[[], None],
        config: Mapping[str, str],
        *,
        stack: str = "dev",
        packages: Iterable[str] = PACKAGES,
        more_path: Iterable[Path] = (),
        environment: Mapping[str, str] | None = None,
        on_path: bool = False,
        checkpoints: bool = False,
    ) -> None:
        self.folder, self.program, self.name = folder, program, stack
        self.world = World(folder / "record.jsonl")
        self.loops: list[asyncio.AbstractEventLoop] = []
        sdk_internals.open_own_connections()
        drop_debug_messages()
        given = {**({} if checkpoints else SAVED_AT_THE_END), **(environment or {})}
        state, work = folder / "state", folder / "work"
        for path in (state, work):
            path.mkdir(parents=True, exist_ok=True)
        (work / "Pulumi.yaml").write_text(f"name: {PROJECT}\nruntime: python\n")
        if on_path:
            recorders(folder / "bin", packages)
        else:
            providers = ExitStack()
            weakref.finalize(self, providers.close)
            given |= providers.enter_context(attached(self.world, packages, given))
        self.stack = auto.create_or_select_stack(
            stack,
            project_name=PROJECT,
            program=self._in_loop,
            opts=auto.LocalWorkspaceOptions(
                work_dir=str(work),
                pulumi_command=Engine(ensure(lambda _: None), pinned_version()),
                env_vars={
                    "PULUMI_BACKEND_URL": state.as_uri(),
                    "PULUMI_CONFIG_PASSPHRASE": "",
                    "PULUMI_HOME": str(home_without_logs(folder / "pulumi")),
                    "PULUMI_SKIP_UPDATE_CHECK": "true",
                    "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
                    "PULUMI_DIY_BACKEND_DISABLE_CHECKPOINT_BACKUPS": "true",
                    "PULUMI_IGNORE_AMBIENT_PLUGINS": "false",
                    "PATH": os.pathsep.join([str(folder / "bin"), *map(str, more_path), os.environ["PATH"]]),
                    RECORD: str(self.world.file),
                    **given,
                },
            ),
        )
        ask_nothing_afterwards(self.stack)
        self.configure(config)

    def _in_loop(self) -> None:
        self.loops.append(asyncio.get_running_loop())
        self.program()

    def configure(self, config: Mapping[str, str]) -> None:
        """Set these settings; `secret:` in front of a value encrypts it."""
        values = {}
        for key, value in config.items():
            secret = value.startswith("secret:")
            values[f"{PROJECT}:{key}"] = auto.ConfigValue(value.removeprefix("secret:"), secret=secret)
        if values:
            self.stack.set_all_config(values)

    def unset(self, *keys: str) -> None:
        if keys:
            self.stack.remove_all_config([f"{PROJECT}:{key}" for key in keys])

    def copy(self, folder: Path) -> "Life":
        """Another world that is as this one is now, settings included."""
        for part in ("state", "work"):
            shutil.copytree(self.folder / part, folder / part)
        shutil.copy(self.world.file, folder / self.world.file.name)
        return Life(folder, self.program, {}, stack=self.name)

    def preview(self, **options: Any) -> Result:
        return self._run(self.stack.preview, diff=True, **options)

    def up(self, **options: Any) -> Result:
        return self._run(self.stack.up, **options)

    def refresh(self) -> Result:
        return self._run(self.stack.refresh)

    def interrupted_up(self, when: Callable[[], bool]) -> Result:
        """`up`, whose engine gets a Ctrl-C once `when` is true."""

        def interrupt() -> None:
            eventually(when, "the moment to interrupt", pause=0.1)
            for process in psutil.Process().children():
                if process.name() == "pulumi":
                    process.send_signal(signal.SIGINT)

        watcher = threading.Thread(target=interrupt, daemon=True)
        watcher.start()
        result = self.up()
        watcher.join(60)
        return result

    def preview_destroy(self) -> Result:
        return self._run(self.stack.preview_destroy)

    def destroy(self, **options: Any) -> Result:
        return self._run(self.stack.destroy, **options)

    def outputs(self) -> dict[str, Any]:
        return {name: output.value for name, output in self.stack.workspace.stack_outputs(self.name).items()}

    def state(self) -> list[dict[str, Any]]:
        """The resources in the stack's state, secrets in plain."""
        return list((self.stack.export_stack().deployment or {}).get("resources") or [])

    def state_text(self) -> str:
        """The state as it is kept, secrets encrypted."""
        return (self.folder / "state" / ".pulumi" / "stacks" / PROJECT / f"{self.name}.json").read_text()

    def drift(self) -> list[str]:
        """Where state and world differ: what one has and the other hasn't."""
        noted = {
            f"{resource['type']} {resource['id']}": resource["urn"]
            for resource in json.loads(self.state_text())["checkpoint"]["latest"].get("resources", [])
            if resource.get("custom") and not resource["type"].startswith("pulumi:")
        }
        real = {key: call.urn for key, call in self.world.existing().items()}
        return sorted(
            [f"{noted[key]} is noted, and gone" for key in noted.keys() - real.keys()]
            + [f"{real[key]} is there, and not noted" for key in real.keys() - noted.keys()]
        )

    def _run(self, operation: Callable[..., Any], **options: Any) -> Result:
        result = Result()
        # Or the collection after each failed run looks through all objects that the tests before have left: it took two
        # thirds of the time of runs that fail.
        gc.freeze()

        def watch(event: events.EngineEvent) -> None:
            step = event.resource_pre_event or event.res_outputs_event
            if step is not None:
                _note(result, step.metadata)
            if event.diagnostic_event is not None and event.diagnostic_event.severity == "error":
                result.errors.append(event.diagnostic_event.message.strip())
            if event.policy_event is not None:
                told = event.policy_event
                result.policies.append(f"{told.enforcement_level} {told.policy_name}: {told.message.strip()}")

        try:
            operation(on_event=watch, suppress_outputs=True, color="never", **options)
        except auto.CommandError as error:
            result.failed = True
            # What the engine printed, too: on a busy machine the last events can be missed.
            result.errors.append(str(error))
        self._tidy(result.failed)
        return result

    def _tidy(self, failed: bool) -> None:
        """Collect what the SDK leaves of a program whose engine failed: pytest would blame a later test for it."""
        until = time.monotonic() + 10
        for loop in self.loops:
            idle = 0
            while not loop.is_closed() and time.monotonic() < until:
                time.sleep(0.1)
                idle = 0 if loop.is_running() else idle + 1
                # The SDK's thread ends the tasks one by one and closes the loop, unless a task ends with an error.
                if idle == IDLE:
                    with suppress(AttributeError, RuntimeError):  # it was busy elsewhere, and closes it in this moment
                        _end_tasks(loop)
                        loop.close()
        self.loops.clear()
        if failed:
            told, sys.unraisablehook = sys.unraisablehook, lambda _: None
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                gc.collect()
            sys.unraisablehook = told


def _end_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel what the program still waited for, in its own loop: what ends it needs a running loop."""
    loop.set_exception_handler(lambda *_: None)  # the SDK's stops the loop
    if tasks := asyncio.all_tasks(loop):
        for task in tasks:
            task.cancel()
        waiting = asyncio.wait(tasks, timeout=10)
        try:
            loop.run_until_complete(waiting)
        except RuntimeError:
            waiting.close()
            raise


def _note(result: Result, step: Any) -> None:
    operation = str(step.op.value)
    if operation in ("same", "read", "refresh") or step.type.startswith("pulumi:pulumi"):
        return
    key = f"{step.type}::{step.urn.rsplit('::', 1)[-1]}"
    result.steps[key] = "replace" if operation in ("create-replacement", "delete-replaced") else operation
    if step.diffs:
        result.keys[key] = sorted({path.split(".")[0].split("[")[0] for path in step.diffs})
    if step.detailed_diff:
        result.paths[key] = sorted(step.detailed_diff)


def edges(state: list[dict[str, Any]]) -> dict[str, set[str]]:
    """URN -> what it waits for directly, as the engine builds it (dependency_graph.go)."""
    by_urn = {resource["urn"]: resource for resource in state}
    children: dict[str, list[str]] = {}
    for resource in state:
        children.setdefault(resource.get("parent", ""), []).append(resource["urn"])

    def whole(urn: str) -> Iterator[str]:
        for child in children.get(urn, []):
            yield child
            yield from whole(child)

    def direct(resource: dict[str, Any]) -> set[str]:
        # A reference to a provider reads URN::id: what it configures waits for it.
        provider = resource.get("provider", "").rsplit("::", 1)[0]
        named = {*resource.get("dependencies", []), provider, resource.get("parent", "")} & by_urn.keys()
        # Who waits for a component, but for its parent, waits for all in it.
        components = {name for name in named - {resource.get("parent")} if not by_urn[name].get("custom")}
        return named.union(*(whole(name) for name in components))

    return {urn: direct(resource) for urn, resource in by_urn.items()}
