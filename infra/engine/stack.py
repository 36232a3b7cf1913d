"""A stack of this repository on the pinned engine: the operations on it, and the contents of its state."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from pulumi import automation as auto

from infra.engine.events import Events, Step
from infra.engine.unrecorded import Find, take_up
from infra.engine.workspace import POLICIES, REPOSITORY, ask_nothing_afterwards, drop_debug_messages, unlocked
from infra.names import materializer
from infra.settings import AnySettings

Program = Callable[[], None]
"""Declares a stack's resources."""
Say = Callable[[str], None]
"""Prints a line of progress."""
SIGNATURE, SECRET = "4dabf18193072939515e22adb298388d", "1b47061264138c4ac30d75fd1eb44270"
"""The key and the value by which a state marks a secret (sdk/go/common/resource/sig)."""
IN_CLUSTER = "**$kubernetes:**"
"""The URNs of the objects in the cluster; all of them are in a component."""


class AtlasStack:
    """A stack by its name and settings; the engine is started by the first call that needs it.

    `open`, `preview` and `up` create the stack if it doesn't exist. All other calls don't: if the stack doesn't exist,
    they return nothing, do nothing and don't change the stack file.
    The first call that needs the engine raises LockedError when another run holds the stack's lock, and EngineError
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
        """`backend`: the address of its state, instead of the default; `secrets_provider`: encrypts the secrets of a
        new stack, instead of a passphrase.
        """
        self.name, self.settings, self.say = name, settings, say
        self._repository, self._backend, self._secrets_provider = repository, backend, secrets_provider
        self._opened: auto.Stack | None = None
        self._looked = False
        self._exported: auto.Deployment | None = None

    def open(self) -> Self:
        """Create the stack if necessary; locks are checked again, even if the stack was already open."""
        self._opened = self._open(auto.Stack.create_or_select)
        return self

    @property
    def exists(self) -> bool:
        """Whether the stack exists, even if it is empty."""
        return self._found() is not None

    def outputs(self) -> dict[str, Any]:
        """The outputs of its last `up`."""
        roots = [resource for resource in self.resources() if resource["type"] == "pulumi:pulumi:Stack"]
        return {name: _plain(value) for root in roots for name, value in (root.get("outputs") or {}).items()}

    def resources(self) -> list[dict[str, Any]]:
        """The resources in its state."""
        found = self._found()
        return list((self._state(found).deployment or {}).get("resources") or []) if found else []

    def deployed(self) -> tuple[str | None, bool]:
        """The image of the service's Deployment, and whether its pods became ready.

        If they didn't, the engine recorded the previous image, although the Deployment has the new image.
        """
        found = self.deployment()
        if found is None:
            return None, False
        return str(found["inputs"]["spec"]["template"]["spec"]["containers"][0]["image"]), not found.get("initErrors")

    def deployment(self) -> dict[str, Any] | None:
        """The service's Deployment, as its state has it."""
        found = [resource for resource in self.resources() if resource["type"] == "kubernetes:apps/v1:Deployment"]
        other = materializer("")  # the end of the materialiser's name
        return next((each for each in found if not each["inputs"]["metadata"]["name"].endswith(other)), None)

    def last(self) -> auto.UpdateSummary | None:
        """The last operation on the stack."""
        found = self._found()
        history = found.history(page_size=1, show_secrets=False) if found else []
        return history[0] if history else None

    def take_up(self, find: Find | None = None) -> None:
        """Adopt what a killed run created without recording it; otherwise `up` and `destroy` wouldn't know about it.

        `find` looks for resources whose ids aren't names.
        """
        found = self._found()
        if found is not None and take_up(found, self._state(found), self.say, find):
            self._exported = None

    def preview(
        self,
        program: Program,
        events: Events,
        *,
        refresh: bool = False,
        exclude: Sequence[str] = (),
        show: Say | None = None,
    ) -> None:
        """Collect in `events` what `up` would do, policies included; `show` gets the lines of the engine's own display.

        Raises FailedError with what the engine reported, CredentialsError when the credentials expired.
        """
        drop_debug_messages()
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
        """Deploy what the program declares; returns the outputs, and resource name -> operation for what changed.

        `target`: only these URNs; policies are then skipped, because they check whole stacks.
        Raises FailedError with what the engine reported, CredentialsError when the credentials expired.
        """
        events = Events(self.say)
        drop_debug_messages()
        with _reported(events):
            self._changing(self._made()).up(
                program=program,
                refresh=refresh,
                target=list(target) or None,
                on_event=events,
                suppress_outputs=True,
                color="never",
                policy_packs=None if target else POLICIES,
            )
        return self.outputs(), events.changes

    def refresh(self) -> dict[str, int]:
        """Read the real state of all resources into Pulumi's state; returns operation -> number of resources."""
        found = self._found()
        if found is None:
            return {}
        self._changing(found).refresh(clear_pending_creates=True, suppress_outputs=True, color="never")
        done = self.last()
        changes = (done.resource_changes if done else None) or {}
        return {str(getattr(operation, "value", operation)): count for operation, count in changes.items()}

    def compare_cluster(self, *, save: bool) -> list[Step]:
        """The objects in the cluster that differ from the state; `save`: the state then has what they really are.

        Raises FailedError with what the engine reported, CredentialsError when the credentials expired.
        """
        found = self._found()
        if found is None or not any(resource["type"].startswith("kubernetes:") for resource in self.resources()):
            return []
        known = self._exported
        differing = compare_cluster(self._changing(found) if save else found, save=save)
        if not differing:  # so the state that was known is the state that there is
            self._exported = known
        return differing

    def destroy(self, *, forget_unreachable: bool = False) -> list[str]:
        """Remove its resources; returns the names of the removed resources.

        `forget_unreachable`: if the cluster doesn't answer, only remove its objects from the state.
        Raises FailedError with what the engine reported, CredentialsError when the credentials expired.
        """
        found = self._found()
        if found is None:
            return []
        if forget_unreachable:
            found.workspace.env_vars = {**found.workspace.env_vars, "PULUMI_K8S_DELETE_UNREACHABLE": "true"}
        events = Events(self.say)
        with _reported(events):
            self._changing(found).destroy(on_event=events, suppress_outputs=True, color="never")
        return sorted(events.changes)

    def forget(self, name: str | None = None, *, force: bool = False) -> None:
        """Remove the stack's record (or that of `name` in the same backend); the stack file stays. `force`: even if it
        has resources."""
        found = self._found()
        if found is not None:
            found.workspace.remove_stack(name or self.name, force=force, preserve_config=True)

    def move_to(self, place: "AtlasStack") -> None:
        """Copy its state to `place`, then delete it here; if the run is killed, the state is complete in at least one
        of both places."""
        place._made().import_stack(self._made().export_stack())
        self.forget(force=True)

    def _found(self) -> auto.Stack | None:
        if self._opened is None and not self._looked:
            try:
                self._opened = self._open(auto.Stack.select)
            except auto.StackNotFoundError:
                self._looked = True
        return self._opened

    def _made(self) -> auto.Stack:
        if self._opened is None:
            self._opened = self._open(auto.Stack.create_or_select)
        return self._opened

    def _open(self, how: Callable[[str, auto.Workspace], auto.Stack]) -> auto.Stack:
        workspace = unlocked(self.name, self.settings, self._repository, self.say, self._backend)
        workspace.secrets_provider = self._secrets_provider
        opened = how(self.name, workspace)
        self._exported = workspace.state
        ask_nothing_afterwards(opened)
        return opened

    def _state(self, found: auto.Stack) -> auto.Deployment:
        """The stack's state with its secrets in plain; the engine is asked again only after a change."""
        if self._exported is None:
            self._exported = found.export_stack()
        return self._exported

    def _changing(self, found: auto.Stack) -> auto.Stack:
        """The stack, for a run that changes its state."""
        self._exported = None
        return found


def compare_cluster(stack: auto.Stack, *, save: bool) -> list[Step]:
    """As AtlasStack.compare_cluster, of an opened stack that has objects in a cluster."""
    events = Events()
    with _reported(events):
        compare = stack.refresh if save else stack.preview_refresh
        compare(target=[IN_CLUSTER], on_event=events, suppress_outputs=True, color="never")
    return events.drifted


@contextmanager
def _reported(events: Events) -> Iterator[None]:
    """Replace a CommandError by the errors that the engine reported, if it reported any."""
    try:
        yield
    except auto.CommandError:
        events.raise_errors()
        raise


def _plain(value: Any) -> Any:
    """An output as the program exported it; an exported state has secrets as {signature of a secret, JSON text}."""
    if isinstance(value, dict):
        if value.get(SIGNATURE) == SECRET:
            return json.loads(value["plaintext"])
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value
