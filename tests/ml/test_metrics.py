"""Metrics are the same as scikit-learn's, and intervals resample whole days."""

import numpy as np
import pytest
from sklearn import metrics as reference

from ml.metrics import block_weights, day_blocks, figures, improvement, values

RNG = np.random.default_rng(5)
N = 400
TARGET = (RNG.random(N) < 0.3).astype(float)
P = np.round(np.clip(0.3 * TARGET + RNG.random(N) * 0.7, 0.01, 0.99), 2)  # rounded: ties
SCORES = np.stack([1 - P, P], axis=1)
LABELS = (P >= 0.5).astype(float)
ROWS = np.arange(N)
ONE = np.ones((1, N))


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("roc_auc", reference.roc_auc_score(TARGET, P)),
        ("pr_auc", reference.average_precision_score(TARGET, P)),
        ("log_loss", reference.log_loss(TARGET, P)),
        ("brier", reference.brier_score_loss(TARGET, P)),
        ("accuracy", reference.accuracy_score(TARGET, LABELS)),
        ("f1", reference.f1_score(TARGET, LABELS)),
    ],
)
def test_binary_figures_are_scikit_learns_also_with_repeated_rows(metric: str, expected: float) -> None:
    assert values(metric, TARGET, SCORES, LABELS, ROWS, ONE)[0] == pytest.approx(expected)
    weights = RNG.integers(0, 4, N).astype(float)
    repeated = np.repeat(ROWS, weights.astype(int))
    direct = values(
        metric,
        TARGET[repeated],
        SCORES[repeated],
        LABELS[repeated],
        np.arange(len(repeated)),
        np.ones((1, len(repeated))),
    )
    assert values(metric, TARGET, SCORES, LABELS, ROWS, weights[None, :])[0] == pytest.approx(direct[0])


def test_multiclass_and_regression_figures_are_scikit_learns() -> None:
    target = RNG.integers(0, 3, N).astype(float)
    scores = RNG.dirichlet([1, 1, 1], N)
    labels = scores.argmax(axis=1).astype(float)
    assert values("f1_macro", target, scores, labels, ROWS, ONE)[0] == pytest.approx(
        reference.f1_score(target, labels, average="macro")
    )
    assert values("roc_auc", target, scores, labels, ROWS, ONE)[0] == pytest.approx(
        reference.roc_auc_score(target, scores, multi_class="ovr")
    )
    actual = RNG.normal(size=N)
    guess = actual + RNG.normal(size=N) * 0.3
    assert values("r2", actual, guess, guess, ROWS, ONE)[0] == pytest.approx(reference.r2_score(actual, guess))
    assert values("rmse", actual, guess, guess, ROWS, ONE)[0] == pytest.approx(
        reference.root_mean_squared_error(actual, guess)
    )


def test_days_that_move_together_widen_the_interval() -> None:
    days = np.repeat(np.arange(20), 50)
    shared = np.repeat(RNG.normal(size=20), 50)
    actual = shared + RNG.normal(size=1000) * 0.1
    guess = np.zeros(1000)
    by_day = figures(["mae"], actual, guess, guess, days, block_weights(20, 300, 1))["mae"]
    by_row = figures(["mae"], actual, guess, guess, np.arange(1000), block_weights(1000, 300, 1))["mae"]
    assert by_day.low is not None
    assert by_day.high is not None
    assert by_row.low is not None
    assert by_row.high is not None
    assert by_day.high - by_day.low > 3 * (by_row.high - by_row.low)


def test_improvement_is_positive_for_the_better_side_whatever_the_metric() -> None:
    blocks, weights = ROWS, block_weights(N, 50, 1)
    worse = np.stack([np.full(N, 0.5), np.full(N, 0.5)], axis=1)
    for metric in ("log_loss", "roc_auc", "brier"):
        better = values(metric, TARGET, SCORES, LABELS, blocks, weights)
        assert improvement(metric, better, values(metric, TARGET, worse, LABELS, blocks, weights)).value > 0


def test_one_class_alone_has_no_roc_and_is_left_out() -> None:
    only = np.zeros(N)
    assert "roc_auc" not in figures(["roc_auc", "brier"], only, SCORES, LABELS, ROWS, ONE)


def test_blocks_are_days_or_random_where_rows_have_no_time() -> None:
    seconds = np.array([0.0, 10.0, 86_400.0, 3 * 86_400.0 + 5])
    np.testing.assert_array_equal(day_blocks(seconds, 4, 1), [0, 0, 1, 2])
    random = day_blocks(None, 5000, 1)
    assert len(set(random)) == 2000
    with pytest.raises(ValueError, match="'colour' is not a metric"):
        values("colour", TARGET, SCORES, LABELS, ROWS, ONE)
