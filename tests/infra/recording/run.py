"""A stack of the real engine whose providers record: preview, up, refresh, destroy, and what each did."""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pulumi import automation as auto
from pulumi.automation import events

from infra.engine.install import ensure
from infra.settings import PROJECT
from tests.infra.recording.provider import DELAY
from tests.infra.recording.world import RECORD, World

REPOSITORY = Path(__file__).parents[3]
PACKAGES = ("aws", "eks", "kubernetes", "docker-build", "random")


@dataclass(slots=True)
class Result:
    """What one run of the engine did."""

    steps: dict[str, str] = field(default_factory=dict)
    """Resource name -> operation, of those that changed."""
    keys: dict[str, list[str]] = field(default_factory=dict)
    """Resource name -> inputs that differ."""
    errors: list[str] = field(default_factory=list)
    failed: bool = False


def recorders(folder: Path, packages: tuple[str, ...] = PACKAGES) -> None:
    """Put a recording provider for each package into the folder, which then goes first on PATH."""
    folder.mkdir(parents=True, exist_ok=True)
    for package in packages:
        module = "eks" if package == "eks" else f"provider {package}"
        script = folder / f"pulumi-resource-{package}"
        script.write_text(
            f'#!/bin/sh\nPYTHONPATH={REPOSITORY} exec {sys.executable} -m tests.infra.recording.{module} "$@"\n'
        )
        script.chmod(0o755)


class Life:
    """A stack from its first preview to its end."""

    def __init__(
        self,
        folder: Path,
        program: Callable[[], None],
        config: Mapping[str, str],
        *,
        stack: str = "dev",
        packages: tuple[str, ...] = PACKAGES,
        more_path: tuple[Path, ...] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.world = World(folder / "record.jsonl")
        bin_folder = folder / "bin"
        recorders(bin_folder, packages)
        engine = ensure(lambda _: None)
        state, work = folder / "state", folder / "work"
        for path in (state, work):
            path.mkdir(parents=True, exist_ok=True)
        (work / "Pulumi.yaml").write_text(f"name: {PROJECT}\nruntime: python\n")
        # The Automation API would ask the engine for its version each time; ensure() has.
        os.environ.setdefault("PULUMI_AUTOMATION_API_SKIP_VERSION_CHECK", "true")
        self.stack = auto.create_or_select_stack(
            stack,
            project_name=PROJECT,
            program=program,
            opts=auto.LocalWorkspaceOptions(
                work_dir=str(work),
                pulumi_command=auto.PulumiCommand(root=str(engine.parents[1])),
                env_vars={
                    "PULUMI_BACKEND_URL": state.as_uri(),
                    "PULUMI_CONFIG_PASSPHRASE": "",
                    "PULUMI_HOME": str(folder / "pulumi"),
                    "PULUMI_SKIP_UPDATE_CHECK": "true",
                    "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
                    "PULUMI_IGNORE_AMBIENT_PLUGINS": "false",
                    "PATH": os.pathsep.join([str(bin_folder), *map(str, more_path), os.environ["PATH"]]),
                    RECORD: str(self.world.file),
                    DELAY: "0",
                    **(environment or {}),
                },
            ),
        )
        self.configure(config)

    def configure(self, config: Mapping[str, str]) -> None:
        """Set these settings; `secret:` in front of a value encrypts it."""
        for key, value in config.items():
            secret = value.startswith("secret:")
            self.stack.set_config(f"{PROJECT}:{key}", auto.ConfigValue(value.removeprefix("secret:"), secret=secret))

    def unset(self, key: str) -> None:
        self.stack.remove_config(f"{PROJECT}:{key}")

    def preview(self) -> Result:
        return self._run(self.stack.preview, diff=True)

    def up(self) -> Result:
        return self._run(self.stack.up)

    def destroy(self) -> Result:
        return self._run(self.stack.destroy)

    def outputs(self) -> dict[str, Any]:
        return {name: output.value for name, output in self.stack.outputs().items()}

    def state(self) -> list[dict[str, Any]]:
        """The resources in the stack's state."""
        return list((self.stack.export_stack().deployment or {}).get("resources") or [])

    def _run(self, operation: Callable[..., Any], **options: Any) -> Result:
        result = Result()

        def watch(event: events.EngineEvent) -> None:
            step = event.resource_pre_event or event.res_outputs_event
            if step is not None:
                meta = step.metadata
                name = meta.urn.rsplit("::", 1)[-1]
                kind = meta.type
                operation = str(meta.op.value)
                if operation not in ("same", "read", "refresh") and not kind.startswith("pulumi:pulumi"):
                    result.steps[f"{kind}::{name}"] = operation
                    if meta.diffs:
                        result.keys[f"{kind}::{name}"] = list(meta.diffs)
            if event.diagnostic_event is not None and event.diagnostic_event.severity == "error":
                result.errors.append(event.diagnostic_event.message.strip())

        try:
            operation(on_event=watch, suppress_outputs=True, color="never", **options)
        except auto.CommandError as error:
            result.failed = True
            if not result.errors:
                result.errors.append(str(error))
        return result
