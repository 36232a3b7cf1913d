"""The comment, rendered from the output of real commands.

model.json is of `atlas ci repro` (DVC's metrics and plots diff, of which every twelfth point is kept), preview.json of
`atlas preview --save`, by the real engine on recording providers.
"""

import json
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from infra.ci import report
from infra.ci.pipeline import Reproduction
from infra.deployment.preview import Foreseen

HERE = Path(__file__).parent
LINK = "https://github.com/o/r/actions/runs/1"


@pytest.fixture
def model() -> report.Model:
    return report.Model.of(json.loads((HERE / "model.json").read_text()))


@pytest.fixture
def foreseen() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((HERE / "preview.json").read_text())
    return found


def test_comment_is_as_the_golden_file_has_it(model: report.Model, foreseen: dict[str, Any]) -> None:
    """`ATLAS_GOLDEN=write pytest tests/infra/ci` writes the golden file."""
    text = report.render(model, foreseen, LINK)
    golden = HERE / "comment.md"
    if os.environ.get("ATLAS_GOLDEN") == "write":
        golden.write_text(text)
    assert text == golden.read_text()


def test_what_was_recorded_is_of_the_shape_that_the_commands_write(
    model: report.Model, foreseen: dict[str, Any]
) -> None:
    assert foreseen.keys() == Foreseen("dev").document().keys()
    assert json.loads((HERE / "model.json").read_text()).keys() == {field.name for field in fields(report.Model)}
    assert report.Model.of(json.loads(json.dumps(model.document()))) == model


def test_interval_stands_beside_its_figure(model: report.Model) -> None:
    text = report.render(model, None)
    [row] = [line for line in text.splitlines() if "<code>test.brier</code>" in line]
    assert row == "| <code>test.brier</code> | 0.09782 (0.07938 to 0.12034) | 0.10726 (0.08662 to 0.13173) | +0.00944 |"
    assert "brier.low" not in text


def test_same_curve_is_not_drawn_and_another_is_of_both_revisions(model: report.Model) -> None:
    drawn = [line.strip() for line in report.render(model, None).splitlines() if line.strip().startswith("title ")]
    assert drawn == ['title "calibration"', 'title "precision recall"', 'title "roc"']
    same = {
        name: [{**plot, "content": _alike(plot["content"])} for plot in plots]
        for name, plots in model.plots["data"].items()
    }
    assert "mermaid" not in report.render(report.Model(model.base, model.figures, {"data": same}, model.rerun), None)


def _alike(content: dict[str, Any]) -> dict[str, Any]:
    here = [value for value in content["data"]["values"] if value["rev"] == "workspace"]
    return {**content, "data": {"values": here + [{**value, "rev": "before"} for value in here]}}


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"errors": ["policy s3-private: open | to *all*"]}, "- policy s3-private: open &#124; to &#42;all&#42;"),
        ({"cluster": "this caller may not change anything"}, "> **The Kubernetes part is a client-side diff**"),
        ({"unseen": ["secrets' values"]}, "Not checked: secrets' values."),
        (
            {"byHand": ["changed by hand, `up` sets it back: flask-app-deployment (spec.replicas)"]},
            "flask-app-deployment (spec.replicas)",
        ),
        ({"steps": [], "changes": {}}, "Nothing would change."),
        ({"warnings": ["@octocat <script>"]}, "- &#64;octocat &lt;script&gt;"),
    ],
)
def test_comment_says(foreseen: dict[str, Any], changed: dict[str, Any], told: str) -> None:
    assert told in report.render(None, {**foreseen, **changed})


def test_what_did_not_run_is_said() -> None:
    text = report.render(None, {})
    assert "The pipeline did not run." in text
    assert "The preview did not run." in text
    assert "**The pipeline failed:** dvc.lock is of another commit" in report.render(
        report.Model("abc", error="dvc.lock is of another commit"), None
    )
    assert "no previous commit" in report.render(report.Model(None, rerun=Reproduction([], {})), None)


def test_rerun_that_differs_by_arithmetic_is_reported() -> None:
    rerun = Reproduction(["models/trained"], {"test.brier": (0.1, 0.1001)})
    text = report.render(report.Model("abc", rerun=rerun), None)
    assert (
        "A rerun on this machine differs from the committed `dvc.lock` only by floating-point arithmetic: "
        "<code>models/trained</code>; 1 fig" in text
    )


def test_text_of_others_can_not_end_its_block_and_a_long_one_is_cut(foreseen: dict[str, Any]) -> None:
    text = report.render(None, {**foreseen, "text": "```\n# A heading\n" + "x" * 100_000})
    assert "````diff\n```\n# A heading" in text
    assert "characters more" in text
    assert len(text) < 65_536


def test_many_resources_are_counted(foreseen: dict[str, Any]) -> None:
    step = foreseen["steps"][0]
    text = report.render(None, {**foreseen, "steps": [{**step, "name": f"r{number}"} for number in range(200)]})
    assert f"And {200 - report.ROWS} more." in text
