"""Creates and removes bootstrap, and moves its own state: from a file into the bucket, and back."""

from collections.abc import Callable, Mapping
from typing import Any

import yaml

from infra.bootstrap.account import look
from infra.components.state import ALIAS
from infra.engine.stack import AtlasStack, Say
from infra.engine.workspace import (
    BACKEND_NOTE,
    REPOSITORY,
    stacks_in,
)
from infra.engine.workspace import environment as backend_variables
from infra.environments import bootstrap as environment
from infra.errors import SettingsError
from infra.names import BOOTSTRAP
from infra.program import Facts, declare
from infra.settings import AwsSettings, BootstrapSettings

STACK = BOOTSTRAP


class Home:
    """The account's bootstrap. Its own state is in the bucket, or in a file before the bucket exists.

    Every step can be repeated: the next run continues after a killed run.
    """

    def __init__(self, settings: BootstrapSettings, stacks: Mapping[str, AwsSettings], say: Say) -> None:
        self.settings, self.stacks, self.say = settings, stacks, say
        self.bucket = environment.backend_url(settings)
        self.file = backend_variables(settings, REPOSITORY)["PULUMI_BACKEND_URL"]
        self.found = look(settings)
        self.closing = False

    def make(self) -> tuple[dict[str, Any], dict[str, str]]:
        """Deploy everything as the settings say; returns the outputs, and resource -> operation for what changed.

        Raises SettingsError when the bucket exists, but bootstrap's state is lost.
        """
        in_bucket, in_file = self._in_bucket(), STACK in self._stacks(self.file)
        if self.found.bucket and not in_bucket and not in_file:
            raise SettingsError(
                f"the bucket {self.settings.bucket} is there, but bootstrap's state is neither in it nor in "
                f".atlas/state: docs/bootstrap.md says how to restore it, or choose another atlas:stateBucket"
            )
        stack = self._open(self.bucket if in_bucket else self.file)
        outputs, changes = self._up(stack)
        if not in_bucket:
            stack.move_to(self._open(self.bucket))
            self.say(f"bootstrap's own state is now in {self.bucket}")
        elif in_file:  # a run was killed after the copy
            self._open(self.file).forget(force=True)
        note = REPOSITORY / BACKEND_NOTE
        if not note.is_file() or note.read_text().strip() != self.bucket:
            note.parent.mkdir(parents=True, exist_ok=True)
            note.write_text(f"{self.bucket}\n")
        return outputs, changes

    def init_stacks(self) -> list[str]:
        """Create each stack in the bucket, with the key for its secrets; returns the new stacks."""
        there = self._stacks(self.bucket)
        made = []
        for stack, own in self.stacks.items():
            if stack not in there:
                key = secrets_provider(self.settings, stack)
                AtlasStack(stack, own, self.say, backend=self.bucket, secrets_provider=key).open()
                self.say(
                    f"the stack {stack} is created in the bucket; Pulumi.{stack}.yaml now names its key: commit it"
                )
                made.append(stack)
        return made

    def close(self, ask: Callable[[str], None]) -> list[str]:
        """Remove bootstrap from the account; returns the names of the removed resources.

        `ask` raises when nobody agrees. Raises SettingsError while a stack has resources or a stack file has secrets.
        """
        in_bucket = self._in_bucket()
        others = {name: count for name, count in self._stacks(self.bucket).items() if name != STACK}
        busy = sorted(name for name, count in others.items() if count)
        if busy:
            raise SettingsError(
                f"{self.settings.bucket} holds the state of {', '.join(busy)}, without which their resources can't be "
                f"destroyed: run `atlas destroy --stack {busy[0]}` first"
            )
        for stack in self.stacks:
            for key in _secrets(stack):
                raise SettingsError(
                    f"Pulumi.{stack}.yaml: {key} is a secret that only the key can read: "
                    f"run `pulumi config rm {key} --stack {stack}` first"
                )
        ask(
            f"Delete {self.settings.bucket} with every version of every state, its key, and GitHub's roles in "
            f"account {self.settings.account_id}?"
        )
        if in_bucket:
            source = self._open(self.bucket)
            for name in others:
                source.forget(name, force=True)
            source.move_to(self._open(self.file))
        (REPOSITORY / BACKEND_NOTE).unlink(missing_ok=True)
        for stack in self.stacks:
            _forget_key(stack)
        own = self._open(self.file)
        if any(resource.get("protect") for resource in own.resources()):
            # This `up` removes the protection, and records that the bucket may be deleted with its contents.
            self.closing = True
            self._up(own)
        removed = own.destroy()
        own.forget()
        return removed

    def _program(self) -> None:
        declare(
            self.settings,
            Facts(stacks=self.stacks, foreign_provider=self.found.foreign_provider, closing=self.closing),
        )

    def _open(self, backend: str) -> AtlasStack:
        return AtlasStack(STACK, self.settings, self.say, backend=backend).open()

    def _up(self, stack: AtlasStack) -> tuple[dict[str, Any], dict[str, str]]:
        stack.take_up()
        return stack.up(self._program)

    def _stacks(self, backend: str) -> dict[str, int]:
        """Stack -> number of its resources, for the stacks in this backend."""
        if backend == self.bucket and not look(self.settings).bucket:
            return {}
        return stacks_in(backend, self.settings, REPOSITORY, self.say)

    def _in_bucket(self) -> bool:
        """Whether bootstrap's own state is in the bucket. An empty state doesn't count: its move was interrupted."""
        return self._stacks(self.bucket).get(STACK, 0) > 0


def _secrets(stack: str) -> list[str]:
    """The keys in the stack file whose values are encrypted."""
    config = (yaml.safe_load((REPOSITORY / f"Pulumi.{stack}.yaml").read_text()) or {}).get("config") or {}
    return [key for key, value in config.items() if isinstance(value, dict) and "secure" in value]


def _forget_key(stack: str) -> None:
    """Remove the encryption key from the stack file, because a later key can't decrypt what this key encrypted."""
    file = REPOSITORY / f"Pulumi.{stack}.yaml"
    lines = file.read_text().splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith(("secretsprovider: awskms:", "encryptedkey:"))]
    if kept != lines:
        file.write_text("".join(kept))


def secrets_provider(settings: BootstrapSettings, stack: str) -> str:
    """The key's address, with the stack's name as encryption context, so that a role can only read its own stack's
    secrets."""
    return f"awskms://{ALIAS}?region={settings.region}&context_stack={stack}"
