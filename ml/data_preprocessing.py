"""Stage 2: drop rows without a target, convert every column to its type, learn the schema, split."""

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml.data_params import DataParams, FeatureParams
from ml.files import DATA_WARNINGS, PROCESSED, SCHEMA, SUMMARY, TABLE
from ml.inference import (
    ID_ROWS,
    category_marks,
    identifies_rows,
    infer,
    numbers_the_rows,
    resembles_numbers_of_accounts,
    target_marks,
    without_words,
)
from ml.leaks import find_leaks
from ml.learning import label_kind, learn, merged, read_target, read_time_column, readings
from ml.logs import stage_logger
from ml.params import Params, ParamsError, load_params
from ml.rows import PARTS, Part, Remarks, Summary, target_of
from ml.schema import Feature, Schema, SchemaError
from ml.splitting import read_weights, split
from ml.tables import holds_many, read_parquet, to_columns, write_parquet

ROW_NAME = (
    "is left out: it names the rows, another whole number in each; "
    "declare it in data.features to keep it, or as data.id"
)
"""Why a column isn't a feature that nobody has named as the row's name."""


@dataclass(frozen=True, slots=True)
class Processed:
    """The typed table, split into parts, with its schema."""

    parts: dict[Part, pd.DataFrame]
    schema: Schema
    summary: Summary


def preprocess(raw: pd.DataFrame, params: Params) -> Processed:
    """Rows with a known target, typed and split; the schema's learnt fields come only from the training rows.

    Raises SchemaError naming the column, the value and its first row when a column or the target is unusable.
    """
    data = params.data
    if data.target not in raw:
        raise SchemaError(f"the target {data.target!r} is not a column; the table has {', '.join(raw.columns)}")
    if missing := sorted(set(data.features) - set(raw.columns)):
        raise SchemaError(f"params.yaml declares {', '.join(map(repr, missing))}, but the table has no such column")
    assumed: list[str] = []
    warnings: list[str] = []
    raw, words = without_words(raw, data, assumed)
    known = raw[raw[data.target].notna()].reset_index(drop=True)
    if known.empty:
        raise SchemaError(f"no row has a value for the target {data.target!r}")
    target, classes = read_target(known[data.target], data)
    moments = None if data.time is None else read_time_column(known[data.time], data)
    times = None if moments is None else moments.dt.tz_localize(None)
    part = split(params.split, target, times, params.seed, _column(known, params.split.group, "split.group"))
    _check_split(part, target, classes)
    training = part == "train"
    features: list[Feature] = []
    dropped: dict[str, str] = {}
    for name in map(str, known.columns):
        declared = data.features.get(name)
        why = _why_left_out(name, known[name][training], raw[name], declared, params)
        if why:
            dropped[name] = why
        elif name != data.target:
            stated = declared or FeatureParams()
            stated = stated.model_copy(update={"missing": (*stated.missing, *words.get(name, ()))})
            features.append(learn(known[name], training, stated, name, params))
            warnings += _doubts(raw[name], features[-1], declared, data)
            assumed += readings(known[name], features[-1], declared) + category_marks(known[name], features[-1])
        elif classes:
            assumed += merged(known[name], f"the target {name!r}", ("class", "classes"))
            assumed += target_marks(known[name], name) if declared is None else []
    if not features:
        raise SchemaError("no column is left as a feature: check data.exclude and data.declared_only in params.yaml")
    horizon = None if data.horizon is None else _spell(data.horizon.total_seconds())
    schema = Schema(
        target=data.target,
        task=data.task,
        classes=classes,
        features=tuple(features),
        labels=label_kind(raw[data.target]) if classes else "text",
        missing=data.missing,
        horizon=horizon,
    )
    table = known[[feature.name for feature in features]].copy()
    table[data.target] = target
    examined = table[training].reset_index(drop=True)
    leaks = find_leaks(to_columns(examined, schema), target_of(examined, schema), schema, params.seed)
    warnings += [
        f"feature {name!r} alone predicts the target {data.target!r} almost perfectly ({figure:.3f}): if it is known "
        "only together with the target, put it into data.exclude"
        for name, figure in leaks.items()
    ]
    warnings += [f"column {name!r} {why}" for name, why in dropped.items() if why == ROW_NAME]
    table = _with_extras(table, known, moments, params)
    parts: dict[Part, pd.DataFrame] = {}
    for name in PARTS:
        chosen = np.flatnonzero(part == name)
        if times is not None:
            chosen = chosen[np.argsort(times.to_numpy()[chosen], kind="stable")]
        parts[name] = table.iloc[chosen].reset_index(drop=True)
    summary = Summary(
        rows={name: len(rows) for name, rows in parts.items()},
        borders={}
        if times is None
        else {name: (times[part == name].min().isoformat(), times[part == name].max().isoformat()) for name in PARTS},
        without_target=len(raw) - len(known),
        dropped_columns=dropped,
        remarks=Remarks(assumed=tuple(assumed), warnings=tuple(warnings)),
    )
    return Processed(parts, schema, summary)


def _doubts(column: "pd.Series[Any]", feature: Feature, declared: FeatureParams | None, data: DataParams) -> list[str]:
    """Why a feature that stays may be none."""
    if declared is not None or feature.name == data.time:
        return []
    if numbers_the_rows(column, feature.name):
        what = "numbers the rows of the table in their order"
    elif resembles_numbers_of_accounts(column, feature.name):
        what = "has another whole number in each row, as numbers of accounts are"
    else:
        return []
    return [f"feature {feature.name!r} {what}: if it is no property of a row, name it in data.id or data.exclude"]


def _column(table: pd.DataFrame, name: str | None, key: str) -> "pd.Series[Any] | None":
    """The column that params.yaml names; None if it names none."""
    if name is not None and name not in table:
        raise SchemaError(f"{key}: {name!r} is not a column; the table has {', '.join(map(str, table.columns))}")
    return None if name is None else table[name]


def _with_extras(
    table: pd.DataFrame, known: pd.DataFrame, moments: "pd.Series[Any] | None", params: Params
) -> pd.DataFrame:
    """The table, with the columns that are needed besides features and target."""
    extras: dict[str, Any] = {name: known[name] for name in (params.data.id, params.split.group) if name is not None}
    if params.data.time is not None:
        extras[params.data.time] = moments
    if (weights := _column(known, params.data.weight, "data.weight")) is not None:
        extras[str(weights.name)] = read_weights(weights)
    return table.assign(**extras)


def _why_left_out(
    name: str,
    training: "pd.Series[Any]",
    column: "pd.Series[Any]",
    declared: FeatureParams | None,
    params: Params,
) -> str | None:
    """Why a column isn't a feature; None if it is a feature or the target. `column`: all of its rows."""
    data = params.data
    if name == data.weight:
        return "is the weight of the row"
    if name == params.split.group and declared is None:
        return "is the group of the row; declare it in data.features if it is a feature too"
    if name == data.target:
        return None
    if name == data.id:
        return "names the row"
    if name in data.exclude:
        return "excluded in params.yaml"
    if declared is not None:
        return None
    if data.declared_only:
        return "not declared in params.yaml"
    if holds_many(training).any():
        return "holds lists or bytes, not single values"
    if pd.api.types.is_timedelta64_dtype(training.dtype):
        return "holds durations; as numbers in a unit of your choice they would do"
    present = training.dropna()
    if present.empty:
        return "no training row has a value"
    different = present.nunique()
    if different == 1 and len(present) == len(training):
        return "the same in every training row"
    if name != data.time and different == len(present) >= ID_ROWS and infer(present) == "categorical":
        return "never the same in two training rows, as names of rows are"
    return ROW_NAME if name != data.time and identifies_rows(column, name) else None


def _check_split(part: NDArray[np.object_], target: "pd.Series[Any]", classes: tuple[str, ...]) -> None:
    for name in PARTS:
        if not (part == name).any():
            raise SchemaError(f"the split leaves no row for {name}: change split in params.yaml")
    if unseen := sorted(set(classes) - set(target[part == "train"])):
        raise SchemaError(
            f"no training row has {target.name} = {', '.join(map(repr, unseen))}, so it can't be learnt: change split "
            "in params.yaml (method: stratified keeps every class), or leave those rows out of the table"
        )


def _spell(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds % length == 0:
            return f"{seconds / length:g}{unit}"
    return f"{seconds:g}s"


def main() -> int:
    log = stage_logger("data_preprocessing")
    try:
        params = load_params()
        processed = preprocess(read_parquet(TABLE), params)
    except (ParamsError, SchemaError, FileNotFoundError) as error:
        print(f"data_preprocessing: {error}", file=sys.stderr)
        return 1
    for name, rows in processed.parts.items():
        write_parquet(rows, PROCESSED / f"{name}.parquet")
    SCHEMA.write_text(processed.schema.model_dump_json(indent=1) + "\n")
    SUMMARY.write_text(processed.summary.model_dump_json(indent=1) + "\n")
    remarks = processed.summary.remarks
    DATA_WARNINGS.parent.mkdir(parents=True, exist_ok=True)
    DATA_WARNINGS.write_text(remarks.model_dump_json(indent=1) + "\n")
    for sentence in remarks.assumed:
        log.warning("assumed: %s", sentence)
    for sentence in remarks.warnings:
        log.warning("warning: %s", sentence)
    log.info("%s; %d rows without a target dropped", processed.summary.rows, processed.summary.without_target)
    for column, why in processed.summary.dropped_columns.items():
        log.info("column %s is not a feature: %s", column, why)
    return 0


if __name__ == "__main__":
    sys.exit(main())
