"""After a refusal by the gate, the last lines of `up` say what was refused, why, and what is served."""

import json
from pathlib import Path

import pytest

from infra.bundle import refusal

OLD, NEW = "a" * 64, "b" * 64


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A checkout whose candidate NEW was refused; models/bundle is OLD."""
    for folder, version in (("bundle", OLD), ("candidate", NEW)):
        path = tmp_path / "models" / folder
        path.mkdir(parents=True)
        (path / "bundle.json").write_text(json.dumps({"version": version}))
    write(tmp_path, decision="challenger", candidate=NEW, reasons=["brier: 0.3 is not surely below 0.2", "x=1: worse"])
    return tmp_path


def write(repository: Path, **report: object) -> None:
    (repository / "reports").mkdir(exist_ok=True)
    (repository / "reports/gate.json").write_text(json.dumps(report))


def test_refused_candidate_is_said_with_every_reason_and_the_way_to_serve_it(repository: Path) -> None:
    assert refusal(repository, repository / "models/bundle") == [
        "The gate refused the new model bbbbbbb, so aaaaaaa is still served:",
        "  brier: 0.3 is not surely below 0.2",
        "  x=1: worse",
        'To serve it all the same, set `accept: "bbbbbbb"` under `gate` in params.yaml, then `make up`.',
    ]


@pytest.mark.parametrize("decision", ["champion", "same"])
def test_nothing_is_said_of_a_candidate_that_passed(repository: Path, decision: str) -> None:
    write(repository, decision=decision, candidate=NEW, reasons=[])
    assert refusal(repository, repository / "models/bundle") == []


def test_nothing_is_said_of_a_report_about_another_candidate(repository: Path) -> None:
    write(repository, decision="challenger", candidate="c" * 64, reasons=["old"])
    assert refusal(repository, repository / "models/bundle") == []


@pytest.mark.parametrize("content", [None, "{", "[]", "{}"])
def test_without_a_readable_report_nothing_is_said(repository: Path, content: str | None) -> None:
    report = repository / "reports/gate.json"
    report.unlink() if content is None else report.write_text(content)
    assert refusal(repository, repository / "models/bundle") == []
