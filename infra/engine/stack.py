"""One of this repository's stacks, on the pinned engine: what can be done to it, and what its state holds."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from pulumi import automation as auto

from infra.engine.events import Events
from infra.engine.locks import take_up
from infra.engine.workspace import POLICIES, REPOSITORY, unlocked
from infra.names import PROJECT
from infra.settings import AnySettings

Program = Callable[[], None]
"""What declares a stack's resources."""
Say = Callable[[str], None]
"""Takes a line that is told while something runs."""


class AtlasStack:
    """A stack by its name and settings; the engine is asked at the first call, not before.

    What only looks, refreshes or removes takes the stack as it is found: of a stack that isn't there it tells nothing
    and does nothing, and its stack file stays as it is. `open`, `preview` and `up` make the stack if need be.
    Whichever call asks the engine first raises LockedError when another run is at work on the stack, and EngineError
    when there is no engine.
    """

    def __init__(
        self,
        name: str,
        settings: AnySettings,
        say: Say,
        repository: Path = REPOSITORY,
        *,
        backend: str | None = None,
        secrets_provider: str | None = None,
    ) -> None:
        """`backend`: where its state is, instead of the usual place; `secrets_provider`: who encrypts its secrets if it
        is made, instead of a passphrase.
        """
        self.name, self.settings, self.say = name, settings, say
        self._repository, self._backend, self._secrets_provider = repository, backend, secrets_provider
        self._opened: auto.Stack | None = None
        self._looked = False

    def open(self) -> Self:
        """Make the stack if need be; locks are looked at anew, also when it was open before."""
        self._opened = self._create()
        return self

    @property
    def exists(self) -> bool:
        """Whether there is such a stack, be it an empty one."""
        return self._found() is not None

    def outputs(self) -> dict[str, Any]:
        """The outputs of its last `up`."""
        found = self._found()
        return _values(found.outputs()) if found else {}

    def resources(self) -> list[dict[str, Any]]:
        """The resources in its state."""
        found = self._found()
        return list((found.export_stack().deployment or {}).get("resources") or []) if found else []

    def deployed(self) -> tuple[str | None, bool]:
        """The image of its Deployment, and whether its pods came up.

        When they didn't, the engine notes the image of before: the new one is then the one to leave.
        """
        for resource in self.resources():
            if resource["type"] == "kubernetes:apps/v1:Deployment":
                image = resource["inputs"]["spec"]["template"]["spec"]["containers"][0]["image"]
                return str(image), not resource.get("initErrors")
        return None, False

    def last(self) -> auto.UpdateSummary | None:
        """The last thing that was done to it."""
        found = self._found()
        history = found.history(page_size=1, show_secrets=False) if found else []
        return history[0] if history else None

    def take_up(self) -> None:
        """Note what a killed run was making and is there; `up` and `destroy` would else not know of it."""
        found = self._found()
        if found is not None:
            take_up(found, self.say)

    def preview(
        self,
        program: Program,
        events: Events,
        *,
        refresh: bool = False,
        exclude: Sequence[str] = (),
        show: Say | None = None,
    ) -> None:
        """What `up` would do, policies asked too, into `events`; `show` gets the lines of the engine's own display.

        Raises FailedError with what the engine reported, CredentialsError when the credentials ended.
        """
        with _reported(events):
            self._made().preview(
                program=program,
                refresh=refresh,
                exclude=list(exclude) or None,
                diff=show is not None,
                suppress_outputs=show is None,
                on_event=events,
                on_output=(lambda line: show(line.rstrip("\n"))) if show is not None else None,
                color="never",
                policy_packs=POLICIES,
            )

    def up(
        self, program: Program, *, refresh: bool = False, target: Sequence[str] = ()
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """Make it as the program says: its outputs, and resource name -> operation of what changed.

        `target`: only these URNs; policies are then not asked, as they judge whole stacks.
        Raises FailedError with what the engine reported, CredentialsError when the credentials ended.
        """
        events = Events(self.say)
        with _reported(events):
            result = self._made().up(
                program=program,
                refresh=refresh,
                target=list(target) or None,
                on_event=events,
                suppress_outputs=True,
                color="never",
                policy_packs=None if target else POLICIES,
            )
        return _values(result.outputs), events.changes

    def refresh(self) -> dict[str, int]:
        """Adopt what is there: operation -> how many resources."""
        found = self._found()
        if found is None:
            return {}
        result = found.refresh(clear_pending_creates=True, suppress_outputs=True, color="never")
        changes = result.summary.resource_changes or {}
        return {str(getattr(operation, "value", operation)): count for operation, count in changes.items()}

    def destroy(self, *, forget_unreachable: bool = False) -> list[str]:
        """Remove its resources; the names of those that were removed.

        `forget_unreachable`: what is in a cluster that doesn't answer is taken out of the state and left where it is.
        Raises FailedError with what the engine reported, CredentialsError when the credentials ended.
        """
        found = self._found()
        if found is None:
            return []
        if forget_unreachable:
            found.workspace.env_vars = {**found.workspace.env_vars, "PULUMI_K8S_DELETE_UNREACHABLE": "true"}
        events = Events(self.say)
        with _reported(events):
            found.destroy(on_event=events, suppress_outputs=True, color="never")
        return sorted(events.changes)

    def forget(self, name: str | None = None, *, force: bool = False) -> None:
        """Remove its record (or that of `name`, in the same place); its stack file stays. `force`: with resources."""
        found = self._found()
        if found is not None:
            found.workspace.remove_stack(name or self.name, force=force, preserve_config=True)

    def move_to(self, place: "AtlasStack") -> None:
        """Copy its state, then delete it: a run that is killed in between finds the whole state in one place or two."""
        place._made().import_stack(self._made().export_stack())
        self.forget(force=True)

    def _found(self) -> auto.Stack | None:
        if self._opened is None and not self._looked:
            options = self._unlocked()
            try:
                self._opened = auto.select_stack(self.name, project_name=PROJECT, program=_no_program, opts=options)
            except auto.StackNotFoundError:
                self._looked = True
        return self._opened

    def _made(self) -> auto.Stack:
        if self._opened is None:
            self._opened = self._create()
        return self._opened

    def _create(self) -> auto.Stack:
        options = self._unlocked()
        options.secrets_provider = self._secrets_provider
        return auto.create_or_select_stack(self.name, project_name=PROJECT, program=_no_program, opts=options)

    def _unlocked(self) -> auto.LocalWorkspaceOptions:
        return unlocked(self.name, self.settings, self._repository, self.say, self._backend)


@contextmanager
def _reported(events: Events) -> Iterator[None]:
    """Tell a failure by what the engine reported, where it reported anything."""
    try:
        yield
    except auto.CommandError:
        events.raise_errors()
        raise


def _values(outputs: auto.OutputMap) -> dict[str, Any]:
    return {name: output.value for name, output in outputs.items()}


def _no_program() -> None:
    """For what runs no program; `preview` and `up` are given theirs."""
