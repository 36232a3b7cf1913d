"""Learns from a column what a feature or the target is: its type, range and categories, how its times are written."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml.data_params import DataParams, FeatureParams
from ml.inference import infer
from ml.params import Params
from ml.schema import Feature, Label, SchemaError
from ml.sources.flight_columns import DESCRIPTIONS
from ml.tables import cast_column, forms_of, is_missing, learn_times, merged_spellings, moments_of
from ml.values import clean, iso, spell


def learn(
    column: "pd.Series[Any]", training: NDArray[np.bool_], declared: FeatureParams, name: str, params: Params
) -> Feature:
    """The feature as declared, with inferred type if it isn't declared, and with fields learnt from training rows."""
    data = params.data
    spellings = frozenset(map(clean, (*data.missing, *declared.missing)))
    column = column.mask(is_missing(column, spellings))
    dated = name == data.time or any(part is not None for part in (declared.format, declared.timezone))
    kind = declared.type or ("datetime" if dated else infer(column[training]))
    described = declared.description or (DESCRIPTIONS.get(name, "") if data.source == "flights" else "")
    given = declared.model_dump(exclude={"type", "description", "format", "timezone"})
    base = Feature(name=name, type=kind, **given, description=described)
    if kind == "datetime":
        found = learn_times(column, name, *data.times(name))
        base = base.model_copy(update={"format": found.format, "timezone": found.timezone, "utc": found.utc})
    # All rows are converted, so that errors are found here and not in later stages.
    converted = cast_column(column, base)[training]
    lacking = bool(column[training].isna().any()) or (declared.live and params.encoding.live_dropout > 0)
    learnt: dict[str, object] = {"complete": not lacking}
    if kind in ("numeric", "categorical"):
        learnt["forms"] = forms_of(column[training])
    if kind in ("categorical", "text"):
        counts = pd.Series(converted).value_counts()
        if kind == "categorical":
            # Most frequent first; equal counts in alphabetical order, so that all runs give the same order.
            learnt["categories"] = tuple(
                counts.reset_index().sort_values(["count", "index"], ascending=[False, True])["index"]
            )
        learnt["example"] = None if counts.empty else str(sorted(counts[counts == counts.max()].index)[0])
    else:
        numbers = converted[~np.isnan(converted)]
        if len(numbers):
            middle = float(np.sort(numbers)[len(numbers) // 2])
            if kind == "boolean":
                learnt["example"] = bool(middle)
            else:
                learnt |= {"low": float(numbers.min()), "high": float(numbers.max())}
                learnt["example"] = middle if kind == "numeric" else iso(middle, utc=base.utc)
            if kind == "numeric":
                learnt["integer"] = bool((numbers % 1 == 0).all())
    return base.model_copy(update=learnt)


def readings(column: "pd.Series[Any]", feature: Feature, declared: FeatureParams | None) -> list[str]:
    """How times are read, and which texts of categories differ only in blanks or Unicode form."""
    found = []
    if feature.format is not None and (declared is None or declared.format is None):
        found.append(
            f"column {feature.name!r} has times of the form {feature.format} (data.features.{feature.name}.format)"
        )
    if feature.timezone == "UTC" and feature.utc and (declared is None or declared.timezone is None):
        found.append(
            f"column {feature.name!r} has times with and without an offset from UTC, and those without it count as UTC "
            f"(data.features.{feature.name}.timezone)"
        )
    whole = feature.type == "numeric" and column.dtype.kind in "iu"
    if whole and (lost := column.nunique() - column.astype(float).nunique()):
        found.append(
            f"column {feature.name!r} has whole numbers above 2^53; {lost} different ones count as equal, because "
            f"the model gets float64 (data.features.{feature.name}.type: categorical keeps them apart)"
        )
    if feature.type == "categorical":
        found += merged(column, f"column {feature.name!r}", ("category", "categories"))
    return found


def merged(column: "pd.Series[Any]", subject: str, nouns: tuple[str, str]) -> list[str]:
    """Says which texts differ only in blanks or Unicode form. `nouns`: what they are, in singular and plural."""
    found = merged_spellings(column)
    if not found:
        return []
    text, written = next(iter(found.items()))
    return [
        f"{subject} has {len(found)} {nouns[len(found) > 1]} written in several ways that differ in blanks or Unicode "
        f"form and count as the same: {text!r} from {', '.join(map(ascii, written))}{' …' if len(found) > 1 else ''}"
    ]


def read_target(column: "pd.Series[Any]", data: DataParams) -> tuple["pd.Series[Any]", tuple[str, ...]]:
    """The target as class labels (text) or numbers, and the classes; the negative class is first."""
    if data.task == "regression":
        numbers = cast_column(column, Feature(name=data.target, type="numeric"))
        return pd.Series(numbers, index=column.index, dtype=float), ()
    spelled = cast_column(column, Feature(name=data.target, type="categorical"))
    labels = pd.Series(spelled, index=column.index, name=data.target, dtype=object)
    classes = sorted(set(labels))
    if data.task == "binary":
        if len(classes) != 2:
            raise SchemaError(
                f"data.task: binary needs two values in {data.target!r}, there are {len(classes)}: "
                f"{', '.join(classes[:5])}{'…' if len(classes) > 5 else ''}"
            )
        positive = classes[1] if data.positive is None else spell(data.positive)
        if positive not in classes:
            raise SchemaError(
                f"data.positive: {positive!r} is not a value of {data.target!r}; its values are {', '.join(classes)}"
            )
        classes.sort(key=lambda label: label == positive)
    elif len(classes) < 3:
        raise SchemaError(f"data.task: multiclass needs three values or more in {data.target!r}; use binary")
    return labels, tuple(classes)


def read_time_column(column: "pd.Series[Any]", data: DataParams) -> "pd.Series[Any]":
    """The column `data.time` as timestamps: with the zone UTC if its times have offsets and no zone is declared.

    Raises SchemaError naming the first row without a time, or the param when the times are ambiguous.
    """
    name = str(data.time)
    times = moments_of(column, learn_times(column, name, *data.times(name)))
    if times.isna().any():
        row = int(np.flatnonzero(times.isna())[0])
        raise SchemaError(
            f"data.time: {name!r} has no valid time in row {row}: {column.iloc[row]!r} (declare the "
            f"format with {data.format_key(name)} in params.yaml, or correct the data)"
        )
    return times


def label_kind(column: "pd.Series[Any]") -> Label:
    """What the labels of a target are in JSON: a whole number is one if the file has it without decimals.

    pandas reads whole numbers as floats if some rows have none.
    """
    present = column.dropna()
    if pd.api.types.is_bool_dtype(present.infer_objects().dtype):
        return "boolean"
    if not pd.api.types.is_numeric_dtype(column.dtype):
        return "text"
    whole = bool(((present % 1 == 0) & (present.abs() < 2**63)).all())
    return "integer" if whole and (column.isna().any() or not pd.api.types.is_float_dtype(column.dtype)) else "number"
