"""The reference for the drift monitor: the distributions of a model's training rows, and a sample of these rows."""

from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml.card import Distribution, Reference
from ml.rows import Rows
from ml.runtime import Scores
from ml.schema import Feature, Schema
from ml.values import iso

SAMPLE_ROWS = 200
TOP_CATEGORIES = 50


def describe_rows(rows: Rows, schema: Schema, scores: Scores, seed: int) -> Reference:
    """The training distributions and a sample, for the drift monitor."""
    chosen = np.sort(np.random.default_rng(seed).permutation(len(rows))[:SAMPLE_ROWS])
    latest = None
    if rows.seconds is not None:
        latest = iso(float(rows.seconds.max()))
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
    """A typed value in the format of a request."""
    if value is None or value != value:  # noqa: PLR0124 - NaN
        return None
    match feature.type:
        case "numeric":
            return int(value) if feature.integer and float(value).is_integer() else float(value)
        case "boolean":
            return bool(value)
        case "datetime":
            return iso(float(value), utc=feature.utc)
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
