"""Keeps apart in float32, in which models compute, the numbers that training can tell apart in float64."""

import numpy as np
from numpy.typing import NDArray

from ml.encoding import NumericEncoder
from ml.schema import Columns

CUTS = 1024
"""Quantiles of a column that must stay different: four times the bins of boosted trees."""
LOST = 0.05
"""Share of the different numbers that may be merged: nearly equal numbers of a dense column."""
NOISE = 1e-10
"""Fractions that differ by less than this share of the column's range are the same number with another rounding."""
LARGEST = float(np.finfo(np.float32).max)


def numeric_encoder(name: str, numbers: NDArray[np.float64]) -> NumericEncoder:
    """The encoder of a column of numbers: the plain number where float32 is enough.

    Otherwise its distance from the median, or, if that merges numbers too (a large range with dense places), its place
    among the column's quantiles.
    """
    plain = NumericEncoder(column=name)
    ordered = np.sort(numbers[~np.isnan(numbers)])
    if keeps_apart(plain, ordered):
        return plain
    cuts = _cuts(ordered)
    median = float(cuts[len(cuts) // 2])
    with np.errstate(over="ignore"):
        farthest = float(np.abs(ordered[[0, -1]] - median).max())
    if np.isfinite(farthest):
        moved = NumericEncoder(column=name, shift=median, scale=1.0 if farthest < LARGEST else farthest)
        if keeps_apart(moved, ordered):
            return moved
    return NumericEncoder(column=name, knots=tuple(map(float, cuts)))


def keeps_apart(encoder: NumericEncoder, ordered: NDArray[np.float64]) -> bool:
    """Whether float32 keeps the quantiles of these sorted numbers apart, and all but few of the different numbers."""
    encoded = _float32(encoder, ordered)
    if not np.isfinite(encoded).all():
        return False
    if len(encoded) < 2 or (encoded == ordered).all():
        return True
    quantiles = _float32(encoder, _cuts(ordered))
    return bool((np.diff(quantiles) > 0).all()) and merged(encoder, ordered) <= LOST * len(_different(ordered))


def merged(encoder: NumericEncoder, ordered: NDArray[np.float64]) -> int:
    """How many different numbers of these sorted numbers become equal to another in float32."""
    return int(np.count_nonzero(np.diff(_float32(encoder, _different(ordered))) == 0))


def _different(ordered: NDArray[np.float64]) -> NDArray[np.float64]:
    """The different numbers; those that differ only by the rounding of float64, as 0.3 and 0.1 + 0.2, are the same."""
    found = np.unique(ordered)
    if len(found) < 2:
        return found
    with np.errstate(over="ignore"):
        apart = np.diff(found) > NOISE * found[-1] - NOISE * found[0]
    whole = (found == np.round(found)) & (np.abs(found) <= 2**53)
    return found[np.concatenate([[True], apart | (whole[1:] & whole[:-1])])]


def _cuts(ordered: NDArray[np.float64]) -> NDArray[np.float64]:
    return _different(ordered[np.linspace(0, len(ordered) - 1, CUTS).round().astype(np.int64)])


def _float32(encoder: NumericEncoder, numbers: NDArray[np.float64]) -> NDArray[np.float32]:
    columns: Columns = {encoder.column: numbers}
    with np.errstate(over="ignore"):
        return encoder.transform(columns)[:, 0].astype(np.float32)
