"""`atlas bootstrap`: what an account needs once, before any other stack and after the last; and the way back."""

import json
import shlex
import sys
from collections.abc import Mapping
from typing import Any

import click
import pulumi
from pulumi import automation as auto

from infra.account import look
from infra.cli.common import guarded, json_option, raise_reported, say
from infra.components.state import ALIAS
from infra.engine.workspace import (
    BACKEND_NOTE,
    POLICIES,
    REPOSITORY,
    Progress,
    bootstrapped,
    open_stack,
    stack_settings,
    stacks_in,
)
from infra.environments import bootstrap as environment
from infra.settings import AwsSettings, BootstrapSettings, SettingsError

STACK = "bootstrap"


@click.command()
@json_option
@click.option(
    "--destroy", is_flag=True, help="The way back: delete bucket, key and roles. Refuses while stacks are up."
)
@click.option("--yes", is_flag=True, help="With --destroy: don't ask.")
@guarded
def bootstrap(as_json: bool, destroy: bool, yes: bool) -> None:
    """Make the state bucket, its key and GitHub's roles, and put the AWS stacks' state there. Again: changes nothing.

    Example: atlas bootstrap
    """
    settings = stack_settings(STACK, REPOSITORY)
    if not isinstance(settings, BootstrapSettings):
        raise SettingsError(f"Pulumi.{STACK}.yaml: atlas:environment must be bootstrap")
    stacks = bootstrapped(settings, REPOSITORY)
    home = Home(settings, stacks)
    if destroy:
        home.close(yes=yes)
        return
    outputs, changes = home.make()
    ready = home.init_stacks()
    variables = variables_of(settings, stacks, outputs)
    if as_json:
        click.echo(
            json.dumps({"outputs": outputs, "changes": changes, "initialised": ready, "variables": variables}, indent=1)
        )
        return
    _explain(settings, variables)


class Home:
    """The account's bootstrap, and where its own state is: in the bucket, or before there is one in a file."""

    def __init__(self, settings: BootstrapSettings, stacks: Mapping[str, AwsSettings]) -> None:
        self.settings, self.stacks = settings, stacks
        self.backend = environment.backend_url(settings)
        self.found = look(settings)
        self.closing = False

    def make(self) -> tuple[dict[str, Any], dict[str, str]]:
        """Everything as the settings say; its outputs, and resource -> operation of what changed."""
        in_bucket = self._in_bucket()
        opened = self._open(self.backend if in_bucket else None)
        outputs, changes = self._up(opened)
        if not in_bucket:
            target = self._open(self.backend)
            _move(opened, target)
            say(f"bootstrap's own state is in {self.backend} now")
        note = REPOSITORY / BACKEND_NOTE
        if not note.is_file() or note.read_text().strip() != self.backend:
            note.parent.mkdir(parents=True, exist_ok=True)
            note.write_text(f"{self.backend}\n")
        return outputs, changes

    def init_stacks(self) -> list[str]:
        """Give each stack its place in the bucket and its secrets to the key; returns those that had none."""
        there = self._stacks_in_bucket()
        made = []
        for stack, own in self.stacks.items():
            if stack not in there:
                open_stack(
                    stack, own, lambda: None, REPOSITORY, say,
                    backend=self.backend, secrets_provider=secrets_provider(self.settings, stack),
                )  # fmt: skip
                say(f"the stack {stack} has its place in the bucket; Pulumi.{stack}.yaml names its key now: commit it")
                made.append(stack)
        return made

    def close(self, *, yes: bool) -> None:
        """Back to an account without bootstrap.

        Raises SettingsError while a stack is up, or when nobody agreed.
        """
        in_bucket = self._in_bucket()
        others = {name: count for name, count in self._stacks_in_bucket().items() if name != STACK}
        busy = sorted(name for name, count in others.items() if count)
        if busy:
            raise SettingsError(
                f"{self.settings.bucket} holds the state of {', '.join(busy)}, whose resources nobody could take down "
                f"without it: `atlas destroy --stack {busy[0]}` first"
            )
        if not yes:
            if not sys.stdin.isatty():
                raise SettingsError("without a terminal nobody can be asked: `atlas bootstrap --destroy --yes`")
            click.confirm(
                f"Delete {self.settings.bucket} with every version of every state, its key, and GitHub's roles in "
                f"account {self.settings.account_id}?", abort=True,
            )  # fmt: skip
        if in_bucket:
            bucket = self._open(self.backend)
            for name in others:
                bucket.workspace.remove_stack(name, force=True, preserve_config=True)
            _move(bucket, self._open(None))
        (REPOSITORY / BACKEND_NOTE).unlink(missing_ok=True)
        self.closing = True
        opened = self._open(None)
        progress = Progress(say)
        try:
            # First what protects the state is taken off, and the bucket told that it may go with what is in it.
            self._up(opened)
            opened.destroy(on_event=progress, suppress_outputs=True, color="never")
        except auto.CommandError:
            raise_reported(progress)
            raise
        opened.workspace.remove_stack(STACK, preserve_config=True)
        click.echo(f"Removed: {', '.join(sorted(progress.changes)) or 'nothing (there was nothing)'}.")

    def _program(self) -> None:
        outputs = environment.deploy(
            self.settings, self.stacks, adopt=self.found.foreign_provider, closing=self.closing
        )
        for name, value in outputs.items():
            pulumi.export(name, value)

    def _open(self, backend: str | None) -> auto.Stack:
        return open_stack(STACK, self.settings, self._program, REPOSITORY, say, backend=backend)

    def _up(self, opened: auto.Stack) -> tuple[dict[str, Any], dict[str, str]]:
        progress = Progress(say)
        try:
            result = opened.up(on_event=progress, suppress_outputs=True, color="never", policy_packs=POLICIES)
        except auto.CommandError:
            raise_reported(progress)
            raise
        return {name: output.value for name, output in result.outputs.items()}, progress.changes

    def _stacks_in_bucket(self) -> dict[str, int]:
        """Stack -> how many resources it has, of those whose state is in the bucket."""
        if not look(self.settings).bucket:
            return {}
        return stacks_in(self.backend, self.settings, REPOSITORY, say)

    def _in_bucket(self) -> bool:
        """Whether bootstrap's own state is in the bucket: an empty one there is a move that didn't come to its end."""
        return self._stacks_in_bucket().get(STACK, 0) > 0


def _move(source: auto.Stack, target: auto.Stack) -> None:
    """Copy, then delete: a run that is killed in between finds the whole state in at least one place."""
    target.import_stack(source.export_stack())
    source.workspace.remove_stack(STACK, force=True, preserve_config=True)


def secrets_provider(settings: BootstrapSettings, stack: str) -> str:
    """The key, with the stack's name as context: a role can then read its own stack's secrets only."""
    return f"awskms://{ALIAS}?region={settings.region}&context_stack={stack}"


def variables_of(
    settings: BootstrapSettings, stacks: Mapping[str, AwsSettings], outputs: Mapping[str, Any]
) -> dict[str, dict[str, str]]:
    """GitHub's variables: environment ("" is the repository) -> name -> value."""
    variables = {
        "": {
            "PULUMI_BACKEND_URL": str(outputs["backend"]),
            "AWS_REGION": settings.region,
            "ATLAS_PREVIEW_ROLE": str(outputs["previewRole"]),
        }
    }
    for stack, own in stacks.items():
        variables[stack] = {"ATLAS_DEPLOY_ROLE": str(outputs[f"{stack}DeployRole"])}
        if own.disposable:
            variables[f"{stack}-destroy"] = {"ATLAS_DESTROY_ROLE": str(outputs[f"{stack}DestroyRole"])}
    return variables


def _explain(settings: BootstrapSettings, variables: Mapping[str, Mapping[str, str]]) -> None:
    """What is left for a person to do."""
    click.echo(
        f"\n# On this machine `atlas` knows the bucket; for `pulumi` by hand, and other machines:\n"
        f"export PULUMI_BACKEND_URL={shlex.quote(variables['']['PULUMI_BACKEND_URL'])}"
    )
    owner_and_name = "/".join(part.split("@")[0] for part in settings.repository.removeprefix("repo:").split("/"))
    click.echo("\n# For GitHub's workflows, once, by somebody who administers the repository:")
    for place, values in variables.items():
        if place:
            click.echo(f"gh api --method PUT repos/{owner_and_name}/environments/{place}")
        for name, value in values.items():
            where = f" --env {place}" if place else ""
            click.echo(f"gh variable set {name} --repo {owner_and_name}{where} --body {shlex.quote(value)}")
