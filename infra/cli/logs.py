"""`atlas logs`: prints the logs of a stack's parts."""

import json
import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import boto3
import click
from botocore.exceptions import BotoCoreError, ClientError

from infra.cli.common import guarded, settings_of, stack_option
from infra.engine.workspace import REPOSITORY
from infra.errors import AwsError, ClusterError, SettingsError, one_line
from infra.names import control_plane_logs
from infra.settings import AwsSettings, LocalSettings

PARTS = {LocalSettings: ("service", "mlflow", "prometheus", "grafana"), AwsSettings: ("service", "control-plane")}
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
PAUSE = 2
"""Seconds between two queries for new lines."""
Said = tuple[str, str]
"""The source of a line, and the line."""


@click.command()
@stack_option
@click.option(
    "--part", default="service", show_default=True, help="The part; after a wrong name the error lists the parts."
)
@click.option(
    "--lines", default=100, show_default=True, type=click.IntRange(1, 10000), help="Maximum number of lines per pod."
)
@click.option("--since", default="1h", show_default=True, help="AWS: maximum age of the lines, such as 10m.")
@click.option("--follow", is_flag=True, help="Continue with new lines, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print each line as a JSON document, with its source.")
@guarded
def logs(stack: str, part: str, lines: int, since: str, follow: bool, as_json: bool) -> None:
    """Print the log of a part: the service's pods, the cluster's control plane, or a process on this machine.

    The monitoring hosts keep their logs to themselves: docs/runbook.md has the way in.

    Example: atlas logs --stack dev --since 10m
    """
    settings = settings_of(stack, makes=False)
    parts = PARTS[type(settings)]
    if part not in parts:
        raise SettingsError(f"the stack {stack} has no part {part!r} with a log; its parts are {', '.join(parts)}")
    seconds = _seconds(since)
    if isinstance(settings, LocalSettings):
        file = REPOSITORY / settings.directory / "logs" / f"{part}.log"
        said: Iterator[Said] = ((part, line) for line in _file(file, lines, follow=follow))
    else:
        ask = _pods if part == "service" else _control_plane
        said = _asked(lambda most, back: ask(settings, most, back), lines, seconds, follow=follow)
    with suppress(KeyboardInterrupt):
        for who, line in said:
            told = json.dumps({"from": who, "line": line}) if as_json else f"{who} {line}" if who != part else line
            click.echo(told)


def _file(file: Path, lines: int, *, follow: bool) -> Iterator[str]:
    if not file.is_file():
        raise SettingsError(f"there is no {file.name}: `atlas up` starts the process that writes it")
    with file.open(errors="replace") as stream:
        yield from (line.rstrip("\n") for line in deque(stream, lines))
        while follow:
            line = stream.readline()
            if line:
                yield line.rstrip("\n")
            else:
                time.sleep(PAUSE / 4)


def _asked(ask: Callable[[int | None, int], list[Said]], lines: int, seconds: int, *, follow: bool) -> Iterator[Said]:
    """The last lines, then all new lines. The queries overlap, and a line with the same time is returned only once."""
    # First read all recent lines, although only the last lines are shown: older lines must not appear as new lines.
    seen = ask(None, 10 * PAUSE) if follow else []
    shown = ask(lines, seconds)
    yield from shown
    seen += shown
    while follow:
        time.sleep(PAUSE)
        found = ask(None, 10 * PAUSE)
        known = set(seen)
        yield from (line for line in found if line not in known)
        seen = found


def _pods(settings: AwsSettings, lines: int | None, seconds: int) -> list[Said]:
    from infra.deployment.pods import cluster_of
    from infra.deployment.pods import logs as said

    try:
        with cluster_of(settings) as api:
            return said(api, settings.namespace, settings.app_name, lines=lines, seconds=seconds)
    except ClusterError as error:
        raise ClusterError(f"the pods can't be asked: {error}") from None


def _control_plane(settings: AwsSettings, lines: int | None, seconds: int) -> list[Said]:
    group = control_plane_logs(settings.cluster_name)
    pages = boto3.client("logs", region_name=settings.region).get_paginator("filter_log_events")
    begin = int((time.time() - seconds) * 1000)
    try:
        # CloudWatch returns the oldest events first, and has no option for the last events.
        events = deque(
            (event for page in pages.paginate(logGroupName=group, startTime=begin) for event in page["events"]), lines
        )
    except (BotoCoreError, ClientError) as error:
        raise AwsError(f"{group} can't be read: {one_line(error)}") from None
    return [(event["logStreamName"], event["message"].rstrip()) for event in events]


def _seconds(since: str) -> int:
    found = re.fullmatch(r"([1-9][0-9]*)([smhd])", since)
    if found is None:
        raise SettingsError(f"--since {since!r} is not a duration such as 10m")
    return int(found[1]) * UNITS[found[2]]
