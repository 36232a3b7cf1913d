"""A row's scores are bitwise the same alone and in any batch, for every kind of model and for both runtimes."""

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ml.compilation import to_onnx
from ml.decision import (
    Calibration,
    Decision,
    IsotonicCalibration,
    NoCalibration,
    SigmoidCalibration,
    TemperatureCalibration,
    decide,
)
from ml.encoding import Encoding, NumericEncoder
from ml.encoding_fitting import Encoded
from ml.estimators import Model, fit
from ml.model_params import EstimatorParams, ModelParams
from ml.rows import Rows
from ml.runtime import BLOCK, Runtime, Scores, compile_model, operators
from ml.schema import Columns, Feature, Schema, Task

pytestmark = pytest.mark.slow

ROWS, WIDTH = 600, 30
CLASSES: dict[Task, tuple[str, ...]] = {
    "binary": ("no", "yes"),
    "multiclass": tuple("abcdefghij"),
    "regression": (),
}
BOOSTING = EstimatorParams(kind="hist_gradient_boosting", max_iter=90, max_leaf_nodes=6)
FOREST = EstimatorParams(kind="random_forest", n_estimators=8, max_depth=5, weight=0.3)
EXTRA = EstimatorParams(kind="extra_trees", n_estimators=9, max_depth=5)
LINEAR = EstimatorParams(kind="linear", weight=1.7)
ESTIMATORS = {
    "linear": {"line": LINEAR},
    "boosting": {"trees": BOOSTING},
    "forest": {"forest": FOREST},
    "extra trees": {"extra": EXTRA},
    "several averaged": {"line": LINEAR, "trees": BOOSTING, "forest": FOREST},
}
CALIBRATIONS: tuple[Calibration, ...] = (
    NoCalibration(),
    SigmoidCalibration(slope=1.3, intercept=-0.2),
    IsotonicCalibration(x=(0.0, 0.3, 0.5, 1.0), y=(0.05, 0.2, 0.7, 0.99)),
    TemperatureCalibration(temperature=1.7),
)


@pytest.fixture(scope="module")
def matrix() -> NDArray[np.float32]:
    """Columns with very different magnitudes, so that the order of additions matters; some values are missing."""
    generator = np.random.default_rng(5)
    values = generator.normal(size=(ROWS, WIDTH)) * 10 ** generator.uniform(-3, 3, WIDTH) + 10 ** generator.uniform(
        -2, 4, WIDTH
    )
    values[generator.random(values.shape) < 0.02] = np.nan
    return values.astype(np.float32)


@pytest.fixture(scope="module")
def schemas() -> dict[Task, Schema]:
    features = tuple(Feature(name=f"x{place}", type="numeric") for place in range(WIDTH))
    return {task: Schema(target="y", task=task, classes=labels, features=features) for task, labels in CLASSES.items()}


@pytest.fixture(scope="module", params=[(task, name) for task in CLASSES for name in ESTIMATORS], ids=" ".join)
def fitted(
    request: pytest.FixtureRequest, matrix: NDArray[np.float32], schemas: dict[Task, Schema]
) -> tuple[Schema, Model]:
    """A model for every task and kind, fitted in the same way as in the pipeline."""
    task, name = request.param
    known = np.nan_to_num(matrix.astype(np.float64))
    spread = known.std(axis=0)
    signal = ((known - known.mean(axis=0)) / np.where(spread > 0, spread, 1)) @ np.random.default_rng(2).normal(
        size=WIDTH
    )
    target: dict[Task, NDArray[Any]] = {
        "binary": signal > 0,
        "multiclass": np.digitize(signal, np.quantile(signal, np.linspace(0.1, 0.9, 9))),
        "regression": signal * 100,
    }
    encoding = Encoding(encoders=tuple(NumericEncoder(column=f"x{place}") for place in range(WIDTH)))
    columns: Columns = {f"x{place}": matrix[:, place].astype(np.float64) for place in range(WIDTH)}
    params = ModelParams(name="m", estimators=ESTIMATORS[name])
    rows = Rows(columns, target[task].astype(np.float64), None)
    return schemas[task], fit(Encoded(encoding, matrix), rows, schemas[task], params, seed=3)


@pytest.fixture(scope="module", params=["onnx", "sklearn"])
def served(request: pytest.FixtureRequest, fitted: tuple[Schema, Model]) -> tuple[Schema, Any]:
    """The model, run by the runtime with this name."""
    schema, model = fitted
    runtime: Runtime = request.param
    file = to_onnx(model, schema, WIDTH) if runtime == "onnx" else pickle.dumps(model.estimator)
    return schema, compile_model(runtime, file, schema.task)


def bits(scores: Scores) -> list[bytes]:
    return [row.tobytes() for row in scores.reshape(len(scores), -1)]


@pytest.fixture(scope="module")
def alone(served: tuple[Schema, Any], matrix: NDArray[np.float32]) -> Scores:
    """The scores of the first rows, computed row by row."""
    _, run = served
    return np.concatenate([run(matrix[row : row + 1]) for row in range(2 * BLOCK + 2)])


@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@example(chosen=list(range(2 * BLOCK + 2)))
@example(chosen=[5] * (BLOCK + 1))
@given(chosen=st.lists(st.integers(0, 2 * BLOCK + 1), min_size=1, max_size=BLOCK + 20))
def test_a_row_has_the_same_scores_alone_and_in_any_batch(
    served: tuple[Schema, Any], alone: Scores, matrix: NDArray[np.float32], chosen: list[int]
) -> None:
    schema, run = served
    together = run(matrix[chosen])
    assert bits(together) == bits(alone[chosen])
    if schema.task == "regression":
        return
    for calibration in CALIBRATIONS if schema.task == "binary" else (CALIBRATIONS[0], CALIBRATIONS[-1]):
        calibrated = calibration.apply(together)
        apart = np.concatenate([calibration.apply(alone[row : row + 1]) for row in chosen])
        assert bits(calibrated) == bits(apart)


@pytest.mark.parametrize("rows", [1000, 5000])
def test_a_large_batch_changes_no_bit(
    request: pytest.FixtureRequest,
    served: tuple[Schema, Any],
    alone: Scores,
    matrix: NDArray[np.float32],
    rows: int,
) -> None:
    _, run = served
    if "sklearn" in request.node.name and "several averaged" in request.node.name:
        rows //= 20  # milliseconds a row
    chosen = np.arange(rows) % len(alone)
    assert bits(run(matrix[chosen])) == bits(alone[chosen])


def test_a_threshold_that_equals_a_rows_probability_flips_in_no_batch(
    served: tuple[Schema, Any], alone: Scores, matrix: NDArray[np.float32]
) -> None:
    schema, run = served
    if schema.task != "binary":  # no threshold: the label or the number itself
        apart = np.concatenate([decide(schema, Decision(), alone[row : row + 1]) for row in range(len(alone))])
        np.testing.assert_array_equal(decide(schema, Decision(), run(matrix[: len(alone)])), apart)
        return
    for calibration in CALIBRATIONS:
        probability = np.concatenate([calibration.apply(alone[row : row + 1])[:, 1] for row in range(len(alone))])
        together = calibration.apply(run(matrix[: len(alone)]))
        for row in range(0, len(alone), 7):
            at = Decision(calibration=calibration, threshold=float(probability[row]))
            above = Decision(calibration=calibration, threshold=float(np.nextafter(probability[row], 2)))
            assert decide(schema, at, together)[row] == "yes"
            assert decide(schema, above, together)[row] == "no"


def test_a_graph_of_trees_gets_whole_batches_and_any_other_a_row_a_call(
    fitted: tuple[Schema, Model], matrix: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx
    import onnxruntime

    schema, model = fitted
    graph = to_onnx(model, schema, WIDTH)
    found = operators(graph)
    assert found == {node.op_type for node in onnx.load_from_string(graph).graph.node}
    calls = []

    class Session(onnxruntime.InferenceSession):  # type: ignore[misc]  # onnxruntime has no types
        def run(self, names: Any, given: Any) -> Any:
            calls.append(len(given["features"]))
            return super().run(names, given)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    compile_model("onnx", graph, schema.task)(matrix[:9])
    linear = any(name.startswith("Linear") for name in found)
    assert calls == ([1] * 9 if linear else [9])
