"""What a part has said: a file on this machine, CloudWatch for the control plane; pods: deployment/test_pods.py."""

import json
import signal
import time

import boto3
import pytest

from infra.cli.logs import _asked, _control_plane
from infra.errors import AwsError
from infra.settings import AwsSettings, load_settings
from tests.infra.conftest import Checkout
from tests.infra.support.aws import BASE
from tests.infra.support.waiting import eventually

pytestmark = pytest.mark.slow

GROUP = "/aws/eks/flask-app-cluster/cluster"


def said(checkout: Checkout, text: str) -> None:
    folder = checkout.path / ".atlas/local/logs"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "service.log").open("a") as file:
        file.write(text)


def test_last_lines_of_a_process_of_this_machine(checkout: Checkout) -> None:
    said(checkout, "one\ntwo\nthree\n")
    assert checkout.atlas("logs", "--lines", "2").stdout == "two\nthree\n"
    (first, *_) = checkout.atlas("logs", "--json").stdout.splitlines()
    assert json.loads(first) == {"from": "service", "line": "one"}


def test_what_comes_is_followed_until_ctrl_c_which_is_quiet(checkout: Checkout) -> None:
    said(checkout, "begin\n")
    following = checkout.start("logs", "--follow")
    told = checkout.path / "atlas.out"
    eventually(lambda: told.read_text() == "begin\n", "what was there")
    said(checkout, "more\n")
    eventually(lambda: told.read_text() == "begin\nmore\n", "what came")
    following.send_signal(signal.SIGINT)
    done = checkout.finish(following)
    assert (done.returncode, done.stdout, done.stderr) == (0, "begin\nmore\n", "")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ("--part", "nginx"),
            "the stack local has no part 'nginx' with a log; its parts are service, mlflow, prometheus, grafana",
        ),
        ((), "there is no service.log: `atlas up` starts the process that writes it"),
        (("--since", "yesterday"), "--since 'yesterday' is not a duration such as 10m"),
        (("--stack", "nope"), "there is no stack 'nope'"),
    ],
)
def test_mistake_is_one_clear_line(checkout: Checkout, arguments: tuple[str, ...], told: str) -> None:
    failed = checkout.atlas("logs", *arguments, code=1)
    assert told in failed.stderr
    assert failed.stderr.count("\n") == 1


def aws() -> AwsSettings:
    settings = load_settings({f"atlas:{key}": value for key, value in BASE.items()})
    assert isinstance(settings, AwsSettings)
    return settings


def test_control_plane_is_read_from_cloudwatch_back_to_a_time(moto: str) -> None:
    client = boto3.client("logs")
    client.create_log_group(logGroupName=GROUP)
    client.create_log_stream(logGroupName=GROUP, logStreamName="authenticator-1")
    now = int(time.time() * 1000)
    events = [{"timestamp": now - 7_200_000, "message": "old"}, {"timestamp": now - 1000, "message": "access denied\n"}]
    client.put_log_events(logGroupName=GROUP, logStreamName="authenticator-1", logEvents=events)
    assert _control_plane(aws(), 10, 3600) == [("authenticator-1", "access denied")]


def test_control_plane_that_said_more_than_is_shown_or_fits_a_page_is_told_by_its_last_lines(moto: str) -> None:
    client = boto3.client("logs")
    client.create_log_group(logGroupName=GROUP)
    client.create_log_stream(logGroupName=GROUP, logStreamName="audit-1")
    now = int(time.time() * 1000)
    events = [{"timestamp": now - 20_000 + number, "message": f"event {number}"} for number in range(10_050)]
    for some in (events[:6000], events[6000:]):
        client.put_log_events(logGroupName=GROUP, logStreamName="audit-1", logEvents=some)
    last = [("audit-1", f"event {number}") for number in (10_047, 10_048, 10_049)]
    assert _control_plane(aws(), 3, 3600) == last
    every = _control_plane(aws(), None, 3600)
    assert (len(every), every[-3:]) == (10_050, last)


def test_missing_log_group_is_one_clear_line(moto: str) -> None:
    with pytest.raises(AwsError, match=f"{GROUP} can't be read: .*ResourceNotFound"):
        _control_plane(aws(), 10, 3600)


def test_looks_that_overlap_tell_each_line_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.cli.logs.PAUSE", 0)
    looks = iter([["1"], ["1"], ["1", "2"], ["2", "3"]])
    lines = _asked(lambda *_: [("a", line) for line in next(looks)], 10, 60, follow=True)
    assert [next(lines) for _ in range(3)] == [("a", "1"), ("a", "2"), ("a", "3")]


def test_no_line_is_skipped_or_told_late_when_more_come_than_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.cli.logs.PAUSE", 0)
    said = ["1", "2", "3"]

    def ask(most: int | None, _: int) -> list[tuple[str, str]]:
        return [("a", line) for line in (said if most is None else said[-most:])]

    lines = _asked(ask, 1, 60, follow=True)
    assert next(lines) == ("a", "3")
    said += ["4", "5", "6"]
    assert [next(lines) for _ in range(3)] == [("a", "4"), ("a", "5"), ("a", "6")]
