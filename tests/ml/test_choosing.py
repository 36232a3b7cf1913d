"""Without `model.estimators` Atlas chooses by folds that imitate the split; what it chose and tried is in the card."""

import logging
from typing import Any

import numpy as np
import pytest

from ml import choosing
from ml.choosing import choose, standardised
from ml.decision import TargetTransform
from ml.encoding_fitting import fit_encoding
from ml.estimator_kinds import check_parameters
from ml.estimators import fit
from ml.judging import Judged, judge
from ml.model_params import EstimatorParams
from ml.params import Params, ParamsError
from ml.portfolio import Candidate, Size, candidates
from ml.rows import Rows
from ml.schema import Columns, Feature, Schema, Task

LIGHT = [
    Candidate("trees", EstimatorParams(kind="hist_gradient_boosting", max_iter=40, max_leaf_nodes=4), 0.1),
    Candidate("line", EstimatorParams(kind="linear", without=(":later_half",)), 0.1),
    Candidate("bent", EstimatorParams(kind="linear"), 0.1),
    Candidate("extra", EstimatorParams(kind="extra_trees", n_estimators=10, min_samples_leaf=3), 0.1),
]
LOG = logging.getLogger("test")
DAY = 86400.0
CLASSES: dict[Task, tuple[str, ...]] = {"binary": ("a", "b"), "multiclass": ("a", "b", "c"), "regression": ()}


@pytest.fixture(autouse=True)
def few_candidates_and_no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ml.choosing.candidates", lambda _: LIGHT)
    monkeypatch.setattr("ml.choosing.monotonic", lambda: 0.0)


def params(method: str = "random", budget: str = "60s", **model: Any) -> Params:
    return Params.model_validate(
        {
            "seed": 1,
            "data": {"source": "table", "uri": "t.csv", "target": "y", "task": "binary", "time": "t"},
            "split": {"method": method},
            "model": {"name": "m", "budget": budget} | model,
            "gate": {"metric": "log_loss"},
            "registry": {"experiment": "e", "model": "m"},
        }
    )


def schema(task: Task, columns: Columns) -> Schema:
    kinds = {name: "datetime" if name == "t" else "numeric" for name in columns}
    features = tuple(Feature.model_validate({"name": name, "type": kind}) for name, kind in kinds.items())
    return Schema(target="y", task=task, classes=CLASSES[task], features=features)


def numbers(rows: int, seed: int = 1) -> tuple[Columns, Any]:
    x = np.random.default_rng(seed).normal(size=(rows, 3))
    return {f"x{place}": x[:, place] for place in range(3)}, x


def test_the_choice_is_an_average_whose_figures_are_kept_and_which_params_could_name() -> None:
    columns, x = numbers(150)
    rows = Rows(columns, (x[:, 0] + x[:, 1] > 0).astype(float), None)
    choice = choose(rows, schema("binary", columns), params(), LOG)
    facts = choice.facts
    assert (facts.rows, facts.folds, facts.planned, len(facts.tried)) == (150, 10, 4, 4)
    assert sum(one.weight for one in facts.tried) == pytest.approx(1, abs=1e-3)
    assert {one.name for one in facts.tried if one.weight} == choice.estimators.keys()
    assert facts.loss is not None
    assert facts.loss <= min(one.loss for one in facts.tried if one.loss is not None)
    assert {"line", "bent"} & choice.estimators.keys()  # the truth is linear
    for estimator in choice.estimators.values():
        assert not check_parameters(estimator.kind, "binary", estimator.settings)
    trees = next(one for one in facts.tried if one.kind == "hist_gradient_boosting")
    assert 0 < int(str(trees.settings["max_iter"])) <= 40
    again = choose(rows, schema("binary", columns), params(), LOG)
    assert again.facts == facts


def test_calibration_gets_each_held_out_row_once_though_few_rows_are_dealt_twice() -> None:
    columns, x = numbers(150)
    target = x[:, 0] + x[:, 1]
    choice = choose(Rows(columns, target, None), schema("regression", columns), params(), LOG)
    assert choice.facts.folds == 10
    assert sorted(np.concatenate([held for _, held in choice.held_out])) == sorted(target)


def test_a_trend_is_followed_beyond_the_training_rows() -> None:
    seconds = np.arange(400, dtype=np.float64) * 7 * DAY
    years = seconds / (365.25 * DAY)
    columns: Columns = {"t": seconds}
    of_rows = schema("regression", columns)
    target = 300 + 1.5 * years + np.sin(2 * np.pi * years)
    past = np.arange(300)
    rows = Rows({"t": seconds[past]}, target[past], seconds[past])
    settings = params("time")
    choice = choose(rows, of_rows, settings, LOG)
    assert {estimator.kind for estimator in choice.estimators.values()} == {"linear"}
    encoded = fit_encoding(rows, of_rows, settings)
    chosen = settings.model.model_copy(update={"estimators": choice.estimators})
    model = fit(encoded, rows, of_rows, chosen, 1, choice.target)
    future = choice.target.invert(model.scores(encoded.encoding.transform({"t": seconds[300:]}), of_rows))
    assert np.abs(future - target[300:]).max() < 0.5


def test_a_skewed_positive_target_is_learnt_as_its_logarithm_unless_params_say_otherwise() -> None:
    columns, x = numbers(200)
    rows = Rows(columns, np.exp(2 * x[:, 0] + x[:, 1]), None)
    of_rows = schema("regression", columns)
    assert choose(rows, of_rows, params(), LOG).target.kind == "log"
    assert choose(rows, of_rows, params(target="identity"), LOG).target.kind == "identity"


@pytest.mark.parametrize("kind", ["identity", "log"])
def test_a_transformed_target_comes_back_with_all_its_digits(kind: str) -> None:
    numbers = 1e9 + np.linspace(-50, 50, 11)
    transform = standardised(numbers, schema("regression", {"x": numbers}), kind)
    learnt = transform.apply(numbers)
    np.testing.assert_allclose([learnt.mean(), learnt.std()], [0, 1], atol=1e-6)
    # In float32 alone, neighbouring numbers of this size are 64 apart.
    np.testing.assert_allclose(transform.invert(learnt.astype(np.float32).astype(float)), numbers, rtol=0, atol=1e-3)


def test_the_clock_stops_the_search_and_the_card_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ticks = iter(range(0, 10_000, 1000))
    monkeypatch.setattr("ml.choosing.monotonic", lambda: next(ticks))
    columns, x = numbers(60)
    rows = Rows(columns, x[:, 0], None)
    choice = choose(rows, schema("regression", columns), params("random"), LOG)
    assert choice.facts.stopped_by_clock
    # Whatever the clock says, there is one that can follow a trend, and one that can follow curves.
    assert [each.kind for each in choice.facts.tried] == ["linear", "hist_gradient_boosting"]
    assert len(choice.facts.tried) < choice.facts.planned
    assert "is spent after 2 of 4 candidates" in caplog.text


def test_too_few_rows_to_compare_give_a_linear_estimator(caplog: pytest.LogCaptureFixture) -> None:
    columns, _ = numbers(2)
    choice = choose(Rows(columns, np.array([0.0, 1.0]), None), schema("binary", columns), params(), LOG)
    assert [estimator.kind for estimator in choice.estimators.values()] == ["linear"]
    assert "too few rows" in caplog.text


def test_a_larger_budget_plans_more_and_only_the_size_decides_which() -> None:
    size = Size("binary", rows=5000, columns=20, classes=1, timed=False)
    listed = candidates(size)
    assert candidates(size) == listed
    assert len({one.name for one in listed}) == len(listed)
    plans = [choosing._plan(listed, 5, budget) for budget in (1.0, 30.0, 1000.0)]
    assert [len(plan) for plan in plans] == sorted(len(plan) for plan in plans)
    assert len(plans[0]) >= 3
    assert plans[-1] == listed


def test_forests_of_many_rows_stay_small() -> None:
    for rows in (300, 20_000, 1_000_000):
        for one in candidates(Size("regression", rows, 10, 1, timed=False)):
            if one.estimator.kind in ("extra_trees", "random_forest"):
                leaves = one.estimator.settings.get("max_leaf_nodes", rows / one.estimator.settings["min_samples_leaf"])
                assert leaves * one.estimator.settings["n_estimators"] <= 200_000


def test_classes_that_can_be_told_apart_need_few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    trees = Candidate(
        "trees",
        EstimatorParams.model_validate({"kind": "hist_gradient_boosting", "max_iter": 800, "learning_rate": 0.2}),
        0.1,
    )
    monkeypatch.setattr("ml.choosing.candidates", lambda _: [trees])
    columns, x = numbers(120)
    choice = choose(Rows(columns, (x[:, 0] > 0).astype(float), None), schema("binary", columns), params(), LOG)
    assert choice.estimators["trees"].settings["max_iter"] < 200


def test_a_candidate_that_would_take_longer_than_the_budget_is_not_planned() -> None:
    listed = candidates(Size("multiclass", rows=3000, columns=120, classes=60, timed=False))
    kinds = {one.estimator.kind for one in choosing._plan(listed, 5, 60.0)}
    assert "hist_gradient_boosting" not in kinds
    assert "linear" in kinds
    assert "extra_trees" in kinds
    assert len(choosing._plan(listed, 5, 0.001)) == 1


def test_one_that_does_not_fit_makes_room_for_a_later_one_that_takes_less_time() -> None:
    settings = EstimatorParams(kind="linear")
    seconds = {"first": 1.0, "second": 1.0, "third": 1.0, "slow": 9.0, "quick": 1.0}
    listed = [Candidate(name, settings, each) for name, each in seconds.items()]
    assert [one.name for one in choosing._plan(listed, 1, 5.0)] == ["first", "second", "third", "quick"]
    # The choice of the target takes its time, too.
    assert [one.name for one in choosing._plan(listed, 1, 5.0, undecided=True)] == ["first", "second", "third"]


def test_a_candidate_is_judged_once_for_each_form_of_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, str]] = []

    def counted(candidate: Candidate, folds: Any, target: TargetTransform, *rest: Any) -> Judged:
        calls.append((candidate.name, target.kind))
        return judge(candidate, folds, target, *rest)

    monkeypatch.setattr("ml.choosing.judge", counted)
    columns, x = numbers(200)
    choice = choose(Rows(columns, np.exp(2 * x[:, 0] + x[:, 1]), None), schema("regression", columns), params(), LOG)
    assert choice.target.kind == "log"
    assert len(calls) == len(set(calls)) == 2 + len(LIGHT)
    assert len(choice.facts.tried) == len(LIGHT)


def test_a_later_number_without_a_logarithm_is_learnt_as_a_small_one() -> None:
    transform = TargetTransform(kind="log")
    assert np.isfinite(transform.apply(np.array([-1.0, -50.0, 3.0]))).all()


def test_a_target_too_large_to_square_is_refused_in_one_line() -> None:
    numbers = np.array([1.0, 2.0, 1e200])
    with pytest.raises(ParamsError, match=r"'y' has 1e\+200, too large to learn"):
        standardised(numbers, schema("regression", {"x": numbers}))
