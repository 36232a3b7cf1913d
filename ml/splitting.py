"""Splits the rows into the parts for training, validation and test."""

import math
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml.folds import deal_groups
from ml.params import SplitParams
from ml.rows import PARTS
from ml.schema import SchemaError


def split(
    params: SplitParams,
    target: "pd.Series[Any]",
    times: "pd.Series[Any] | None",
    seed: int,
    groups: "pd.Series[Any] | None" = None,
) -> NDArray[np.object_]:
    """The part of each row: `train`, `validation` or `test`; object array of shape (n,).

    Rows of the same group are in the same part. Raises SchemaError naming the first row without a group.
    """
    rows = len(target)
    part = np.full(rows, "train", dtype=object)
    if isinstance(params.validation, date) and isinstance(params.test, date) and times is not None:
        part[(times >= pd.Timestamp(params.validation)).to_numpy()] = "validation"
        part[(times >= pd.Timestamp(params.test)).to_numpy()] = "test"
        return part
    shares = (float(str(params.validation)), float(str(params.test)))
    if groups is not None:
        if groups.isna().any():
            row = int(np.flatnonzero(groups.isna())[0])
            raise SchemaError(f"split.group: {groups.name!r} has no value in row {row}, so the row is of no group")
        labels = target.to_numpy() if params.method == "stratified" else None
        wanted = np.array([1 - sum(shares), *shares])
        return np.asarray(PARTS, dtype=object)[deal_groups(groups.to_numpy(), labels, wanted, seed)]
    if params.method == "time" and times is not None:
        blocks = [np.argsort(times.to_numpy(), kind="stable")]
    else:
        shuffled = np.random.default_rng(seed).permutation(rows)
        labels = target.to_numpy()[shuffled]
        blocks = (
            [shuffled[labels == label] for label in sorted(set(labels))]
            if params.method == "stratified"
            else [shuffled]
        )
    for block in blocks:
        # At least one row stays for training, then one for the test, because a class may have very few rows.
        test_from = max(1, len(block) - math.ceil(shares[1] * len(block)))
        validation_from = max(1, test_from - math.ceil(shares[0] * len(block)))
        part[block[validation_from:test_from]] = "validation"
        part[block[test_from:]] = "test"
    return part


def read_weights(column: "pd.Series[Any]") -> NDArray[np.float64]:
    """`data.weight` as numbers. Raises SchemaError naming the first row whose weight isn't a number above 0."""
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    wrong = ~(np.isfinite(numbers) & (numbers > 0))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise SchemaError(
            f"data.weight: {column.name!r} needs a number above 0 in every row, but row {row} has {column.iloc[row]}"
        )
    return numbers
