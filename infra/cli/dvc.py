"""`atlas dvc-remote`: selects the remote that DVC uses on this machine."""

import json
import subprocess
import sys
from pathlib import Path

import click

from infra.cli.common import guarded, json_option, stack_of, stack_option
from infra.engine.stack import AtlasStack
from infra.engine.workspace import REPOSITORY
from infra.errors import SettingsError, StepError, one_line
from infra.settings import AwsSettings, LocalSettings


@click.command("dvc-remote")
@stack_option
@json_option
@guarded
def dvc_remote(stack: str, as_json: bool) -> None:
    """Make the stack's bucket DVC's default remote on this machine, or the local folder again (--stack local).

    The choice is kept in .dvc/config.local, which git ignores. Example: atlas dvc-remote --stack dev
    """
    opened = stack_of(stack, makes=False)
    if isinstance(opened.settings, LocalSettings):
        _dvc("config", "--local", "--unset", "core.remote", accepted="doesn't exist")
        url: str | None = opened.settings.dvc_remote
        told = f"DVC's default remote is {url} again."
    else:
        url = use_remote(opened)
        if url is None:
            raise SettingsError(f"the stack {stack} has no bucket yet: `atlas up --stack {stack}` makes it")
        told = f"DVC's default remote is {url}; `dvc push` fills it."
    click.echo(json.dumps({"remote": url}, indent=1) if as_json else told)


def use_remote(stack: AtlasStack) -> str | None:
    """Make the stack's bucket DVC's default remote on this machine; returns its address, None if it has no bucket."""
    if not isinstance(stack.settings, AwsSettings):
        return None
    outputs = stack.outputs()
    if "dvcRemote" not in outputs:
        return None
    url = str(outputs["dvcRemote"])
    _dvc("remote", "add", "--local", "--force", "--default", stack.name, url)
    _dvc("remote", "modify", "--local", stack.name, "region", stack.settings.region)
    return url


def _dvc(*arguments: str, accepted: str = "") -> None:
    """Run DVC; a failure whose message contains `accepted` means that there was nothing to do."""
    done = subprocess.run(
        [Path(sys.prefix) / "bin" / "dvc", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    if done.returncode != 0 and not (accepted and accepted in done.stderr):
        raise StepError(f"dvc {' '.join(arguments)}: {one_line(done.stderr) or 'failed'}")
