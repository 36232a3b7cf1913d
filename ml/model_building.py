"""Stage 4: fit, choose the calibration and the threshold, refit on all rows, compile."""

import logging
import sys
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.bundle import Parts, write_bundle
from ml.calibration import Choice, choose_calibration, choose_threshold
from ml.card import Card
from ml.compilation import compile_estimator, parity_unit
from ml.decision import Decision, NoCalibration
from ml.encoding import Encoding
from ml.encoding_fitting import Encoded, fit_encoding
from ml.estimators import Model, fit
from ml.files import ENCODING, FEATURES, SCHEMA, TRAINED
from ml.folds import make_folds
from ml.logs import stage_logger
from ml.params import Params, ParamsError, load_params
from ml.reference import describe_rows
from ml.rows import PARTS, Rows, concatenate, read_rows
from ml.runtime import Scores
from ml.schema import Schema

PARITY_ROWS = 5000


def build(params: Params, log: logging.Logger) -> Parts:
    """The whole stage: from the files of the earlier stages to the parts of a bundle."""
    schema = Schema.model_validate_json(SCHEMA.read_bytes())
    encoding = Encoding.model_validate_json(ENCODING.read_bytes())
    rows = {part: read_rows(part, schema, params) for part in PARTS}
    matrices = {part: np.load(FEATURES / f"{part}.npz")["matrix"] for part in PARTS}

    log.info("fitting on %d training rows", len(rows["train"]))
    model = fit(Encoded(encoding, matrices["train"]), rows["train"], schema, params.model, params.seed)
    validation_scores = model.scores(matrices["validation"], schema)

    choice = Choice(NoCalibration(), {}, {})
    methods = params.model.calibration
    if schema.task == "multiclass" and set(methods) & {"sigmoid", "isotonic"}:
        methods = ("none", "temperature")  # the other methods are only for two classes
    if schema.task != "regression" and set(methods) - {"none"}:
        held_out = predict_folds(rows["train"], schema, params, log)
        # The last fold is the validation part. The model above hasn't seen it, so this fold needs no further fit.
        held_out.append((validation_scores, rows["validation"].target))
        choice = choose_calibration(held_out, methods, in_order=params.split.method == "time")
        log.info("calibration: %s (log-loss %s)", choice.calibration.method, choice.log_loss)
        for method, why in choice.excluded.items():
            log.warning("calibration: %s can't be chosen: %s", method, why)

    threshold = None
    if schema.task == "binary":
        calibrated = choice.calibration.apply(validation_scores)[:, 1]
        threshold = choose_threshold(calibrated, rows["validation"].target, params.model.threshold)
        log.info("threshold %.4f maximises %s on validation rows", threshold, params.model.threshold.maximize)
    decision = Decision(calibration=choice.calibration, threshold=threshold)

    facts: dict[str, Any] = {
        "estimators": {name: each.model_dump(mode="json") for name, each in params.model.estimators.items()},
        "calibration": choice.calibration.method,
        "calibration_log_loss": choice.log_loss,
        "calibration_excluded": choice.excluded,
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
    encoded = fit_encoding(everything.columns, everything.target, schema, params.encoding, params.seed, params.split)
    serving = finish(fit(encoded, everything, schema, params.model, params.seed), everything, encoded.matrix)
    return replace(serving, evaluated=evaluated)


def predict_folds(
    rows: Rows, schema: Schema, params: Params, log: logging.Logger
) -> list[tuple[Scores, NDArray[np.float64]]]:
    """Scores and target of each fold of the training rows, predicted by a model that never saw the fold."""
    split, classes = params.split, None if schema.task == "regression" else rows.target
    folds = params.model.calibration_folds - (split.method == "time")
    held_out = []
    for number, (learn, predict) in enumerate(make_folds(split, len(rows), folds, params.seed, classes, None)):
        log.info("calibration fold %d: %d rows predict %d", number + 1, len(learn), len(predict))
        past, next_rows = rows.take(learn), rows.take(predict)
        if classes is not None and len(np.unique(past.target)) < 2:
            log.warning("calibration fold %d is left out: all its training rows are of one class", number + 1)
            continue
        encoded = fit_encoding(past.columns, past.target, schema, params.encoding, params.seed, split)
        model = fit(encoded, past, schema, params.model, params.seed)
        held_out.append((model.scores(encoded.encoding.transform(next_rows.columns), schema), next_rows.target))
    return held_out


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
