"""Learns the encoding of columns as numbers from training rows."""

from collections import Counter
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ml.encoding import (
    BendEncoder,
    DatetimeEncoder,
    DatetimePart,
    Encoder,
    Encoding,
    LookupEncoder,
    NumericEncoder,
    OneHotEncoder,
    OrdinalEncoder,
    keys,
)
from ml.folds import deal
from ml.params import EncodingParams, Params, ParamsError
from ml.precision import numeric_encoder
from ml.rows import Rows
from ml.schema import Columns, Feature, Schema
from ml.text_fitting import fit_text

SEASONS = 1.5 * 365.25 * 86400
"""Seconds from which on a season can be told from a trend."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """An encoding, and its encoded training rows."""

    encoding: Encoding
    matrix: NDArray[np.float32]
    """Shape (n, k). Target encodings are out of fold here: a row's encoding doesn't use its own target."""


def fit_encoding(rows: Rows, schema: Schema, settings: Params) -> Encoded:
    """Learn the encoding from these rows; its own folds, for target means, are those that the split implies.

    Raises ParamsError when params name a column that isn't a feature of the right type.
    """
    params, seed, split = settings.encoding, settings.seed, settings.split
    _check_names(schema, params)
    columns, target = _drop_live(rows.columns, schema, params.live_dropout, seed), rows.target
    encoders: list[Encoder] = []
    pieces: list[NDArray[np.float64]] = []
    classes = None if schema.task == "regression" else target
    fold = deal(split, len(target), min(params.folds, len(target)), seed, classes, rows.groups)

    def add(encoder: Encoder, piece: NDArray[np.float64] | None = None) -> None:
        encoders.append(encoder)
        pieces.append(encoder.transform(columns) if piece is None else piece)

    def add_categories(names: tuple[str, ...], kinds: tuple[str, ...]) -> None:
        values = keys(columns, names)
        for kind in kinds:
            if kind == "onehot":
                ordered = sorted(Counter(values).items(), key=lambda item: (-item[1], item[0]))
                add(OneHotEncoder(columns=names, categories=tuple(value for value, _ in ordered)))
            elif kind == "frequency":
                table = {value: (count / len(values),) for value, count in sorted(Counter(values).items())}
                add(LookupEncoder(kind="frequency", columns=names, outputs=("",), table=table, default=(0.0,)))
            else:
                add(*_target_encoder(names, values, target, schema, fold))

    for feature in schema.features:
        name = feature.name
        match feature.type:
            case "numeric":
                add(numeric_encoder(name, np.asarray(columns[name], dtype=np.float64)))
            case "boolean":
                add(NumericEncoder(column=name))
            case "datetime":
                seconds = cast(NDArray[np.float64], columns[name])
                if parts := params.datetimes.get(name, params.datetime_parts or _datetime_parts(seconds)):
                    add(DatetimeEncoder(column=name, parts=parts))
                    chosen = name not in params.datetimes and params.datetime_parts is None
                    if chosen and split.method == "time" and "epoch_days" in parts:
                        add(BendEncoder(column=name, moment=float(np.nanmedian(seconds))))
            case "text":
                if (fitted := fit_text(name, columns, target, schema, params, fold, seed)) is not None:
                    add(*fitted)
            case _ if name in params.ordinal:
                add(_ordinal_encoder(name, columns, params))
            case _:
                few = len(feature.categories) <= params.onehot_limit
                add_categories((name,), params.categories.get(name, ("onehot",) if few else ("target",)))
    for cross in params.crosses:
        add_categories(cross, ("target",))
    return Encoded(Encoding(encoders=tuple(encoders)), np.concatenate(pieces, axis=1).astype(np.float32))


def _drop_live(columns: Columns, schema: Schema, share: float, seed: int) -> Columns:
    """The columns, with all live features missing in a random share of the rows."""
    live = [feature.name for feature in schema.features if feature.live]
    if not live or not share:
        return columns
    changed = dict(columns)
    dropped = np.random.default_rng(seed).random(len(columns[live[0]])) < share
    for name in live:
        kept: NDArray[Any] = columns[name].copy()
        kept[dropped] = None if kept.dtype == object else np.nan
        changed[name] = kept
    return changed


def _target_encoder(
    names: tuple[str, ...], values: list[str], target: NDArray[np.float64], schema: Schema, fold: NDArray[np.int64]
) -> tuple[LookupEncoder, NDArray[np.float64]]:
    """Smoothed target means (scikit-learn's TargetEncoder, empirical Bayes), and the rows' out-of-fold means."""
    from sklearn.preprocessing import TargetEncoder

    splits = [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(fold.max() + 1)]
    column = np.asarray(values, dtype=object)[:, None]
    outputs = schema.classes if schema.task == "multiclass" else ("",)
    means, defaults, out_of_fold = [], [], []
    for place in range(len(outputs)):
        # Class by class: these rows may lack a class, and the encoding still has a number for it.
        wanted = (target == place).astype(np.float64) if schema.task == "multiclass" else target
        encoder = TargetEncoder(target_type="continuous", cv=splits)
        out_of_fold.append(
            encoder.fit_transform(column, wanted)[:, 0]
            if len(splits) > 1
            else encoder.fit(column, wanted).transform(column)[:, 0]
        )
        means.append(encoder.encodings_[0])
        defaults.append(float(encoder.target_mean_))
    categories = encoder.categories_[0]
    table = {str(value): tuple(map(float, row)) for value, row in zip(categories, np.stack(means, axis=1), strict=True)}
    lookup = LookupEncoder(kind="target", columns=names, outputs=outputs, table=table, default=tuple(defaults))
    return lookup, np.stack(out_of_fold, axis=1)


def _datetime_parts(seconds: NDArray[np.float64]) -> tuple[DatetimePart, ...]:
    """The parts that tell these times apart, among those that often matter."""
    known = seconds[~np.isnan(seconds)]
    parts: tuple[DatetimePart, ...] = ("epoch_days", "dayofweek", "hour")
    if len(known) and known.max() - known.min() >= SEASONS:
        parts = ("epoch_days", "month", "dayofyear_sin", "dayofyear_cos", "dayofweek", "hour")
    columns: Columns = {"t": known}
    return tuple(part for part in parts if np.ptp(DatetimeEncoder(column="t", parts=(part,)).transform(columns)) > 0)


def _ordinal_encoder(name: str, columns: Columns, params: EncodingParams) -> OrdinalEncoder:
    order = params.ordinal[name]
    for row, value in enumerate(columns[name]):
        if value is not None and value not in order:
            raise ParamsError(f"encoding.ordinal.{name} doesn't name {value!r}, which is in row {row}: {list(order)}")
    return OrdinalEncoder(column=name, order=order)


def _check_names(schema: Schema, params: EncodingParams) -> None:
    features: dict[str, Feature] = {feature.name: feature for feature in schema.features}
    wanted = [("categories", name, "categorical") for name in params.categories]
    wanted += [("ordinal", name, "categorical") for name in params.ordinal]
    wanted += [("crosses", name, "categorical") for cross in params.crosses for name in cross]
    wanted += [("datetimes", name, "datetime") for name in params.datetimes]
    for key, name, kind in wanted:
        if name not in features:
            raise ParamsError(
                f"encoding.{key} names {name!r}, which is not a feature; the features are {', '.join(features)}"
            )
        if features[name].type != kind:
            raise ParamsError(f"encoding.{key} names {name!r}, which is {features[name].type} and not {kind}")
