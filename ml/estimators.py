"""Fits the scikit-learn estimators that params.yaml names on encoded rows, and averages them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from ml.decision import TargetTransform
from ml.encoding import Encoding
from ml.encoding_fitting import Encoded
from ml.estimator_kinds import estimator_class
from ml.model_params import EstimatorParams, ModelParams
from ml.params import ParamsError
from ml.rows import Rows
from ml.runtime import Scores
from ml.schema import Schema, Task

SMALL = 500_000
"""Values of a matrix below which trees are fitted with a single thread."""


@dataclass(frozen=True, slots=True)
class Model:
    """A fitted estimator (or an average of several), with the encoding of its input.

    A regression's estimator has learnt, and predicts, the transformed target.
    """

    encoding: Encoding
    estimator: Any

    def scores(self, matrix: NDArray[np.float32], schema: Schema) -> Scores:
        """Uncalibrated scores, computed by scikit-learn."""
        if schema.task == "regression":
            return np.asarray(self.estimator.predict(matrix), dtype=np.float64)
        return all_classes(self.estimator.predict_proba(matrix), self.estimator, schema)


def all_classes(raw: NDArray[Any], estimator: Any, schema: Schema) -> Scores:
    """Raw scores in float64; a class that the estimator's training rows lack gets the probability 0."""
    if schema.task == "regression":
        return np.asarray(raw, dtype=np.float64)
    scores = np.zeros((len(raw), len(schema.classes)))
    scores[:, np.asarray(estimator.classes_, dtype=int)] = raw
    return scores


def constrain(estimator: Any, names: Sequence[str], params: ModelParams) -> None:
    """Declare to boosted trees in which direction the prediction may change with a column.

    Raises ParamsError when a column isn't a single number in the matrix.
    """
    if not params.monotone:
        return
    for name in params.monotone:
        if name not in names:
            raise ParamsError(
                f"model.monotone: {name!r} is not a numeric, boolean or ordinal feature (encoding.ordinal)"
            )
    directions = {"increasing": 1, "decreasing": -1}
    estimator.set_params(
        monotonic_cst=[directions[params.monotone[name]] if name in params.monotone else 0 for name in names]
    )


@contextmanager
def sequential() -> Iterator[None]:
    """A single thread, with which forests also add the predictions of their trees in the same order every time."""
    import joblib

    with threadpool_limits(1, user_api="openmp"), joblib.parallel_config(backend="sequential"):
        yield


def fit(
    encoded: Encoded,
    rows: Rows,
    schema: Schema,
    params: ModelParams,
    seed: int,
    transform: TargetTransform = TargetTransform(),  # noqa: B008 - frozen
) -> Model:
    """Fit every estimator on the encoded rows; if there are several, they are averaged with their `weight`.

    Raises ParamsError when an estimator refuses its parameters.
    """
    target = transform.apply(rows.target) if schema.task == "regression" else rows.target.astype(np.int64)
    weights = sample_weights(rows, schema, params)
    fitted = {}
    estimators = params.estimators or {}
    for place, (name, settings) in enumerate(estimators.items()):
        estimator = make_estimator(settings, schema.task, seed + place, encoded.encoding.names())
        constrain(estimator, encoded.encoding.names(), params)
        try:
            fit_estimator(estimator, encoded.matrix, target, weights)
        except (ValueError, TypeError) as error:
            raise ParamsError(f"model.estimators.{name} ({settings.kind}): {' '.join(str(error).split())}") from error
        fitted[name] = estimator
    shares = [settings.weight for settings in estimators.values()]
    return Model(encoded.encoding, average(fitted, shares, target, schema.task))


def fit_estimator(
    estimator: Any, matrix: NDArray[np.float32], target: NDArray[Any], weights: NDArray[np.float64] | None, **extra: Any
) -> None:
    """Fit an estimator or a pipeline, with the rows' weights if they differ; `extra`: further arguments of its fit."""
    key = f"{estimator.steps[-1][0]}__sample_weight" if hasattr(estimator, "steps") else "sample_weight"
    # Threads that wait for each other cost more than they save on few rows. The fitted trees don't depend on them.
    with sequential() if matrix.size < SMALL else nullcontext():
        estimator.fit(matrix, target, **({} if weights is None else {key: weights}), **extra)


def average(fitted: dict[str, Any], shares: list[float], target: NDArray[Any], task: Task) -> Any:
    """The weighted average of fitted estimators as an estimator; a single one is returned as it is."""
    from sklearn.ensemble import VotingClassifier, VotingRegressor
    from sklearn.preprocessing import LabelEncoder

    if len(fitted) == 1:
        return next(iter(fitted.values()))
    # The estimators are already fitted, with sample weights; the voting estimator only averages them.
    members, weights = list(fitted.items()), np.array(shares)
    if task == "regression":
        vote = VotingRegressor(members, weights=weights)
    else:
        # flatten_transform concerns an output that isn't used, but the ONNX converter supports only False.
        vote = VotingClassifier(members, voting="soft", weights=weights, flatten_transform=False)
        vote.le_ = LabelEncoder().fit(target)
        vote.classes_ = vote.le_.classes_
    vote.estimators_ = list(fitted.values())
    vote.named_estimators_ = fitted
    return vote


def make_estimator(settings: EstimatorParams, task: Task, seed: int, names: Sequence[str]) -> Any:
    """The unfitted scikit-learn estimator; `load_params` has checked its parameters. `names`: the matrix's columns."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    defaults: dict[str, Any] = {}
    steps: list[Any] = [SimpleImputer(strategy="median", keep_empty_features=True)]
    match settings.kind:
        case "linear":
            defaults = {} if task == "regression" else {"max_iter": 1000}
            steps.append(StandardScaler())
        case "hist_gradient_boosting":
            # Early stopping would hold out random rows; the number of trees is a parameter instead.
            defaults = {"random_state": seed, "early_stopping": False, "categorical_features": None}
            steps = []  # these trees know missing values
        case _:
            # Always two threads: the order of sums, and so the last digit, must not depend on the machine.
            defaults = {"random_state": seed, "n_jobs": 2}
    if settings.without:
        kept = [place for place, name in enumerate(names) if not name.endswith(settings.without)]
        steps.insert(0, ColumnTransformer([("kept", "passthrough", kept)]))
    estimator = estimator_class(settings.kind, task)(**defaults | settings.settings)
    return make_pipeline(*steps, estimator) if steps else estimator


def sample_weights(rows: Rows, schema: Schema, params: ModelParams) -> NDArray[np.float64] | None:
    """A weight per row from data.weight, class weights and age, with mean 1; None if all weights are equal."""
    weights = np.ones(len(rows)) if rows.weights is None else rows.weights.copy()
    if isinstance(params.class_weight, dict):
        if unknown := sorted(set(params.class_weight) - set(schema.classes)):
            raise ParamsError(
                f"model.class_weight: {unknown[0]!r} is not a class; they are {', '.join(schema.classes)}"
            )
        weights *= np.array([params.class_weight.get(label, 1.0) for label in schema.classes])[rows.target.astype(int)]
    elif params.class_weight == "balanced" and schema.task != "regression":
        counts = np.bincount(rows.target.astype(int), minlength=len(schema.classes))
        weights *= (len(rows) / (np.count_nonzero(counts) * np.maximum(counts, 1)))[rows.target.astype(int)]
    if params.recency_half_life is not None and rows.seconds is not None:
        age = rows.seconds.max() - rows.seconds
        weights *= 0.5 ** (age / params.recency_half_life.total_seconds())
    return None if np.ptp(weights) == 0 else weights / weights.mean()
