"""Rows at the edges of what a model may be asked: the compiled model must answer them as scikit-learn does, too."""

from collections.abc import Iterator
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.encoding import Encoder, Encoding, LookupEncoder, OneHotEncoder, OrdinalEncoder, TextEncoder
from ml.runtime import is_linear
from ml.schema import Columns

MOST = 4000
"""Maximum number of thresholds that get rows; of more, evenly spread ones: large forests take 0.4 ms for a row."""
LARGEST = float(np.finfo(np.float32).max)
UNSEEN = "\x00unseen"
"""A category that no training data contains."""


def edge_rows(estimator: Any, encoding: Encoding, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of `matrix`, shape (n, k), each with one column or encoder changed; shape (m, k).

    A missing value and an unseen category for each encoder; each column's smallest and largest number, and for trees as
    far again beyond them; each threshold of the trees, and the numbers of float32 next to it.
    """
    # A linear model's results, and so the errors of float32, grow without limit with the distance.
    extremes = _extremes(matrix, beyond=not is_linear(estimator))
    changes = [*_gaps(encoding), *extremes, *_neighbours(estimator, matrix.shape[1])]
    rows = matrix[np.arange(len(changes)) % len(matrix)]
    for row, (columns, numbers) in zip(rows, changes, strict=True):
        row[columns] = numbers
    return rows


Change = tuple[slice | int, Any]
"""Columns of the matrix, and what they become."""


def _gaps(encoding: Encoding) -> Iterator[Change]:
    ends = [*accumulate(len(encoder.names()) for encoder in encoding.encoders)]
    missing, unseen = [], []
    for encoder, end in zip(encoding.encoders, ends, strict=True):
        to = slice(end - len(encoder.names()), end)
        missing.append((to, encoder.transform(_column(encoder, None))[0]))
        if isinstance(encoder, OneHotEncoder | LookupEncoder | OrdinalEncoder):
            unseen.append((to, encoder.transform(_column(encoder, UNSEEN))[0]))
    yield from missing
    yield from unseen
    yield slice(None), np.concatenate([numbers for _, numbers in missing])


def _column(encoder: Encoder, value: str | None) -> Columns:
    if isinstance(encoder, OneHotEncoder | LookupEncoder):
        return {name: np.array([value], dtype=object) for name in encoder.columns}
    kind = object if isinstance(encoder, OrdinalEncoder | TextEncoder) else np.float64
    return {encoder.column: np.array([value], dtype=kind)}


def _extremes(matrix: NDArray[np.float32], *, beyond: bool) -> Iterator[Change]:
    for column in range(matrix.shape[1]):
        known = matrix[:, column].astype(np.float64)
        known = known[~np.isnan(known)]
        if len(known):
            low, high = known.min(), known.max()
            far = (2 * low - high, 2 * high - low) if beyond else ()
            yield from ((column, np.clip(number, -LARGEST, LARGEST)) for number in (low, high, *far))


def _neighbours(estimator: Any, width: int) -> Iterator[Change]:
    found = {(column, np.float32(threshold)) for column, threshold in _splits(estimator, list(range(width)))}
    splits = sorted(split for split in found if np.isfinite(split[1]))
    for place in np.unique(np.linspace(0, len(splits) - 1, min(len(splits), MOST)).astype(np.int64)):
        column, threshold = splits[place]
        for number in (threshold, *np.nextafter(threshold, np.array([-np.inf, np.inf], dtype=np.float32))):
            if np.isfinite(number):
                yield column, number


def _splits(estimator: Any, columns: list[int]) -> Iterator[tuple[int, float]]:
    """Column and threshold of each split; `columns`: the matrix's column of each column that the estimator sees."""
    for _, step in getattr(estimator, "steps", ()):
        if hasattr(step, "transformers_"):  # selects columns; imputation changes no number that is there
            columns = [columns[place] for place in step.transformers_[0][2]]
        yield from _splits(step, columns)
    if hasattr(estimator, "named_estimators_"):  # an average
        for member in estimator.estimators_:
            yield from _splits(member, columns)
    for tree in (tree for trees in getattr(estimator, "_predictors", ()) for tree in trees):
        nodes = tree.nodes[tree.nodes["is_leaf"] == 0]
        yield from zip((columns[place] for place in nodes["feature_idx"]), nodes["num_threshold"], strict=True)
    if not hasattr(estimator, "named_estimators_"):
        for tree in np.ravel(getattr(estimator, "estimators_", ())):
            inner = tree.tree_.feature >= 0
            places = (columns[place] for place in tree.tree_.feature[inner])
            yield from zip(places, tree.tree_.threshold[inner], strict=True)
