"""The engine's events as they are decoded: once, for lines while it runs and for documents."""

from typing import Any

import pytest
from pulumi.automation.events import EngineEvent

from infra.deployment.preview import BUILD, Foreseen
from infra.engine.events import Events, Step
from infra.errors import CredentialsError, FailedError

BUCKET = "urn:pulumi:dev::atlas::atlas:aws:Bucket$aws:s3/bucket:Bucket::atlas-dev-data"


def event(**content: Any) -> EngineEvent:
    return EngineEvent.from_json({"sequence": 1, "timestamp": 1, **content})


def begun(operation: str, kind: str = "aws:s3/bucket:Bucket", **metadata: Any) -> EngineEvent:
    step = {"op": operation, "urn": BUCKET, "type": kind, "provider": "", **metadata}
    return event(resourcePreEvent={"metadata": step})


def done(operation: str, kind: str = "aws:s3/bucket:Bucket") -> EngineEvent:
    return event(resOutputsEvent={"metadata": {"op": operation, "urn": BUCKET, "type": kind, "provider": ""}})


def said(severity: str, message: str) -> EngineEvent:
    return event(diagnosticEvent={"severity": severity, "message": message, "color": "raw"})


def judged(level: str, message: str) -> EngineEvent:
    return event(policyEvent={"policyName": "bucket-is-private", "enforcementLevel": level, "message": message})


def test_change_is_a_line_when_it_begins_a_step_and_a_change_when_it_is_done() -> None:
    lines: list[str] = []
    events = Events(lines.append)
    events(begun("update", detailedDiff={"tags.b": {"diffKind": "add"}, "tags.a": {"diffKind": "add"}}, diffs=["tags"]))
    assert events.changes == {}
    events(done("update"))
    assert lines == ["  changing atlas-dev-data"]
    assert events.steps == [Step("atlas-dev-data", "aws:s3/bucket:Bucket", "update", ["tags.a", "tags.b"])]
    assert events.changes == {"atlas-dev-data": "update"}


def test_replacement_is_one_step() -> None:
    lines: list[str] = []
    events = Events(lines.append)
    for operation in ("create-replacement", "replace", "delete-replaced"):
        events(begun(operation, diffs=["bucket"]))
    assert [(step.operation, step.paths) for step in events.steps] == [("replace", ["bucket"])]
    assert lines == ["  replacing atlas-dev-data", "  replacing atlas-dev-data", "  removing atlas-dev-data"]


@pytest.mark.parametrize(
    ("operation", "kind"),
    [
        ("same", "aws:s3/bucket:Bucket"),
        ("refresh", "aws:s3/bucket:Bucket"),
        ("create", "pulumi:pulumi:Stack"),
        ("create", "pulumi:providers:aws"),
    ],
)
def test_what_changes_nothing_and_the_engines_own_are_not_told(operation: str, kind: str) -> None:
    lines: list[str] = []
    events = Events(lines.append)
    events(begun(operation, kind))
    events(done(operation, kind))
    assert (lines, events.steps, events.changes) == ([], [], {})


def test_error_is_told_once_without_colours_and_without_the_engines_summary() -> None:
    events = Events()
    for message in ("<{%fg 1%}>no such zone<{%reset%}>\n", "no such zone", "<{%reset%}>update failed<{%reset%}>"):
        events(said("error", message))
    events(said("error", "the node group's update failed"))
    events(said("warning", "using pulumi-resource-aws from $PATH"))
    events(said("warning", "deprecated"))
    events(said("info", "hello"))
    assert events.errors == ["no such zone", "the node group's update failed"]
    assert events.warnings == ["deprecated"]
    with pytest.raises(FailedError) as raised:
        events.raise_errors()
    assert raised.value.lines == events.errors


def test_breach_of_a_mandatory_policy_is_an_error_and_of_another_a_line() -> None:
    lines: list[str] = []
    events = Events(lines.append)
    events(judged("mandatory", "<{%fg 3%}>Buckets are private\nit is public,\n  to all<{%reset%}>"))
    events(judged("advisory", "Buckets are private\nit is shared"))
    assert events.errors == ["policy bucket-is-private: it is public, to all"]
    assert events.policies == ["bucket-is-private: it is shared"]
    assert lines == ["  policy bucket-is-private: it is shared"]


def test_credentials_that_ended_are_told_as_such_and_no_error_as_nothing() -> None:
    events = Events()
    events.raise_errors()
    events(said("error", "api error ExpiredToken: the token has expired"))
    with pytest.raises(CredentialsError):
        events.raise_errors()


def test_document_leaves_out_the_kinds_that_it_is_told_to() -> None:
    foreseen = Foreseen("dev", without=BUILD)
    foreseen.events(begun("delete", "docker-build:index:Image"))
    foreseen.lines.append("<{%bold%}>- an image<{%reset%}>")
    document = foreseen.document()
    assert (document["changes"], document["steps"], document["text"]) == ({}, [], "- an image")
