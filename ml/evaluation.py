"""Evaluates a bundle on rows with a known target: slices, importance, curves, confusion matrix."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ml.bundle import Bundle
from ml.card import Figure, Slice, Support
from ml.encoding import MISSING, Encoder, LookupEncoder, OneHotEncoder, keys
from ml.metrics import LARGER_IS_BETTER, METRICS, Weights, block_weights, day_blocks, figures, values
from ml.params import EvaluationParams, ParamsError
from ml.rows import Rows
from ml.runtime import Scores
from ml.schema import Columns, Schema

CURVE_POINTS = 100
CALIBRATION_BINS = 10
HEADLINE = {"binary": "log_loss", "multiclass": "log_loss", "regression": "rmse"}
"""The metric in which importance is measured."""
ALL = slice(None)


@dataclass(frozen=True, slots=True)
class Predicted:
    """Test rows with their predictions."""

    rows: Rows
    scores: Scores
    labels: NDArray[np.float64]
    """Predicted class indices, or numbers for a regression."""
    blocks: NDArray[np.int64]
    weights: Weights

    def values(self, metric: str, chosen: NDArray[np.bool_] | slice = ALL) -> NDArray[np.float64]:
        """The metric on the chosen rows, and on each replicate."""
        return values(metric, *self._chosen(chosen))

    def figures(self, metrics: Sequence[str], chosen: NDArray[np.bool_] | slice = ALL) -> dict[str, Figure]:
        """Each metric on the chosen rows with its interval; metrics that aren't defined on them are left out."""
        return figures(metrics, *self._chosen(chosen))

    def _chosen(
        self, chosen: NDArray[np.bool_] | slice
    ) -> tuple[NDArray[np.float64], Scores, NDArray[np.float64], NDArray[np.int64], Weights]:
        return self.rows.target[chosen], self.scores[chosen], self.labels[chosen], self.blocks[chosen], self.weights


def support(target: NDArray[np.float64], schema: Schema) -> Support:
    """The number of rows, and of the rows of the rarest class."""
    if schema.task == "regression":
        return Support(rows=len(target))
    counts = np.bincount(target.astype(int), minlength=len(schema.classes))
    rarest = int(counts.argmin())
    return Support(rows=len(target), rarest=schema.classes[rarest], rarest_rows=int(counts[rarest]))


def doubt(test: Support, params: EvaluationParams) -> str | None:
    """Why figures from these test rows can't be trusted; None if there are enough rows."""
    of_class = f" of the class {test.rarest!r}" if test.rarest is not None else ""
    rows = test.rows if test.rarest_rows is None else test.rarest_rows
    if rows >= params.min_class_rows:
        return None
    return (
        f"the test part has {rows} row{'s' * (rows != 1)}{of_class}, fewer than evaluation.min_class_rows "
        f"({params.min_class_rows}): its figures can't be trusted. More rows, or a larger split.test, are the remedy"
    )


def no_gain(predicted: Predicted, learnt: NDArray[np.float64], schema: Schema) -> str | None:
    """That a constant predicts the test rows better: their mean, or the classes' shares of the other rows (`learnt`).

    None if the model is better than that. The mean is that of the test rows, as in R2: the others' is further away
    wherever there is a trend.
    """
    rows, metric = len(predicted.rows), HEADLINE[schema.task]
    if schema.task == "regression":
        constant: Scores = np.full(rows, predicted.rows.target.mean())
        labels, what = constant, "their mean"
    else:
        shares = np.bincount(learnt.astype(int), minlength=len(schema.classes)) / len(learnt)
        constant = np.tile(shares, (rows, 1))
        labels, what = constant.argmax(axis=1).astype(np.float64), "the shares of the classes in the other rows"
    theirs = float(replace(predicted, scores=constant, labels=labels).values(metric)[0])
    mine = float(predicted.values(metric)[0])
    if not mine > theirs:
        return None
    return (
        f"the model predicts the test rows worse than {what}: {metric} {mine:.4g} instead of {theirs:.4g}. The "
        "features say nothing about the target, or the test rows differ from the others"
    )


def predict(bundle: Bundle, columns: Columns) -> tuple[Scores, NDArray[np.float64]]:
    """Calibrated scores, and the predictions as class indices (floats) or numbers."""
    return _decided(bundle, bundle.scores(columns))


def _decided(bundle: Bundle, scores: Scores) -> tuple[Scores, NDArray[np.float64]]:
    answers = bundle.decide(scores)
    if bundle.schema.task == "regression":
        return scores, np.asarray(answers, dtype=np.float64)
    index = {label: float(place) for place, label in enumerate(bundle.schema.classes)}
    return scores, np.array([index[str(label)] for label in answers])


def evaluate(bundle: Bundle, rows: Rows, params: EvaluationParams, seed: int) -> Predicted:
    """Predictions for the rows, with the bootstrap blocks and weights that all intervals share."""
    scores, labels = predict(bundle, rows.columns)
    blocks = day_blocks(rows.seconds, len(rows), seed, rows.groups)
    weights = block_weights(int(blocks.max()) + 1 if len(blocks) else 0, params.replicates, seed)
    return Predicted(rows, scores, labels, blocks, weights)


def without_live(columns: Columns, schema: Schema) -> Columns:
    """The same rows with all live features missing."""
    return {
        feature.name: blank(columns[feature.name]) if feature.live else columns[feature.name]
        for feature in schema.features
    }


def blank(values: NDArray[np.generic]) -> NDArray[np.generic]:
    """An array of missing values, with the same length and type."""
    return np.full_like(values, None if values.dtype == object else np.nan)


def slices(bundle: Bundle, predicted: Predicted, params: EvaluationParams) -> tuple[Slice, ...]:
    """Metrics for each value of the features in params; only values with enough rows.

    Raises ParamsError when params name a column that isn't a categorical or boolean feature.
    """
    found = []
    for name, value, chosen in slice_rows(bundle.schema, predicted.rows.columns, params):
        metrics = predicted.figures(METRICS[bundle.schema.task], chosen)
        found.append(Slice(feature=name, value=value, rows=int(chosen.sum()), metrics=metrics))
    return tuple(found)


def slice_rows(schema: Schema, columns: Columns, params: EvaluationParams) -> list[tuple[str, str, NDArray[np.bool_]]]:
    """(feature, value, its rows) for every slice with at least `slice_min_rows` rows, in a fixed order."""
    found = []
    for name in params.slices:
        kinds = {feature.name: feature.type for feature in schema.features}
        if kinds.get(name) not in ("categorical", "boolean"):
            raise ParamsError(
                f"evaluation.slices names {name!r}, which is {kinds.get(name, 'no feature')}; "
                "slices need categorical or boolean features"
            )
        spelled = np.array(keys(columns, (name,)))
        for value in sorted(set(spelled)):
            chosen = spelled == value
            if chosen.sum() >= params.slice_min_rows:
                found.append((name, "missing" if value == MISSING else str(value), chosen))
    return found


def importance(bundle: Bundle, predicted: Predicted, params: EvaluationParams, seed: int) -> dict[str, float]:
    """The loss in the headline metric when a feature is shuffled (Breiman, 2001); largest first."""
    generator = np.random.default_rng(seed)
    chosen = np.sort(generator.permutation(len(predicted.rows))[: params.importance_rows])
    rows = predicted.rows.take(chosen)
    metric = HEADLINE[bundle.schema.task]
    one = np.zeros(len(rows), dtype=np.int64)

    encoders = bundle.parts.encoding.encoders
    blocks = [encoder.transform(rows.columns).astype(np.float32) for encoder in encoders]

    def score(matrix: NDArray[np.float32]) -> float:
        scores, labels = _decided(bundle, bundle.parts.decision.scores(bundle.run(matrix)))
        return float(values(metric, rows.target, scores, labels, one, np.ones((1, 1)))[0])

    plain = score(np.concatenate(blocks, axis=1))
    sign = -1.0 if metric in LARGER_IS_BETTER else 1.0
    losses = {}
    for feature in bundle.schema.features:
        shuffled = rows.columns | {feature.name: rows.columns[feature.name][generator.permutation(len(rows))]}
        # Only what is made of this feature is encoded again: with thousands of columns, the rest would take minutes.
        matrix = [
            encoder.transform(shuffled).astype(np.float32) if feature.name in _read_by(encoder) else block
            for encoder, block in zip(encoders, blocks, strict=True)
        ]
        losses[feature.name] = sign * (score(np.concatenate(matrix, axis=1)) - plain)
    return dict(sorted(losses.items(), key=lambda item: -item[1]))


def _read_by(encoder: Encoder) -> tuple[str, ...]:
    return encoder.columns if isinstance(encoder, OneHotEncoder | LookupEncoder) else (encoder.column,)


def curves(schema: Schema, predicted: Predicted) -> dict[str, list[tuple[float, float]]]:
    """Points of the plots: roc, precision_recall, calibration; or residuals (predicted, residual)."""
    target = predicted.rows.target
    if schema.task == "regression":
        step = max(1, len(target) // 500)
        order = np.argsort(predicted.scores, kind="stable")[::step]
        return {"residuals": [(float(predicted.scores[i]), float(target[i] - predicted.scores[i])) for i in order]}
    if schema.task == "multiclass":
        top = predicted.scores.max(axis=1)
        return {"calibration": _calibration(top, (predicted.labels == target).astype(float))}
    from sklearn.metrics import precision_recall_curve, roc_curve

    positive = predicted.scores[:, 1]
    if len(set(target)) < 2:
        return {"calibration": _calibration(positive, target)}
    fpr, tpr, _ = roc_curve(target, positive)
    precision, recall, _ = precision_recall_curve(target, positive)
    return {
        "roc": _thin(fpr, tpr),
        "precision_recall": _thin(recall[::-1], precision[::-1]),
        "calibration": _calibration(positive, target),
    }


def confusion(schema: Schema, predicted: Predicted) -> tuple[tuple[int, ...], ...]:
    """Rows by actual (down) and predicted (across) class; empty for a regression."""
    classes = len(schema.classes)
    cells = predicted.rows.target.astype(int) * classes + predicted.labels.astype(int) if classes else np.zeros(0, int)
    counts = np.bincount(cells, minlength=classes * classes).reshape(classes, classes)
    return tuple(tuple(int(count) for count in row) for row in counts)


def _thin(x: NDArray[np.float64], y: NDArray[np.float64]) -> list[tuple[float, float]]:
    places = np.unique(np.searchsorted(x, np.linspace(x[0], x[-1], CURVE_POINTS)).clip(0, len(x) - 1))
    places = np.unique(np.concatenate([[0], places, [len(x) - 1]]))
    return [(round(float(x[i]), 5), round(float(y[i]), 5)) for i in places]


def _calibration(probability: NDArray[np.float64], happened: NDArray[np.float64]) -> list[tuple[float, float]]:
    """Mean probability and observed share in bins of equal size."""
    order = np.argsort(probability, kind="stable")
    return [
        (round(float(probability[part].mean()), 5), round(float(happened[part].mean()), 5))
        for part in np.array_split(order, CALIBRATION_BINS)
        if len(part)
    ]
