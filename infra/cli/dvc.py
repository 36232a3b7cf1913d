"""`atlas dvc-remote`: which remote DVC uses on this machine."""

import json
import subprocess
import sys
from pathlib import Path

import click

from infra.cli.common import guarded, json_option, say, settings_of, stack_option
from infra.engine.workspace import REPOSITORY, find_stack, outputs_of
from infra.errors import SettingsError, StepError, one_line
from infra.program import program
from infra.settings import AwsSettings, LocalSettings


@click.command("dvc-remote")
@stack_option
@json_option
@guarded
def dvc_remote(stack: str, as_json: bool) -> None:
    """Make the stack's bucket DVC's default remote on this machine, or the local folder again (--stack local).

    The choice is kept in .dvc/config.local, which git ignores. Example: atlas dvc-remote --stack dev
    """
    settings = settings_of(stack, makes=False)
    if isinstance(settings, LocalSettings):
        _dvc("config", "--local", "--unset", "core.remote", accepted="doesn't exist")
        url: str | None = settings.dvc_remote
        told = f"DVC's default remote is {url} again."
    else:
        url = use_remote(stack, settings)
        if url is None:
            raise SettingsError(f"the stack {stack} has no bucket yet: `atlas up --stack {stack}` makes it")
        told = f"DVC's default remote is {url}; `dvc push` fills it."
    click.echo(json.dumps({"remote": url}, indent=1) if as_json else told)


def use_remote(stack: str, settings: AwsSettings) -> str | None:
    """Make the stack's bucket DVC's default remote on this machine; its address, None when there is no bucket yet."""
    outputs = outputs_of(find_stack(stack, settings, program, REPOSITORY, say))
    if "dvcRemote" not in outputs:
        return None
    url = str(outputs["dvcRemote"])
    _dvc("remote", "add", "--local", "--force", "--default", stack, url)
    _dvc("remote", "modify", "--local", stack, "region", settings.region)
    return url


def _dvc(*arguments: str, accepted: str = "") -> None:
    """Run DVC; a failure that says `accepted` means there was nothing to do."""
    done = subprocess.run(
        [Path(sys.prefix) / "bin" / "dvc", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    if done.returncode != 0 and not (accepted and accepted in done.stderr):
        raise StepError(f"dvc {' '.join(arguments)}: {one_line(done.stderr) or 'failed'}")
