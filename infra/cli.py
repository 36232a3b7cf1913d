"""The `atlas` command: the program in this repository, through Pulumi's Automation API."""

import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any

import click
import psutil
from pulumi import automation as auto

from infra.__main__ import program
from infra.engine.install import EngineError
from infra.engine.workspace import COLOURS, REPOSITORY, LockedError, Progress, open_stack, stack_settings
from infra.environments.local import bundle_version
from infra.local.supervisor import Stack as Processes
from infra.preflight import PreflightError, check
from infra.settings import AwsSettings, LocalSettings, Settings, SettingsError

PARTS = ("service", "mlflow", "prometheus", "grafana")
KEPT = "data/, models/, .atlas/mlflow and .atlas/dvc-remote stay"

stack_option = click.option("--stack", default="local", show_default=True, help="Which Pulumi.<stack>.yaml.")
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")


def say(line: str) -> None:
    """Progress goes to standard error, answers to standard output."""
    click.echo(line, err=True)


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Turn every expected error into one clear line and exit status 1; 130 when interrupted."""

    @wraps(command)
    def run(**options: Any) -> None:
        interruption = Interruption()
        try:
            command(**options)
        except (SettingsError, EngineError, LockedError, PreflightError) as error:
            say("\n".join(f"atlas: {line}" for line in str(error).splitlines()))
            sys.exit(1)
        except (auto.CommandError, Failed) as error:
            if interruption.happened:
                say(f"atlas: interrupted; `atlas {command.__name__}` again goes on from here")
                sys.exit(130)
            if isinstance(error, Failed):
                say("\n".join(f"atlas: {line}" for line in error.lines))
                sys.exit(1)
            text = COLOURS.sub("", str(error))
            lines = [line for line in text.splitlines() if "error:" in line]
            say(f"atlas: {lines[-1].strip() if lines else text.strip()[-1000:]}")
            sys.exit(1)

    return run


class Failed(Exception):  # noqa: N818 - reads as a sentence
    """The engine reported errors."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__(lines[0])
        self.lines = lines


def raise_reported(progress: Progress) -> None:
    """Raise Failed with what the engine reported, if it did."""
    if progress.errors:
        raise Failed(progress.errors) from None


class Interruption:
    """Ctrl-C: the engine is told once and finishes what it is doing, so that nothing is left half noted."""

    def __init__(self) -> None:
        self.happened = False
        signal.signal(signal.SIGINT, self._interrupt)
        signal.signal(signal.SIGTERM, self._interrupt)

    def _interrupt(self, number: int, _: object) -> None:
        # A terminal sends Ctrl-C to the engine too; a second one would make it drop everything.
        told = number == signal.SIGINT and sys.stdin.isatty() and not self.happened
        self.happened = True
        say("interrupted: finishing what has begun")
        if not told:
            for child in psutil.Process().children():
                with suppress(psutil.Error):
                    child.send_signal(signal.SIGINT)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """From raw data to a monitored prediction service, and back."""


@main.command()
@stack_option
@json_option
@click.option(
    "--wait", default=300, show_default=True, help="Seconds for a new load balancer's name to be known and to answer."
)
@guarded
def up(stack: str, as_json: bool, wait: int) -> None:
    """Make the stack as its settings say; ends with its addresses, and one prediction.

    Example: atlas up --stack local
    """
    settings = _settings(stack)
    opened = open_stack(stack, settings, program, REPOSITORY, say)
    progress = Progress(say)
    begun = time.monotonic()
    try:
        # On this machine refreshed first: what crashed, or was killed with the machine, is started again.
        local = isinstance(settings, LocalSettings)
        result = opened.up(refresh=local, on_event=progress, suppress_outputs=True, color="never")
    except auto.CommandError:
        raise_reported(progress)
        raise
    outputs = {name: output.value for name, output in result.outputs.items()}
    changes = progress.changes
    say(f"{len(changes)} changed" if changes else "nothing changed" + f" ({time.monotonic() - begun:.1f} s)")
    answer = _example(str(outputs["service"]), patience=wait if isinstance(settings, AwsSettings) else 10)
    if as_json:
        click.echo(json.dumps({"outputs": outputs, "changes": changes, "example": answer}, indent=1))
        return
    _table(outputs)
    if answer is not None:
        request, body = answer["request"], answer["answer"]
        click.echo(f"\nA prediction, asked and answered just now:\n\n{request}\n\n{json.dumps(body, indent=1)}")


@main.command()
@stack_option
@json_option
@guarded
def preview(stack: str, as_json: bool) -> None:
    """Show what `up` would change, and change nothing.

    Example: atlas preview --stack local
    """
    settings = _settings(stack)
    opened = open_stack(stack, settings, program, REPOSITORY, say)
    progress = Progress(lambda _: None)
    try:
        result = opened.preview(
            refresh=isinstance(settings, LocalSettings),
            diff=True,
            on_event=progress,
            on_output=None if as_json else lambda line: click.echo(line.rstrip("\n")),
            color="never",
        )
    except auto.CommandError:
        raise_reported(progress)
        raise
    summary = {str(getattr(op, "value", op)): count for op, count in result.change_summary.items()}
    if as_json:
        click.echo(json.dumps({"changes": summary, "resources": progress.changes}, indent=1))


@main.command()
@stack_option
@guarded
def refresh(stack: str) -> None:
    """Look at the world and adopt what is there: a dead process shows, and the next `up` starts it.

    Example: atlas refresh --stack local
    """
    settings = _settings(stack)
    opened = open_stack(stack, settings, program, REPOSITORY, say)
    progress = Progress(lambda _: None)
    result = opened.refresh(on_event=progress, clear_pending_creates=True, suppress_outputs=True, color="never")
    changes = {str(getattr(op, "value", op)): count for op, count in (result.summary.resource_changes or {}).items()}
    gone = changes.get("delete", 0)
    click.echo(f"{gone} gone: `atlas up --stack {stack}` makes them again" if gone else "all as it should be")


@main.command()
@stack_option
@guarded
def destroy(stack: str) -> None:
    """Stop and remove everything that `up` made. Data, models and MLflow's records stay.

    Example: atlas destroy --stack local
    """
    settings = _settings(stack, makes=False)
    opened = open_stack(stack, settings, lambda: None, REPOSITORY, say)
    progress = Progress(say)
    try:
        if isinstance(settings, AwsSettings):
            # A protected stack is refused here; the destroy alone would first take down all around what is protected.
            opened.preview_destroy(on_event=Progress(lambda _: None), suppress_outputs=True, color="never")
        opened.destroy(on_event=progress, suppress_outputs=True, color="never")
    except auto.CommandError:
        raise_reported(progress)
        raise
    removed = ", ".join(sorted(progress.changes)) or "nothing (there was nothing)"
    if isinstance(settings, AwsSettings):
        click.echo(f"Removed: {removed}.")
        return
    # What a killed `up` started before the engine could note it.
    ended = Processes(REPOSITORY / settings.directory)
    left = ended.end_orphans()
    if left:
        say(f"  ended {len(left)} processes that no run had noted: {', '.join(map(str, left))}")
    click.echo(f"Removed: {removed}. {KEPT}.")


@main.command("dvc-remote")
@stack_option
@guarded
def dvc_remote(stack: str) -> None:
    """Make the stack's bucket DVC's default remote on this machine, or the local folder again (--stack local).

    The choice is kept in .dvc/config.local, which git ignores. Example: atlas dvc-remote --stack dev
    """
    settings = _settings(stack, makes=False)
    if isinstance(settings, LocalSettings):
        _dvc("config", "--local", "--unset", "core.remote", accepted="doesn't exist")
        click.echo(f"DVC's default remote is {settings.dvc_remote} again.")
        return
    outputs = open_stack(stack, settings, program, REPOSITORY, say).outputs()
    if "dvcRemote" not in outputs:
        raise SettingsError(f"the stack {stack} has no bucket yet: `atlas up --stack {stack}` makes it")
    url = str(outputs["dvcRemote"].value)
    _dvc("remote", "add", "--local", "--force", "--default", stack, url)
    _dvc("remote", "modify", "--local", stack, "region", settings.region)
    click.echo(f"DVC's default remote is {url}; `dvc push` fills it.")


@main.command()
@stack_option
@json_option
@guarded
def status(stack: str, as_json: bool) -> None:
    """What runs and whether it is healthy; exit status 1 when something isn't.

    Example: atlas status --stack local
    """
    settings = _settings(stack, makes=False)
    opened = open_stack(stack, settings, program, REPOSITORY, say)
    outputs = {name: output.value for name, output in opened.outputs().items()}
    if isinstance(settings, AwsSettings):
        _aws_status(stack, outputs, as_json=as_json)
        return
    states = Processes(REPOSITORY / settings.directory).states()
    parts: dict[str, dict[str, Any]] = {}
    for name in PARTS:
        address = str(outputs.get(name, ""))
        if address.startswith("http"):
            state = states.get(name, {})
            parts[name] = {
                "address": address,
                "healthy": _answers(address + _health(name)),
                "process": str(state.get("statename", "not running")).lower(),
                "since": state.get("description", ""),
            }
    healthy = bool(parts) and all(part["healthy"] for part in parts.values())
    if as_json:
        click.echo(json.dumps({"bundle": outputs.get("bundle"), "healthy": healthy, "parts": parts}, indent=1))
    elif not parts:
        click.echo(f"The stack {stack} is not up: `atlas up --stack {stack}`")
    else:
        for name, part in parts.items():
            health = "healthy" if part["healthy"] else "NOT HEALTHY"
            click.echo(f"{name:<11} {part['address']:<24} {health:<12} {part['process']} {part['since']}")
        click.echo(f"{'bundle':<11} {str(outputs.get('bundle', ''))[:12]}")
    sys.exit(0 if healthy else 1)


def _settings(stack: str, *, makes: bool = True) -> Settings:
    """The stack's settings, once it is sure that the command can work; `makes`: it makes things, or shows them."""
    settings = stack_settings(stack, REPOSITORY)
    if makes and (isinstance(settings, LocalSettings) or settings.image is None):
        bundle_version(REPOSITORY / settings.bundle)
    if isinstance(settings, AwsSettings):
        check(settings, changes=makes)
    return settings


def _aws_status(stack: str, outputs: dict[str, Any], *, as_json: bool) -> None:
    """The outputs, and whether the service answers; exit status 1 when it doesn't."""
    healthy = bool(outputs) and _answers(f"{outputs['service']}/health/ready")
    if as_json:
        click.echo(json.dumps({"healthy": healthy, "outputs": outputs}, indent=1))
    elif not outputs:
        click.echo(f"The stack {stack} is not up: `atlas up --stack {stack}`")
    else:
        _table(outputs)
        click.echo(f"\n  The service {'is healthy' if healthy else 'DOES NOT ANSWER from here'}.")
    sys.exit(0 if healthy else 1)


def _dvc(*arguments: str, accepted: str = "") -> None:
    """Run DVC; a failure that says `accepted` means there was nothing to do."""
    done = subprocess.run(
        [Path(sys.prefix) / "bin" / "dvc", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    if done.returncode != 0 and not (accepted and accepted in done.stderr):
        raise SettingsError(f"dvc {' '.join(arguments)}: {' '.join(done.stderr.split()) or 'failed'}")


def _health(part: str) -> str:
    return {"service": "/health/ready", "mlflow": "/health", "prometheus": "/-/ready", "grafana": "/api/health"}[part]


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310 - loopback
            return bool(response.status == 200)
    except OSError:
        return False


def _table(outputs: dict[str, Any]) -> None:
    click.echo()
    width = max(map(len, outputs), default=0) + 2
    for name, value in outputs.items():
        click.echo(f"  {name:<{width}}{value}")


def _example(address: str, *, patience: float) -> dict[str, Any] | None:
    """One prediction through the running service: the request as a curl command, and its real answer.

    `patience` in seconds: a new load balancer's name takes a while to be known.
    """
    deadline = time.monotonic() + patience
    while not _answers(f"{address}/health/ready") and time.monotonic() < deadline:
        time.sleep(2)
    try:
        with urllib.request.urlopen(f"{address}/openapi.json", timeout=10) as response:  # noqa: S310 - our own service
            document = json.load(response)
        row = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["example"]
        # What must be given, and nothing else: short enough to type.
        required = document["components"]["schemas"]["Row"]["required"]
        body = json.dumps({"rows": [{name: row["rows"][0][name] for name in required} or row["rows"][0]]})
        request = urllib.request.Request(  # noqa: S310
            f"{address}/predict", body.encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
            answer = json.load(response)
    except (OSError, ValueError, KeyError) as error:
        say(f"atlas: the service is up but the example failed: {error}")
        return None
    quoted = body.replace("'", "'\\''")
    command = f"curl -s {address}/predict -H 'Content-Type: application/json' -d '{quoted}'"
    return {"request": command, "answer": answer}


if __name__ == "__main__":
    main()
