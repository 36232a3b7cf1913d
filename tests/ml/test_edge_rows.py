"""Rows at the edges find models that the converter compiles wrongly, although they agree on all other rows."""

import logging
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from ml import compilation, edge_rows
from ml.compilation import compile_estimator
from ml.encoding import Encoding, LookupEncoder, NumericEncoder, OneHotEncoder, TextEncoder
from ml.estimators import Model
from ml.schema import Feature, Schema

LOG = logging.getLogger(__name__)
ENCODING = Encoding(
    encoders=(
        NumericEncoder(column="number"),
        OneHotEncoder(columns=("town",), categories=("Bern", "\x00missing")),
        LookupEncoder(
            kind="target", columns=("town", "shop"), outputs=("",), table={"Bern\x1fnorth": (0.25,)}, default=(0.5,)
        ),
        TextEncoder(column="note", vocabulary={"late": 0}, idf=(1.5,)),
    )
)
SCHEMA = Schema(target="y", task="binary", classes=("a", "b"), features=(Feature(name="number", type="numeric"),))
ROWS = np.array([[1, 1, 0, 0.25, 1], [7, 1, 0, 0.25, 0], [3, 0, 1, 0.25, 1]], dtype=np.float32)


def split_at(threshold: float, **more: object) -> Any:
    """What `edge_rows` reads of a fitted ensemble with a single split."""
    kinds = [("feature_idx", int), ("num_threshold", float), ("is_leaf", int)]
    nodes = np.array([(0, threshold, 0), (0, 0.0, 1)], dtype=kinds)
    tree = type("Tree", (), {"nodes": nodes})
    return type("Ensemble", (), {"_predictors": [[tree]], **more})()


def changed(estimator: Any) -> list[tuple[float, ...]]:
    """The edge rows' columns that differ from the rows that they are made of."""
    made = edge_rows.edge_rows(estimator, ENCODING, ROWS)
    return [tuple(row) for row in made.tolist()]


def test_each_encoder_gets_a_missing_value_and_an_unseen_category() -> None:
    made = changed(split_at(2.0))
    assert str(made[0]) == "(nan, 1.0, 0.0, 0.25, 1.0)"
    assert made[1:4] == [(7, 0, 1, 0.25, 0), (3, 0, 1, 0.5, 1), (1, 1, 0, 0.25, 0)]  # missing town, pair, text
    assert made[4:6] == [(7, 0, 0, 0.25, 0), (3, 0, 1, 0.5, 1)]  # unseen town, pair
    assert str(made[6]) == "(nan, 0.0, 1.0, 0.5, 0.0)"


def test_each_column_gets_its_extremes_and_for_trees_numbers_beyond_them() -> None:
    made = np.array(changed(split_at(2.0)))
    assert {1, 7, -5, 13} <= set(made[:, 0])
    linear = np.array(changed(split_at(2.0, coef_=None)))
    assert not {-5, 13} & set(linear[:, 0])


def test_each_threshold_gets_itself_and_its_neighbours_in_float32() -> None:
    threshold = np.float32(2.7)
    below, above = np.nextafter(threshold, np.array([0, 9], dtype=np.float32))
    made = {np.float32(row[0]) for row in changed(split_at(float(threshold)))}
    assert {below, threshold, above} <= made


def test_of_very_many_thresholds_evenly_spread_ones_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge_rows, "MOST", 3)
    nodes = np.zeros(101, dtype=[("feature_idx", int), ("num_threshold", float), ("is_leaf", int)])
    nodes["num_threshold"] = np.arange(101) + 0.5
    estimator = split_at(0)
    estimator._predictors[0][0].nodes = nodes
    made = [row[0] for row in changed(estimator)]
    assert made[-9::3] == [0.5, 50.5, 100.5]


def fitted() -> tuple[Any, NDArray[np.float32]]:
    """Trees whose thresholds aren't in float32, and rows that are all far from the thresholds."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    first = np.float32(0.1)
    second = np.nextafter(first, np.float32(1))
    near = np.resize(np.array([first, second]), 200).astype(np.float32)[:, None]
    matrix = np.repeat(near, 5, axis=1)
    with threadpool_limits(1):
        model = HistGradientBoostingClassifier(max_iter=3, min_samples_leaf=5, random_state=0)
        model.fit(matrix, (matrix[:, 0] == second).astype(int))
    return model, np.full((10, 5), 0.5, dtype=np.float32)


@pytest.mark.slow
def test_a_model_that_differs_only_at_the_edges_is_served_by_scikit_learn(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    estimator, far = fitted()
    model = Model(ENCODING, estimator)
    # Without this step the converter rounds thresholds to the wrong side of a number.
    monkeypatch.setattr(compilation, "round_thresholds_down", lambda _: None)
    runtime, _, parity = compile_estimator(model, SCHEMA, far, 1.0, 1e-5, LOG)
    assert (runtime, parity) == ("sklearn", None)
    assert "the compiled model differs by" in caplog.text
    monkeypatch.undo()
    runtime, _, parity = compile_estimator(model, SCHEMA, far, 1.0, 1e-5, LOG)
    assert runtime == "onnx"
    assert parity is not None
    assert parity.edge_rows > 10
