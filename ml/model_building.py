"""Stage 4: fit, choose the calibration and the threshold, refit on everything, compile."""

import logging
import pickle
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml.bundle import (
    Calibration,
    Card,
    Decision,
    Distribution,
    IsotonicCalibration,
    NoCalibration,
    Parity,
    Parts,
    Reference,
    SigmoidCalibration,
    TemperatureCalibration,
    write_bundle,
)
from ml.data_preprocessing import FOLDER, PARTS, SCHEMA
from ml.encoding import Encoding
from ml.feature_engineering import ENCODING, FEATURES, Encoded, fit_encoding, target_of
from ml.logs import stage_logger
from ml.params import EstimatorParams, ModelParams, Params, ParamsError, ThresholdParams, load_params
from ml.runtime import Runtime, Scores, compile_model
from ml.schema import Columns, Feature, Schema
from ml.tables import has_offset, parse_times, read_parquet, to_columns

TRAINED = Path("models/trained")
PARITY_ROWS = 5000
SAMPLE_ROWS = 200
TOP_CATEGORIES = 50


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows, in time order where they have a time."""

    columns: Columns
    target: NDArray[np.float64]
    seconds: NDArray[np.float64] | None
    """When each row happened, in seconds since 1970; None where the data has no time."""

    def __len__(self) -> int:
        return len(self.target)

    def take(self, chosen: NDArray[np.int64]) -> "Rows":
        """The rows at these positions."""
        return Rows(
            {name: values[chosen] for name, values in self.columns.items()},
            self.target[chosen],
            None if self.seconds is None else self.seconds[chosen],
        )


@dataclass(frozen=True, slots=True)
class Model:
    """A fitted average of scikit-learn estimators, reading an encoding's matrix."""

    encoding: Encoding
    estimator: Any

    def scores(self, matrix: NDArray[np.float32], schema: Schema) -> Scores:
        """Uncalibrated scores by scikit-learn itself."""
        if schema.task == "regression":
            return np.asarray(self.estimator.predict(matrix), dtype=np.float64)
        return np.asarray(self.estimator.predict_proba(matrix), dtype=np.float64)


def read_rows(part: str, schema: Schema, params: Params) -> Rows:
    """The processed rows of one part."""
    table = read_parquet(FOLDER / f"{part}.parquet")
    return Rows(to_columns(table, schema), target_of(table, schema), seconds_of(table, params.data.time))


def seconds_of(table: pd.DataFrame, time_column: str | None) -> NDArray[np.float64] | None:
    """When each row happened, in seconds since 1970; None without a time column."""
    if time_column is None:
        return None
    # A part without any offset reads the same either way: what lacks one counts as UTC.
    times = parse_times(table[time_column], utc=has_offset(table[time_column]))
    return np.asarray((times - pd.Timestamp(0)).dt.total_seconds(), dtype=np.float64)


def concatenate(*many: Rows) -> Rows:
    """All rows, one part after the other."""
    seconds = [rows.seconds for rows in many if rows.seconds is not None]
    return Rows(
        {name: np.concatenate([rows.columns[name] for rows in many]) for name in many[0].columns},
        np.concatenate([rows.target for rows in many]),
        np.concatenate(seconds) if len(seconds) == len(many) else None,
    )


def fit(encoded: Encoded, rows: Rows, schema: Schema, params: ModelParams, seed: int) -> Model:
    """Fit every estimator on the encoded rows; several are averaged, weighted by `weight`.

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
    # Members are fitted above, each with its own sample weights: the vote only averages them.
    if schema.task == "regression":
        vote = VotingRegressor(fitted, weights=shares)
    else:
        # flatten_transform is about another output, but the converter knows the unflattened form only.
        vote = VotingClassifier(fitted, voting="soft", weights=shares, flatten_transform=False)
        vote.le_ = LabelEncoder().fit(target)
        vote.classes_ = vote.le_.classes_
    vote.estimators_ = [estimator for _, estimator in fitted]
    vote.named_estimators_ = dict(fitted)
    return Model(encoded.encoding, vote)


def make_estimator(settings: EstimatorParams, schema: Schema, seed: int) -> Any:
    """The unfitted scikit-learn estimator.

    Raises ParamsError when a parameter isn't one of the class's, or would make the compiled model wrong.
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
                    # They convert to ONNX without complaint and answer wrongly.
                    raise ParamsError(
                        "model.estimators: categorical_features is not allowed; categories are encoded before the model"
                    )
                boosting = ensemble.HistGradientBoostingRegressor if number else ensemble.HistGradientBoostingClassifier
                # Early stopping would hold random rows out; the number of trees is a parameter instead.
                defaults = {"random_state": seed, "early_stopping": False, "categorical_features": None}
                return boosting(**defaults | given)
            case "random_forest":
                forest = ensemble.RandomForestRegressor if number else ensemble.RandomForestClassifier
            case "extra_trees":
                forest = ensemble.ExtraTreesRegressor if number else ensemble.ExtraTreesClassifier
        # Not more threads than two: the order of sums, and so the last digit, must not depend on the machine.
        return make_pipeline(
            SimpleImputer(strategy="median", keep_empty_features=True),
            forest(**{"random_state": seed, "n_jobs": 2} | given),
        )
    except TypeError as error:
        raise ParamsError(f"model.estimators: {settings.kind}: {error}") from None


def sample_weights(rows: Rows, schema: Schema, params: ModelParams) -> NDArray[np.float64] | None:
    """A weight per row from class balance and age, mean 1; None when all are equal."""
    weights = np.ones(len(rows))
    if params.class_weight == "balanced" and schema.task != "regression":
        counts = np.bincount(rows.target.astype(int), minlength=len(schema.classes))
        weights *= (len(rows) / (np.count_nonzero(counts) * np.maximum(counts, 1)))[rows.target.astype(int)]
    if params.recency_half_life is not None and rows.seconds is not None:
        age = rows.seconds.max() - rows.seconds
        weights *= 0.5 ** (age / params.recency_half_life.total_seconds())
    return None if np.all(weights == 1) else weights / weights.mean()


@dataclass(frozen=True, slots=True)
class Choice:
    """The calibration that won, and what each candidate scored."""

    calibration: Calibration
    log_loss: dict[str, float]
    """Mean log-loss over the folds, by method."""


def rolling_origin(rows: int, folds: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Positions to learn from and to predict: each fold is predicted from all rows before it (Tashman, 2000).

    The first half of the rows is only ever learnt from.
    """
    borders = np.linspace(rows / 2, rows, folds + 1).astype(int)
    for begin, end in pairwise(borders):
        yield np.arange(begin), np.arange(begin, end)


def choose_calibration(held_out: list[tuple[Scores, NDArray[np.float64]]], methods: tuple[str, ...]) -> Choice:
    """Each method is fitted on the folds before and judged on the next; the lowest mean log-loss wins, `none` on a tie.

    `held_out`: (scores, class indices) of each fold in order, predicted by a model that never saw it.
    """
    losses: dict[str, float] = {}
    for method in dict.fromkeys(("none", *methods)):
        fold_losses = []
        for place in range(1, len(held_out)):
            scores, target = held_out[place]
            try:
                calibrated = fit_calibration(method, held_out[:place]).apply(scores)
            except ValueError:  # a fold with one class only
                fold_losses.append(np.inf)
                continue
            likelihood = np.clip(calibrated[np.arange(len(target)), target.astype(int)], 1e-15, 1)
            fold_losses.append(float(-np.log(likelihood).mean()))
        losses[method] = float(np.mean(fold_losses)) if fold_losses else 0.0
    allowed = {method: loss for method, loss in losses.items() if method in methods}
    best = min(allowed, key=lambda method: (round(allowed[method], 6), method != "none"))
    return Choice(fit_calibration(best, held_out), losses)


def fit_calibration(method: str, held_out: list[tuple[Scores, NDArray[np.float64]]]) -> Calibration:
    """The method fitted on all these folds together."""
    if method == "none":
        return NoCalibration()
    from scipy.optimize import minimize_scalar
    from sklearn.isotonic import IsotonicRegression
    from sklearn.linear_model import LogisticRegression

    scores = np.concatenate([fold for fold, _ in held_out])
    target = np.concatenate([fold for _, fold in held_out])
    if method == "temperature":

        def loss(log_temperature: float) -> float:
            calibrated = TemperatureCalibration(temperature=float(np.exp(log_temperature))).apply(scores)
            return float(-np.log(np.clip(calibrated[np.arange(len(target)), target.astype(int)], 1e-15, 1)).mean())

        best = minimize_scalar(loss, bounds=(-3, 3), method="bounded")
        return TemperatureCalibration(temperature=float(np.exp(best.x)))
    p = np.clip(scores[:, 1], 1e-12, 1 - 1e-12)
    if method == "sigmoid":
        platt = LogisticRegression(C=np.inf).fit(np.log(p / (1 - p))[:, None], target.astype(int))
        return SigmoidCalibration(slope=float(platt.coef_[0, 0]), intercept=float(platt.intercept_[0]))
    isotonic = IsotonicRegression(out_of_bounds="clip").fit(p, target)
    return IsotonicCalibration(x=tuple(map(float, isotonic.X_thresholds_)), y=tuple(map(float, isotonic.y_thresholds_)))


def choose_threshold(probability: NDArray[np.float64], target: NDArray[np.float64], params: ThresholdParams) -> float:
    """The threshold that does best on these rows, among the probabilities that occur (at most 1,000 of them)."""
    candidates = np.unique(np.quantile(probability, np.linspace(0, 1, 1001), method="nearest"))
    order = np.argsort(probability)
    ordered = target[order]
    first = np.searchsorted(probability[order], candidates)  # rows from here on are called positive
    positives_before = np.concatenate([[0.0], np.cumsum(ordered)])[first]
    tp = ordered.sum() - positives_before
    fp = (len(ordered) - first) - tp
    fn = ordered.sum() - tp
    tn = len(ordered) - tp - fp - fn
    with np.errstate(invalid="ignore"):
        worth = {
            "f1": 2 * tp / (2 * tp + fp + fn),
            "balanced_accuracy": (tp / (tp + fn) + tn / (tn + fp)) / 2,
            "cost": -(fp * params.cost_false_positive + fn * params.cost_false_negative),
        }[params.maximize]
    return float(candidates[int(np.nanargmax(worth))])


def compile_estimator(
    model: Model, schema: Schema, matrix: NDArray[np.float32], unit: float, tolerance: float, log: logging.Logger
) -> tuple[Runtime, bytes, Parity | None]:
    """ONNX bytes whose answers on `matrix` are scikit-learn's own within `tolerance`; else the pickled estimator.

    `unit`: what a difference in the answers is divided by, see `parity_unit`.
    """
    try:
        graph = to_onnx(model, schema, matrix.shape[1])
        run = compile_model("onnx", graph, schema.task)
        difference = float(np.abs(run(matrix) - model.scores(matrix, schema)).max()) / unit
    except Exception as error:  # converters fail in many ways; the fallback serves all the same
        log.warning("the model doesn't compile (%s): runtime sklearn", " ".join(str(error).split())[:300])
        return "sklearn", pickle.dumps(model.estimator), None
    if difference > tolerance:
        log.warning(
            "the compiled model differs by %.2g, more than model.parity_tolerance (%.2g): runtime sklearn",
            difference,
            tolerance,
        )
        return "sklearn", pickle.dumps(model.estimator), None
    return "onnx", graph, Parity(rows=len(matrix), largest_difference=difference, tolerance=tolerance)


def parity_unit(target: NDArray[np.float64], schema: Schema) -> float:
    """1 for probabilities; for a regression the target's standard deviation, whether in cents or in euros.

    The compiled model answers in float32, seven digits: around 1e6 it is 0.06 off, which is much where targets spread
    by 1 and nothing where they spread by 1e5.
    """
    return (float(target.std()) or 1.0) if schema.task == "regression" else 1.0


def to_onnx(model: Model, schema: Schema, width: int) -> bytes:
    """The estimator as an ONNX graph, float32 in; the same estimator gives the same bytes."""
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    classifies = schema.task != "regression"
    options = {id(model.estimator): {"zipmap": False}} if classifies else None
    inputs = [("features", FloatTensorType([None, width]))]
    with warnings.catch_warnings():
        # Where warnings are errors, the converter's deprecation warnings turn into wrong-value errors of protobuf.
        warnings.simplefilter("ignore")
        converted = convert_sklearn(model.estimator, "atlas", inputs, options=options, target_opset=17)
    return cast("bytes", converted.SerializeToString())


def describe_rows(rows: Rows, schema: Schema, scores: Scores, seed: int) -> Reference:
    """The training distributions and a sample, for the drift monitor."""
    chosen = np.sort(np.random.default_rng(seed).permutation(len(rows))[:SAMPLE_ROWS])
    latest = None
    if rows.seconds is not None:
        latest = pd.Timestamp(float(rows.seconds.max()), unit="s").isoformat()
    return Reference(
        rows=len(rows),
        features={feature.name: _distribution(rows.columns[feature.name], feature) for feature in schema.features},
        scores=_numeric_distribution(
            scores if scores.ndim == 1 else scores[:, 1] if scores.shape[1] == 2 else scores.max(1)
        ),
        sample=tuple(
            {feature.name: as_request(rows.columns[feature.name][row], feature) for feature in schema.features}
            for row in chosen
        ),
        fitted_through=latest,
    )


def as_request(value: Any, feature: Feature) -> str | float | int | bool | None:
    """One typed value as a request would write it."""
    if value is None or value != value:  # noqa: PLR0124 - NaN
        return None
    match feature.type:
        case "numeric":
            return int(value) if feature.integer and float(value).is_integer() else float(value)
        case "boolean":
            return bool(value)
        case "datetime":
            return pd.Timestamp(float(value), unit="s").isoformat() + ("Z" if feature.utc else "")
        case _:
            return str(value)


def _distribution(values: NDArray[np.generic], feature: Feature) -> Distribution:
    if feature.type not in ("categorical", "text"):
        return _numeric_distribution(cast("NDArray[np.float64]", values))
    series = pd.Series(values)
    missing = float(series.isna().mean())
    if feature.type == "text":
        return Distribution(missing=missing)
    counts = series.value_counts().reset_index()
    counts.columns = pd.Index(["category", "rows"])
    counts = counts.sort_values(["rows", "category"], ascending=[False, True])
    top = counts.head(TOP_CATEGORIES)
    return Distribution(
        missing=missing,
        categories=tuple(map(str, top["category"])),
        counts=tuple(map(int, top["rows"])),
        other=int(counts["rows"].sum() - top["rows"].sum()),
    )


def _numeric_distribution(values: NDArray[np.float64]) -> Distribution:
    present = values[~np.isnan(values)]
    missing = float(np.isnan(values).mean()) if len(values) else 0.0
    if not len(present):
        return Distribution(missing=missing)
    edges = np.unique(np.quantile(present, np.linspace(0, 1, 11)))
    if len(edges) == 1:
        return Distribution(missing=missing, edges=(float(edges[0]), float(edges[0])), counts=(len(present),))
    counts, _ = np.histogram(present, edges)
    return Distribution(missing=missing, edges=tuple(map(float, edges)), counts=tuple(map(int, counts)))


def build(params: Params, log: logging.Logger) -> Parts:
    """The whole stage as one function of the earlier stages' files; see the module's first line."""
    schema = Schema.model_validate_json(SCHEMA.read_bytes())
    encoding = Encoding.model_validate_json(ENCODING.read_bytes())
    rows = {part: read_rows(part, schema, params) for part in PARTS}
    matrices = {part: np.load(FEATURES / f"{part}.npz")["matrix"] for part in PARTS}
    in_order = params.data.time is not None

    log.info("fitting on %d training rows", len(rows["train"]))
    model = fit(Encoded(encoding, matrices["train"]), rows["train"], schema, params.model, params.seed)
    validation_scores = model.scores(matrices["validation"], schema)

    choice = Choice(NoCalibration(), {})
    if schema.task != "regression":
        held_out = []
        if set(params.model.calibration) - {"none"}:
            methods = params.model.calibration
            if schema.task == "multiclass" and set(methods) & {"sigmoid", "isotonic"}:
                methods = ("none", "temperature")  # the one method of these for more than two classes
            # The last fold is the validation part, which the model above has not seen: one fit is saved.
            for number, (learn, predict) in enumerate(
                rolling_origin(len(rows["train"]), params.model.calibration_folds - 1)
            ):
                log.info("calibration fold %d: %d rows predict %d", number + 1, len(learn), len(predict))
                past, next_rows = rows["train"].take(learn), rows["train"].take(predict)
                fold_encoded = fit_encoding(
                    past.columns, past.target, schema, params.encoding, params.seed, in_order=in_order
                )
                fold_model = fit(fold_encoded, past, schema, params.model, params.seed)
                matrix = fold_encoded.encoding.transform(next_rows.columns)
                held_out.append((fold_model.scores(matrix, schema), next_rows.target))
            held_out.append((validation_scores, rows["validation"].target))
            choice = choose_calibration(held_out, methods)
            log.info("calibration: %s (log-loss %s)", choice.calibration.method, choice.log_loss)

    threshold = None
    if schema.task == "binary":
        calibrated = choice.calibration.apply(validation_scores)[:, 1]
        threshold = choose_threshold(calibrated, rows["validation"].target, params.model.threshold)
        log.info("threshold %.4f maximises %s on validation rows", threshold, params.model.threshold.maximize)
    decision = Decision(calibration=choice.calibration, threshold=threshold)

    facts: dict[str, Any] = {
        "estimators": [settings.model_dump(mode="json") for settings in params.model.estimators],
        "calibration": choice.calibration.method,
        "calibration_log_loss": choice.log_loss,
        "threshold_maximizes": params.model.threshold.maximize if schema.task == "binary" else None,
        "refitted": params.model.refit,
    }

    def finish(fitted: Model, learnt: Rows, matrix: NDArray[np.float32]) -> Parts:
        step = max(1, len(matrix) // PARITY_ROWS)
        sample = np.vstack([matrix[::step], np.full((1, matrix.shape[1]), np.nan, dtype=np.float32)])
        unit = parity_unit(learnt.target, schema)
        runtime, code, parity = compile_estimator(fitted, schema, sample, unit, params.model.parity_tolerance, log)
        log.info(
            "runtime %s, %.1f MB, parity %s", runtime, len(code) / 1e6, parity and f"{parity.largest_difference:.2g}"
        )
        scores = decision.calibration.apply(fitted.scores(matrix, schema))
        reference = describe_rows(learnt, schema, scores, params.seed)
        card = Card(name=params.model.name, task=schema.task, target=schema.target, model=facts, parity=parity)
        return Parts(params.model.name, runtime, code, schema, fitted.encoding, decision, reference, card)

    evaluated = finish(model, rows["train"], matrices["train"])
    if not params.model.refit:
        return evaluated
    everything = concatenate(*(rows[part] for part in PARTS))
    log.info("refitting on all %d rows", len(everything))
    encoded = fit_encoding(
        everything.columns, everything.target, schema, params.encoding, params.seed, in_order=in_order
    )
    serving = finish(fit(encoded, everything, schema, params.model, params.seed), everything, encoded.matrix)
    return Parts(
        serving.name,
        serving.runtime,
        serving.model,
        serving.schema,
        serving.encoding,
        serving.decision,
        serving.reference,
        serving.card,
        evaluated=evaluated,
    )


def main() -> int:
    log = stage_logger("model_building")
    try:
        version = write_bundle(TRAINED, build(load_params(), log))
    except (ParamsError, FileNotFoundError) as error:
        print(f"model_building: {error}", file=sys.stderr)
        return 1
    log.info("bundle %s", version[:12])
    return 0


if __name__ == "__main__":
    sys.exit(main())
