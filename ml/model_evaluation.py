"""Stage 5: metrics, slices and plots on the test rows, of a model fitted without them; completes the candidate."""

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ml.bundle import BundleError, Parts, bundle_of, read_parts, write_bundle
from ml.card import Card, DataFacts, Figure
from ml.contract import Report
from ml.evaluation import (
    confusion,
    curves,
    doubt,
    evaluate,
    importance,
    no_gain,
    predict,
    slices,
    support,
    without_live,
)
from ml.files import CANDIDATE, CONTRACT_REPORT, METRICS_FILE, PLOTS, SUMMARY, TRAINED
from ml.logs import stage_logger
from ml.metrics import METRICS
from ml.params import Params, ParamsError, load_params
from ml.rows import PARTS, Summary, read_rows, read_target
from ml.schema import Schema, SchemaError


def complete_card(parts: Parts, params: Params, report: Report, summary: Summary) -> Card:
    """The card, completed with the results on the test rows."""
    evaluated = bundle_of("", parts.evaluated or parts)
    schema = parts.schema
    predicted = evaluate(evaluated, read_rows("test", schema, params), params.evaluation, params.seed)
    metrics = METRICS[schema.task]
    targets = {part: read_target(part, schema) for part in PARTS}
    counted = {part: support(target, schema) for part, target in targets.items()}
    others = np.concatenate([target for part, target in targets.items() if part != "test"])
    blind: dict[str, Figure] = {}
    if any(feature.live for feature in schema.features):
        scores, labels = predict(evaluated, without_live(predicted.rows.columns, schema))
        blind = replace(predicted, scores=scores, labels=labels).figures(metrics)
    data = DataFacts(
        source=params.data.source,
        horizon=schema.horizon,
        rows=summary.rows,
        borders=summary.borders,
        rows_in_source=report.rows,
        set_aside=report.set_aside,
        set_aside_by={f"{breach.column}: {breach.rule}": breach.rows for breach in report.breaches},
        without_target=summary.without_target,
        columns_left_out=summary.dropped_columns,
        assumed=(*report.assumed, *summary.remarks.assumed),
        warnings=summary.remarks.warnings,
    )
    return parts.card.model_copy(
        update={
            "data": data,
            "metrics": predicted.figures(metrics),
            "without_live": blind,
            "support": counted,
            "doubts": tuple(
                filter(None, [doubt(counted["test"], params.evaluation), no_gain(predicted, others, schema)])
            ),
            "slices": slices(evaluated, predicted, params.evaluation),
            "importance": importance(evaluated, predicted, params.evaluation, params.seed),
            "curves": {name: tuple(points) for name, points in curves(schema, predicted).items()},
            "confusion": confusion(schema, predicted),
        }
    )


def write_reports(card: Card, schema: Schema) -> None:
    """Write reports/metrics.json, and a CSV file per plot in reports/plots/."""
    METRICS_FILE.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "horizon": schema.horizon,
        "test": {name: _rounded(figure) for name, figure in card.metrics.items()},
        "test_without_live": {name: _rounded(figure) for name, figure in card.without_live.items()},
        **({"doubts": list(card.doubts)} if card.doubts else {}),
    }
    METRICS_FILE.write_text(json.dumps(document, indent=1) + "\n")
    PLOTS.mkdir(parents=True, exist_ok=True)
    axes = {
        "roc": ("false_positive_rate", "true_positive_rate"),
        "precision_recall": ("recall", "precision"),
        "calibration": ("predicted", "observed"),
        "residuals": ("predicted", "residual"),
    }
    for name, points in card.curves.items():
        _write_csv(PLOTS / f"{name}.csv", axes[name], points)
    _write_csv(PLOTS / "importance.csv", ("feature", "loss"), [(k, round(v, 6)) for k, v in card.importance.items()])
    if card.confusion:
        cells = [
            (schema.classes[actual], schema.classes[answer])
            for actual, row in enumerate(card.confusion)
            for answer, count in enumerate(row)
            for _ in range(count)
        ]
        _write_csv(PLOTS / "confusion.csv", ("actual", "predicted"), cells)


def _rounded(figure: Figure) -> Mapping[str, float | None]:
    # Five digits: the sixth digit is much smaller than the intervals, and may depend on the processor.
    return {key: None if value is None else round(value, 5) for key, value in figure.model_dump().items()}


def _write_csv(path: Path, header: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def main() -> int:
    log = stage_logger("model_evaluation")
    try:
        params = load_params()
        _, parts = read_parts(TRAINED)
        report = Report.model_validate_json(CONTRACT_REPORT.read_bytes())
        summary = Summary.model_validate_json(SUMMARY.read_bytes())
        card = complete_card(parts, params, report, summary)
    except (ParamsError, SchemaError, BundleError, FileNotFoundError) as error:
        print(f"model_evaluation: {error}", file=sys.stderr)
        return 1
    write_reports(card, parts.schema)
    version = write_bundle(CANDIDATE, replace(parts, card=card))
    for name, figure in card.metrics.items():
        log.info(
            "%s %.4f (%s to %s)",
            name,
            figure.value,
            figure.low and f"{figure.low:.4f}",
            figure.high and f"{figure.high:.4f}",
        )
    for doubtful in card.doubts:
        log.warning("%s", doubtful)
    log.info("candidate %s", version[:12])
    return 0


if __name__ == "__main__":
    sys.exit(main())
