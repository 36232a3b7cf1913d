"""A compiled model answers as scikit-learn on rows at the edges: thresholds, their neighbours, missing, extremes."""

import logging
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from ml.compilation import compile_estimator, round_thresholds_down
from ml.encoding import Encoding, NumericEncoder
from ml.estimators import Model
from ml.runtime import compile_model
from ml.schema import Feature, Schema, Task

pytestmark = pytest.mark.slow

LOG = logging.getLogger(__name__)
ENCODING = Encoding(encoders=(NumericEncoder(column="a"), NumericEncoder(column="b")))
RNG = np.random.default_rng(8)


def estimator(kind: str, task: Task) -> Any:
    from sklearn import ensemble
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline

    suffix = "Regressor" if task == "regression" else "Classifier"
    boosting = getattr(ensemble, f"HistGradientBoosting{suffix}")(max_iter=10, min_samples_leaf=2, random_state=0)
    forest = getattr(ensemble, f"ExtraTrees{suffix}")(n_estimators=8, random_state=0)
    return {
        "boosting": boosting,
        "boosting in a pipeline": make_pipeline(SimpleImputer(keep_empty_features=True), boosting),
        "forest": make_pipeline(SimpleImputer(keep_empty_features=True), forest),
    }[kind]


def schema(task: Task) -> Schema:
    classes = {"binary": ("x", "y"), "multiclass": ("x", "y", "z"), "regression": ()}[task]
    features = (Feature(name="a", type="numeric"), Feature(name="b", type="numeric"))
    return Schema(target="t", task=task, classes=classes, features=features)


def neighbours(rows: int) -> NDArray[np.float32]:
    """Numbers of which every two neighbours are neighbours in float32, too."""
    large = 20_000_000 + 2 * RNG.integers(0, 40, rows)
    small = np.float32(0.1).view(np.int32) + RNG.integers(0, 40, rows).astype(np.int32)
    made = np.stack([large.astype(np.float32), small.view(np.float32)], axis=1)
    made[RNG.random(made.shape) < 0.05] = np.nan
    return made


def edges(fitted: Any, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows at and beside every threshold, with missing and extreme values."""
    largest = float(np.finfo(np.float32).max)
    values: list[float] = [np.nan, 0.0, -0.0, largest, -largest, 1e-38]
    for trees in getattr(fitted, "_predictors", ()):
        for tree in trees:
            near = tree.nodes["num_threshold"].astype(np.float32)
            values += [*near, *np.nextafter(near, np.float32(np.inf)), *np.nextafter(near, np.float32(-np.inf))]
    found = np.unique(np.array([value for value in values if not np.isinf(value)], dtype=np.float32))
    return np.concatenate([matrix, np.stack([RNG.permutation(found), RNG.permutation(found)], axis=1)])


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("kind", ["boosting", "boosting in a pipeline", "forest"])
def test_neighbours_of_float32_go_to_their_own_side_of_a_threshold(kind: str, task: Task) -> None:
    matrix = neighbours(600)
    number = np.nan_to_num(matrix[:, 0] - 20_000_000) % 6 + np.nan_to_num(matrix[:, 1]) * 1e-3
    target = {"binary": number > 1, "multiclass": np.digitize(number, [1, 3]), "regression": number}[task]
    with threadpool_limits(1):  # threads that wait for each other would take longer
        fitted = estimator(kind, task).fit(matrix, target if task == "regression" else target.astype(int))
    model = Model(ENCODING, fitted)
    rows = edges(fitted if kind == "boosting" else fitted.steps[-1][1], matrix)
    runtime, graph, parity = compile_estimator(model, schema(task), rows, 1.0, 1e-5, LOG)
    assert runtime == "onnx"
    assert parity is not None
    assert parity.largest_difference < 1e-5
    alone = compile_model("onnx", graph, task)(rows[-5:])
    np.testing.assert_allclose(alone, model.scores(rows[-5:], schema(task)), atol=1e-5)


def test_rounding_changes_thresholds_and_no_prediction() -> None:
    matrix = neighbours(300)
    with threadpool_limits(1):
        fitted = estimator("boosting", "binary").fit(matrix, RNG.integers(0, 2, 300))
    rows = edges(fitted, matrix)
    exact, before = [tree.nodes["num_threshold"].copy() for (tree,) in fitted._predictors], fitted.predict_proba(rows)
    round_thresholds_down(fitted)
    np.testing.assert_array_equal(fitted.predict_proba(rows), before)
    rounded = [tree.nodes["num_threshold"] for (tree,) in fitted._predictors]
    for new, old in zip(rounded, exact, strict=True):
        assert (new <= old).all()
        assert (new == new.astype(np.float32)).all()
    assert any((new < old).any() for new, old in zip(rounded, exact, strict=True))
