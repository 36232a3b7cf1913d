"""What is compiled answers as scikit-learn does: single and averaged estimators, whatever the target's unit."""

import logging
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ml.compilation import compile_estimator, parity_unit
from ml.edge_rows import edge_rows
from ml.encoding import Encoding, NumericEncoder
from ml.encoding_fitting import Encoded
from ml.estimators import Model, fit
from ml.model_params import ModelParams
from ml.rows import Rows
from ml.runtime import compile_model
from ml.schema import Feature, Schema, Task

pytestmark = pytest.mark.slow

LOG = logging.getLogger(__name__)
TOLERANCE = 1e-5
ROWS = 1500
CLASSES: dict[Task, tuple[str, ...]] = {"binary": ("a", "b"), "multiclass": ("a", "b", "c"), "regression": ()}
AVERAGED: list[dict[str, Any]] = [
    {"kind": "hist_gradient_boosting", "max_iter": 30},
    {"kind": "linear", "weight": 0.5},
    {"kind": "random_forest", "weight": 2.0, "n_estimators": 10, "max_depth": 6},
    {"kind": "extra_trees", "n_estimators": 10, "max_depth": 6},
]


def matrix() -> NDArray[np.float32]:
    rng = np.random.default_rng(5)
    made = rng.normal(size=(ROWS, 4)).astype(np.float32)
    made[rng.random(made.shape) < 0.1] = np.nan
    return made


def target(task: Task) -> NDArray[np.float64]:
    filled = np.nan_to_num(matrix()).astype(np.float64)
    number = filled[:, 0] * 2 + filled[:, 1] + np.random.default_rng(6).normal(size=ROWS) / 3
    return {"binary": number > 0, "multiclass": np.digitize(number, [-1, 1]), "regression": number}[task].astype(float)


def fitted(task: Task, y: NDArray[np.float64], estimators: list[dict[str, Any]]) -> tuple[Model, Schema]:
    x = matrix()
    features = tuple(Feature(name=f"x{place}", type="numeric") for place in range(x.shape[1]))
    schema = Schema(target="y", task=task, classes=CLASSES[task], features=features)
    encoding = Encoding(encoders=tuple(NumericEncoder(column=feature.name) for feature in features))
    rows = Rows({f"x{place}": x[:, place] for place in range(x.shape[1])}, y, None)
    params = ModelParams.model_validate({"name": "m", "estimators": {each["kind"]: each for each in estimators}})
    return fit(Encoded(encoding, x), rows, schema, params, seed=1), schema


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_averaged_estimators_compile_to_the_weighted_average_of_their_members(task: Task) -> None:
    model, schema = fitted(task, target(task), AVERAGED)
    unit = parity_unit(target(task), schema)
    runtime, graph, parity = compile_estimator(model, schema, matrix(), unit, TOLERANCE, LOG)
    assert runtime == "onnx"
    assert parity is not None
    assert parity.rows == ROWS
    assert parity.largest_difference <= TOLERANCE
    members = zip(AVERAGED, model.estimator.estimators_, strict=True)
    average = sum(
        settings.get("weight", 1.0) / 4.5 * replace(model, estimator=member).scores(matrix(), schema)
        for settings, member in members
    )
    answers = compile_model("onnx", graph, schema.task)(matrix())
    np.testing.assert_allclose(answers, average, atol=1e-5)


@pytest.mark.parametrize("estimators", [AVERAGED[:1], AVERAGED[1:2], AVERAGED], ids=["boosting", "linear", "averaged"])
def test_a_regressions_tolerance_is_a_share_of_the_targets_spread(estimators: list[dict[str, Any]]) -> None:
    prices = 1e6 + 3e5 * target("regression")
    model, schema = fitted("regression", prices, estimators)
    runtime, graph, parity = compile_estimator(model, schema, matrix(), parity_unit(prices, schema), TOLERANCE, LOG)
    assert runtime == "onnx"
    assert parity is not None
    rows = np.concatenate([matrix(), edge_rows(model.estimator, model.encoding, matrix())])
    assert len(rows) == parity.rows + parity.edge_rows
    expected = model.scores(rows, schema)
    off = np.abs(compile_model("onnx", graph, schema.task)(rows) - expected)
    assert off.max() > TOLERANCE  # in the target's own unit it would have failed
    far = np.abs(expected - expected[:ROWS].mean())
    assert parity.largest_difference == pytest.approx((off / np.maximum(prices.std(), far)).max())


def test_a_prediction_far_from_the_others_has_float32s_digits_and_is_compiled() -> None:
    amounts = np.full(ROWS, 1.0)
    amounts[:3] = 123_456_789.0  # thirty standard deviations from the mean
    model, schema = fitted("regression", amounts, [{"kind": "extra_trees", "n_estimators": 30}])
    unit, tolerance = parity_unit(amounts, schema), 5e-7
    runtime, graph, _ = compile_estimator(model, schema, matrix(), unit, tolerance, LOG)
    off = np.abs(compile_model("onnx", graph, schema.task)(matrix()) - model.scores(matrix(), schema)).max()
    assert off / unit > tolerance
    assert runtime == "onnx"


def test_a_spread_that_float32_cannot_resolve_is_served_by_scikit_learn(caplog: pytest.LogCaptureFixture) -> None:
    readings = 1e6 + target("regression")
    model, schema = fitted("regression", readings, AVERAGED[:1])
    unit = parity_unit(readings, schema)
    runtime, pickled, parity = compile_estimator(model, schema, matrix(), unit, TOLERANCE, LOG)
    assert (runtime, parity) == ("sklearn", None)
    assert "more than model.parity_tolerance" in caplog.text
    np.testing.assert_array_equal(pickle.loads(pickled).predict(matrix()), model.scores(matrix(), schema))


def test_probabilities_and_a_target_without_spread_are_compared_as_they_are() -> None:
    _, classifies = fitted("binary", target("binary"), AVERAGED[1:2])
    _, predicts = fitted("regression", np.ones(ROWS), AVERAGED[1:2])
    assert parity_unit(target("binary"), classifies) == 1.0
    assert parity_unit(np.ones(ROWS), predicts) == 1.0
