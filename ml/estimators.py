"""Fits the scikit-learn estimators that params.yaml names on encoded rows, and averages them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.encoding import Encoding
from ml.encoding_fitting import Encoded
from ml.params import EstimatorParams, ModelParams, ParamsError
from ml.rows import Rows
from ml.runtime import Scores
from ml.schema import Schema


@dataclass(frozen=True, slots=True)
class Model:
    """A fitted estimator (or an average of several), with the encoding of its input."""

    encoding: Encoding
    estimator: Any

    def scores(self, matrix: NDArray[np.float32], schema: Schema) -> Scores:
        """Uncalibrated scores, computed by scikit-learn."""
        if schema.task == "regression":
            return np.asarray(self.estimator.predict(matrix), dtype=np.float64)
        scores = np.zeros((len(matrix), len(schema.classes)))
        # A fold's training rows may lack a class; its probability is 0.
        scores[:, np.asarray(self.estimator.classes_, dtype=int)] = self.estimator.predict_proba(matrix)
        return scores


def fit(encoded: Encoded, rows: Rows, schema: Schema, params: ModelParams, seed: int) -> Model:
    """Fit every estimator on the encoded rows; if there are several, they are averaged with their `weight`.

    Raises ParamsError when an estimator refuses its parameters.
    """
    from sklearn.ensemble import VotingClassifier, VotingRegressor
    from sklearn.preprocessing import LabelEncoder

    target = rows.target if schema.task == "regression" else rows.target.astype(np.int64)
    weights = sample_weights(rows, schema, params)
    fitted = []
    for place, settings in enumerate(params.estimators):
        estimator = make_estimator(settings, schema, seed + place)
        key = f"{estimator.steps[-1][0]}__sample_weight" if hasattr(estimator, "steps") else "sample_weight"
        try:
            estimator.fit(encoded.matrix, target, **({} if weights is None else {key: weights}))
        except (ValueError, TypeError) as error:
            raise ParamsError(f"model.estimators.{place} ({settings.kind}): {' '.join(str(error).split())}") from error
        fitted.append((f"{settings.kind}_{place}", estimator))
    if len(fitted) == 1:
        return Model(encoded.encoding, fitted[0][1])
    shares = np.array([settings.weight for settings in params.estimators])
    # The estimators are already fitted, with sample weights; the voting estimator only averages them.
    if schema.task == "regression":
        vote = VotingRegressor(fitted, weights=shares)
    else:
        # flatten_transform concerns an output that isn't used, but the ONNX converter supports only False.
        vote = VotingClassifier(fitted, voting="soft", weights=shares, flatten_transform=False)
        vote.le_ = LabelEncoder().fit(target)
        vote.classes_ = vote.le_.classes_
    vote.estimators_ = [estimator for _, estimator in fitted]
    vote.named_estimators_ = dict(fitted)
    return Model(encoded.encoding, vote)


def make_estimator(settings: EstimatorParams, schema: Schema, seed: int) -> Any:
    """The unfitted scikit-learn estimator.

    Raises ParamsError when the class doesn't have a parameter, or when a parameter would make the compiled model wrong.
    """
    from sklearn import ensemble, linear_model
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    number = schema.task == "regression"
    given = dict(settings.params)
    try:
        match settings.kind:
            case "linear":
                last = (
                    linear_model.Ridge(**given)
                    if number
                    else linear_model.LogisticRegression(**{"max_iter": 1000} | given)
                )
                imputer = SimpleImputer(strategy="median", keep_empty_features=True)
                return make_pipeline(imputer, StandardScaler(), last)
            case "hist_gradient_boosting":
                if "categorical_features" in given:
                    # The conversion to ONNX gives no error, but the converted model gives wrong predictions.
                    raise ParamsError(
                        "model.estimators: categorical_features is not allowed; categories are encoded before the model"
                    )
                boosting = ensemble.HistGradientBoostingRegressor if number else ensemble.HistGradientBoostingClassifier
                # Early stopping would hold out random rows; the number of trees is a parameter instead.
                defaults = {"random_state": seed, "early_stopping": False, "categorical_features": None}
                return boosting(**defaults | given)
            case "random_forest":
                forest = ensemble.RandomForestRegressor if number else ensemble.RandomForestClassifier
            case "extra_trees":
                forest = ensemble.ExtraTreesRegressor if number else ensemble.ExtraTreesClassifier
        # Always two threads: the order of sums, and so the last digit, must not depend on the machine.
        return make_pipeline(
            SimpleImputer(strategy="median", keep_empty_features=True),
            forest(**{"random_state": seed, "n_jobs": 2} | given),
        )
    except TypeError as error:
        raise ParamsError(f"model.estimators: {settings.kind}: {error}") from None


def sample_weights(rows: Rows, schema: Schema, params: ModelParams) -> NDArray[np.float64] | None:
    """A weight per row from class balance and age, with mean 1; None if all weights are equal."""
    weights = np.ones(len(rows))
    if params.class_weight == "balanced" and schema.task != "regression":
        counts = np.bincount(rows.target.astype(int), minlength=len(schema.classes))
        weights *= (len(rows) / (np.count_nonzero(counts) * np.maximum(counts, 1)))[rows.target.astype(int)]
    if params.recency_half_life is not None and rows.seconds is not None:
        age = rows.seconds.max() - rows.seconds
        weights *= 0.5 ** (age / params.recency_half_life.total_seconds())
    return None if np.all(weights == 1) else weights / weights.mean()
