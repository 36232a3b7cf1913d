"""Stage 4: fit, choose the calibration and the threshold, refit on all rows, compile."""

import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ml.bundle import Parts, write_bundle
from ml.calibration import CalibrationChoice, HeldOut, choose_calibration, choose_threshold
from ml.card import AutomaticChoice, Card, ModelFacts
from ml.choosing import choose, standardised
from ml.compilation import compile_estimator, parity_unit
from ml.decision import Decision, NoCalibration, TargetTransform
from ml.encoding import Encoding
from ml.encoding_fitting import Encoded, fit_encoding
from ml.estimators import Model, fit
from ml.features.declared import views_of
from ml.files import ENCODING, FEATURES, SCHEMA, TRAINED
from ml.folds import make_folds
from ml.judging import encode_fold
from ml.logs import stage_logger
from ml.model_params import ModelParams
from ml.params import Params, ParamsError, load_params
from ml.reference import describe_rows
from ml.rows import PARTS, Part, Rows, concatenate, read_rows
from ml.schema import Schema, SchemaError

PARITY_ROWS = 5000


@dataclass(frozen=True, slots=True)
class Learnt:
    """A model that never saw the test rows, and what it takes to fit it again."""

    rows: Rows
    encoded: Encoded
    model: Model
    settings: ModelParams
    """With the estimators, also if they were chosen automatically."""
    transform: TargetTransform
    held_out: list[HeldOut]
    """Raw scores and target of rows that the model that predicted them had not seen; none for a regression."""
    automatic: AutomaticChoice | None


def build(params: Params, log: logging.Logger) -> Parts:
    """The whole stage: from the files of the earlier stages to the parts of a bundle."""
    schema = Schema.model_validate_json(SCHEMA.read_bytes())
    rows = {part: read_rows(part, schema, params) for part in PARTS}
    learn = learn_automatically if params.model.estimators is None else learn_as_named
    learnt = learn(rows, schema, params, log)
    settings = learnt.settings
    choice = calibrate(learnt, schema, params, log)
    decision = Decision(
        calibration=choice.calibration,
        target=learnt.transform,
        threshold=find_threshold(learnt, choice, log) if schema.task == "binary" else None,
    )
    facts = ModelFacts(
        estimators={name: each.model_dump(mode="json") for name, each in (settings.estimators or {}).items()},
        automatic=learnt.automatic,
        target=learnt.transform.kind,
        calibration=choice.calibration.method,
        calibration_log_loss=choice.log_loss,
        calibration_excluded=choice.excluded,
        threshold_maximizes=settings.threshold.maximize if schema.task == "binary" else None,
        refitted=settings.refit,
    )

    views = views_of(params.data)

    def finish(model: Model, of: Rows, matrix: NDArray[np.float32]) -> Parts:
        step = max(1, len(matrix) // PARITY_ROWS)
        sample = np.vstack([matrix[::step], np.full((1, matrix.shape[1]), np.nan, dtype=np.float32)])
        unit = parity_unit(learnt.transform.apply(of.target), schema)
        runtime, code, parity = compile_estimator(model, schema, sample, unit, settings.parity_tolerance, log)
        log.info(
            "runtime %s, %.1f MB, parity %s", runtime, len(code) / 1e6, parity and f"{parity.largest_difference:.2g}"
        )
        reference = describe_rows(of, schema, decision.scores(model.scores(matrix, schema)), params.seed)
        card = Card(name=settings.name, task=schema.task, target=schema.target, model=facts, parity=parity)
        return Parts(settings.name, runtime, code, schema, model.encoding, decision, reference, card, views)

    evaluated = finish(learnt.model, learnt.rows, learnt.encoded.matrix)
    if not settings.refit:
        return evaluated
    everything = concatenate(*(rows[part] for part in PARTS))
    log.info("refitting on all %d rows", len(everything))
    encoded = fit_encoding(everything, schema, params)
    refitted = fit(encoded, everything, schema, settings, params.seed, learnt.transform)
    return replace(finish(refitted, everything, encoded.matrix), evaluated=evaluated)


def learn_as_named(rows: Mapping[Part, Rows], schema: Schema, params: Params, log: logging.Logger) -> Learnt:
    """The estimators that params.yaml names, fitted on the training rows."""
    encoding, train = Encoding.model_validate_json(ENCODING.read_bytes()), rows["train"]
    encoded = Encoded(encoding, np.load(FEATURES / "train.npz")["matrix"])
    shifted = not any(each.needs_positive for each in (params.model.estimators or {}).values())
    transform = standardised(train.target, schema, params.model.target or "identity", shifted=shifted)
    log.info("fitting on %d training rows", len(train))
    model = fit(encoded, train, schema, params.model, params.seed, transform)
    held_out: list[HeldOut] = []
    if schema.task != "regression":
        if set(params.model.calibration) - {"none"}:
            held_out = predict_folds(train, schema, params, log)
        # The last fold is the validation part. The model hasn't seen it, so this fold needs no further fit.
        scores = model.scores(np.load(FEATURES / "validation.npz")["matrix"], schema)
        held_out.append((scores, rows["validation"].target))
    return Learnt(train, encoded, model, params.model, transform, held_out, None)


def learn_automatically(rows: Mapping[Part, Rows], schema: Schema, params: Params, log: logging.Logger) -> Learnt:
    """The estimators that do best on folds of the training and validation rows, fitted on all of these rows.

    Held-out rows of the folds do what the validation part does otherwise, so that no row is spared from learning.
    """
    learnt = concatenate(rows["train"], rows["validation"])
    chosen = choose(learnt, schema, params, log)
    settings = params.model.model_copy(update={"estimators": chosen.estimators})
    log.info("fitting on %d training and validation rows", len(learnt))
    encoded = fit_encoding(learnt, schema, params)
    model = fit(encoded, learnt, schema, settings, params.seed, chosen.target)
    return Learnt(learnt, encoded, model, settings, chosen.target, chosen.held_out, chosen.facts)


def calibrate(learnt: Learnt, schema: Schema, params: Params, log: logging.Logger) -> CalibrationChoice:
    """The calibration that is best on the held-out rows; none for a regression."""
    methods = learnt.settings.calibration
    if schema.task == "multiclass" and set(methods) & {"sigmoid", "isotonic"}:
        methods = ("none", "temperature")  # the other methods are only for two classes
    if schema.task == "regression" or not set(methods) - {"none"} or not learnt.held_out:
        return CalibrationChoice(NoCalibration(), {}, {})
    choice = choose_calibration(learnt.held_out, methods, in_order=params.split.method == "time")
    log.info("calibration: %s (log-loss %s)", choice.calibration.method, choice.log_loss)
    for method, why in choice.excluded.items():
        log.warning("calibration: %s can't be chosen: %s", method, why)
    return choice


def find_threshold(learnt: Learnt, choice: CalibrationChoice, log: logging.Logger) -> float:
    """The best threshold on the validation rows or, if they were learnt from, on the held-out rows of all folds."""
    judged = learnt.held_out if learnt.automatic else learnt.held_out[-1:]
    if not judged:
        return 0.5
    probability = np.concatenate([choice.calibration.apply(scores)[:, 1] for scores, _ in judged])
    happened = np.concatenate([target for _, target in judged])
    threshold = choose_threshold(probability, happened, learnt.settings.threshold)
    log.info("threshold %.4f maximises %s on held-out rows", threshold, learnt.settings.threshold.maximize)
    return threshold


def predict_folds(rows: Rows, schema: Schema, params: Params, log: logging.Logger) -> list[HeldOut]:
    """Scores and target of each fold of the training rows, predicted by a model that never saw the fold."""
    split, classes = params.split, None if schema.task == "regression" else rows.target
    folds = params.model.calibration_folds - (split.method == "time")
    held_out = []
    for number, (learn, predict) in enumerate(make_folds(split, len(rows), folds, params.seed, classes, rows.groups)):
        log.info("calibration fold %d: %d rows predict %d", number + 1, len(learn), len(predict))
        fold = encode_fold(rows, learn, predict, schema, params)
        if fold is None:
            log.warning("calibration fold %d is left out: all its training rows are of one class", number + 1)
            continue
        model = fit(fold.learn, fold.learn_rows, schema, params.model, params.seed)
        held_out.append((model.scores(fold.matrix, schema), fold.rows.target))
    return held_out


def main() -> int:
    log = stage_logger("model_building")
    try:
        version = write_bundle(TRAINED, build(load_params(), log))
    except (ParamsError, SchemaError, FileNotFoundError) as error:
        print(f"model_building: {error}", file=sys.stderr)
        return 1
    log.info("bundle %s", version[:12])
    return 0


if __name__ == "__main__":
    sys.exit(main())
