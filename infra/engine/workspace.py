"""What the engine needs for this repository's stacks: their settings, the address of their state, a free lock."""

import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from pulumi import automation as auto
from pulumi import log

from infra.engine.install import ensure, pinned_version
from infra.engine.interruption import Engine
from infra.engine.locks import release_dead_locks, unfinished
from infra.errors import SettingsError, one_line
from infra.names import PROJECT
from infra.settings import SECRETS, AnySettings, AwsSettings, BootstrapSettings, load_settings, must_be_encrypted

REPOSITORY = Path(__file__).parents[2]
BACKEND_NOTE = ".atlas/backend"
"""The file in which `atlas bootstrap` saves the address of the AWS stacks' bucket."""
POLICIES = [str(REPOSITORY / "infra" / "policy")]
"""Policy packs that check every `up` and `preview`; Pulumi.yaml says how they are started."""


def stack_settings(stack: str, repository: Path) -> AnySettings:
    """The validated settings of Pulumi.<stack>.yaml.

    Raises SettingsError when there is no such stack, or a setting is invalid.
    """
    file = repository / f"Pulumi.{stack}.yaml"
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", stack) or not file.is_file():
        known = sorted(path.name.split(".")[1] for path in repository.glob("Pulumi.*.yaml"))
        raise SettingsError(f"there is no stack {stack!r}; the stacks are {', '.join(known)}")
    try:
        config = (yaml.safe_load(file.read_text()) or {}).get("config") or {}
    except (yaml.YAMLError, AttributeError) as error:
        raise SettingsError(f"{file.name} can't be read: {one_line(error)}") from None
    try:
        return load_settings({key: _given(key, value) for key, value in config.items()})
    except SettingsError as error:
        raise SettingsError("\n".join(f"{file.name}: {line}" for line in str(error).splitlines())) from None


def bootstrapped(settings: BootstrapSettings, repository: Path) -> dict[str, AwsSettings]:
    """The settings of the stacks for which bootstrap creates roles.

    Raises SettingsError when a stack isn't an AWS stack, or is in another account.
    """
    stacks = {}
    for stack in settings.stacks:
        own = stack_settings(stack, repository)
        if not isinstance(own, AwsSettings):
            raise SettingsError(f"Pulumi.bootstrap.yaml: atlas:stacks names {stack}, which is not an AWS stack")
        if own.account_id not in (None, settings.account_id):
            raise SettingsError(
                f"Pulumi.bootstrap.yaml is for account {settings.account_id}, Pulumi.{stack}.yaml for "
                f"{own.account_id}: remove the stack from atlas:stacks, and bootstrap its account from another branch"
            )
        stacks[stack] = own
    return stacks


def _given(key: str, value: Any) -> str:
    """A value of the stack file in the form that the engine passes to programs; a secret's value stays hidden."""
    name = key.removeprefix(f"{PROJECT}:")
    secret = isinstance(value, dict) and value.keys() == {"secure"}
    if name in SECRETS and not secret:
        raise must_be_encrypted(name)
    if secret:
        return "encrypted"
    # YAML has dates, JSON hasn't.
    return json.dumps(value, default=str) if isinstance(value, dict | list | bool) else str(value)


def environment(settings: AnySettings, repository: Path, backend: str | None = None) -> dict[str, str]:
    """The engine's environment variables: a local stack needs no account, prompt or network; AWS stacks share a state.

    Without `backend`, bootstrap's own state is in a file; `atlas bootstrap` gives `backend` once the bucket exists.
    Raises SettingsError when the address of an AWS stack's state is missing or isn't an address.
    """
    if isinstance(settings, AwsSettings):
        note = repository / BACKEND_NOTE
        backend = (
            backend or os.environ.get("PULUMI_BACKEND_URL") or (note.read_text().strip() if note.is_file() else None)
        )
        if not backend:
            raise SettingsError(
                "PULUMI_BACKEND_URL is not set: it names where AWS stacks keep their state, such as s3://BUCKET; "
                "`atlas bootstrap` creates such a bucket, and saves its address on this machine"
            )
        if "://" not in backend:
            raise SettingsError(
                f"PULUMI_BACKEND_URL is {backend!r}, which is not an address: addresses begin with s3://, gs://, "
                "azblob://, file:// or https://, such as s3://BUCKET"
            )
        return {"PULUMI_BACKEND_URL": backend, "PULUMI_SKIP_UPDATE_CHECK": "true"}
    state = repository / ".atlas" / "state"
    state.mkdir(parents=True, exist_ok=True)
    if isinstance(settings, BootstrapSettings):
        return {
            "PULUMI_BACKEND_URL": backend or state.as_uri(),
            "PULUMI_CONFIG_PASSPHRASE": "",  # bootstrap has no secrets
            "PULUMI_SKIP_UPDATE_CHECK": "true",
        }
    return {
        "PULUMI_BACKEND_URL": state.as_uri(),
        "PULUMI_CONFIG_PASSPHRASE": "",  # the local stack has no secrets
        "PULUMI_HOME": str(repository / ".atlas" / "pulumi"),
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
        "PULUMI_DIY_BACKEND_DISABLE_CHECKPOINT_BACKUPS": "true",
        "PATH": os.environ["PATH"],
    }


class Workspace(auto.LocalWorkspace):
    """A workspace whose stacks are read, instead of made the user's current stack.

    That says as well whether a stack exists, and its state is what every command needs next: so the engine, whose start
    takes a quarter of a second, is started once for both.
    """

    state: auto.Deployment | None = None
    """The state that was read, with its secrets in plain."""

    def select_stack(self, stack_name: str) -> None:
        """Raises StackNotFoundError when there is no such stack."""
        self.state = self.export_stack(stack_name)


def stacks_in(backend: str, settings: AnySettings, repository: Path, say: Any) -> dict[str, int]:
    """Stack -> number of its resources, for all stacks in this backend; other projects' stacks have their full name."""
    found = _workspace(settings, repository, say, backend).list_stacks(include_all=True)
    return {stack.name: stack.resource_count or 0 for stack in found}


def unlocked(stack: str, settings: AnySettings, repository: Path, say: Any, backend: str | None = None) -> Workspace:
    """The stack's workspace, after releasing the locks of killed runs and reporting what such a run left unfinished.

    Raises LockedError when another run holds the stack's lock, EngineError when there is no engine.
    """
    workspace = _workspace(settings, repository, say, backend)
    place = workspace.env_vars["PULUMI_BACKEND_URL"]
    for line in release_dead_locks(stack, place):
        say(line)
    if isinstance(settings, AwsSettings):
        # Not on the local stack: there `up` itself finds what a killed run started.
        for line in unfinished(stack, place):
            say(line)
    return workspace


def _workspace(settings: AnySettings, repository: Path, say: Any, backend: str | None) -> Workspace:
    return Workspace(
        work_dir=str(repository),
        env_vars=environment(settings, repository, backend),
        pulumi_command=Engine(ensure(say), pinned_version()),
        program=_no_program,
    )


def _no_program() -> None:
    """A placeholder: only `preview` and `up` run a program, which they get as an argument."""


_NOT_ASKED = auto.UpdateSummary("", datetime.min.replace(tzinfo=UTC), "", {}, {}, "")


def ask_nothing_afterwards(stack: auto.Stack) -> None:
    """Let runs of the stack end with the engine's own end; `up` then returns no outputs, and no run a true summary.

    The Automation API starts the engine up to three times after each run, for outputs and history: a quarter of the
    CPU time of a run in which nothing changes.
    """
    setattr(stack, "outputs", dict)  # noqa: B010 - mypy refuses an assignment to a method
    setattr(stack, "info", lambda *_: _NOT_ASKED)  # noqa: B010


def drop_debug_messages() -> None:
    """Let programs of this process send no debug messages to the engine, which shows them with --debug only.

    The SDK sends each of them by a call that waits for its answer, several for each resource: for a stack of a hundred
    resources that was a third of the CPU time of a preview (4.0 s of program and engine together, 2.7 s without).
    """
    setattr(log, "debug", _ignored)  # noqa: B010 - as an assignment, vulture takes it for dead code


def _ignored(*_: object, **__: object) -> None:
    pass
