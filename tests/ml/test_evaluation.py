"""What is reported about the test rows."""

import numpy as np
import pytest

from ml.bundle import bundle_of
from ml.encoding import CROSS, Encoding, LookupEncoder, NumericEncoder
from ml.evaluation import Predicted, evaluate, importance, no_gain, predict
from ml.metrics import values
from ml.params import EvaluationParams
from ml.rows import Rows
from ml.schema import Columns, Feature, Schema
from tests.ml.logistic import logistic_parts


def test_importance_shuffles_a_feature_in_everything_that_is_made_of_it() -> None:
    """It encodes only that feature again; the figures are those of predicting the shuffled rows as a whole."""
    generator = np.random.default_rng(3)
    x, member = generator.choice([-1.0, 2.0], 300), generator.choice([0.0, 1.0], 300)
    cross = {f"{m}{CROSS}{n}": (m * n,) for m in (0.0, 1.0) for n in (-1.0, 2.0)}
    encoders = (
        NumericEncoder(column="x"),
        LookupEncoder(kind="target", columns=("member", "x"), outputs=("",), table=cross, default=(0.0,)),
    )
    bundle = bundle_of("", logistic_parts(1.0, 0.5, encoding=Encoding(encoders=encoders)))
    rows = Rows({"x": x, "member": member}, (x + member > generator.normal(size=300)).astype(float), None)
    params = EvaluationParams(replicates=2)
    found = importance(bundle, evaluate(bundle, rows, params, seed=1), params, seed=1)

    shuffle = np.random.default_rng(1)
    shuffle.permutation(300)  # chooses the rows
    one = np.zeros(300, dtype=np.int64)

    def loss(columns: dict[str, np.ndarray]) -> float:
        scores, labels = predict(bundle, columns)
        return float(values("log_loss", rows.target, scores, labels, one, np.ones((1, 1)))[0])

    plain = loss(rows.columns)
    expected = {
        name: loss(rows.columns | {name: rows.columns[name][shuffle.permutation(300)]}) - plain
        for name in ("x", "member")
    }
    assert found == pytest.approx(expected, abs=1e-12)
    assert list(found) == ["x", "member"]
    assert found["member"] > 0.01


def test_a_model_that_is_worse_than_a_constant_is_doubted() -> None:
    x = np.random.default_rng(3).normal(size=300)
    happened = (x > 0).astype(float)
    for slope, doubted in ((2.0, False), (-2.0, True)):
        bundle = bundle_of("", logistic_parts(slope, 0.0))
        columns: Columns = {"x": x, "member": x}
        predicted = evaluate(bundle, Rows(columns, happened, None), EvaluationParams(replicates=2), seed=1)
        said = no_gain(predicted, happened, bundle.schema)
        assert (said is not None) == doubted
    assert "worse than the shares of the classes in the other rows: log_loss" in str(said)


@pytest.mark.parametrize(("answer", "doubted"), [(0.9, False), (-3.0, True)])
def test_a_regression_that_is_worse_than_the_mean_of_its_rows_is_doubted(answer: float, doubted: bool) -> None:
    target = np.array([0.0, 1.0, 2.0])
    schema = Schema(target="y", task="regression", classes=(), features=(Feature(name="x", type="numeric"),))
    scores = np.full(3, answer)
    rows = Rows({"x": target}, target, None)
    predicted = Predicted(rows, scores + 0.1 * target, scores + 0.1 * target, np.arange(3), np.ones((1, 3)))
    said = no_gain(predicted, target - 100, schema)
    assert (said is not None) == doubted
    assert said is None or "worse than their mean: rmse" in said
