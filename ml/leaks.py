"""Finds features that alone predict the target almost perfectly: mostly copies of it, or facts that follow from it."""

import re
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml.schema import Columns, Schema

ROWS = 5000
"""Maximum number of training rows that are looked at."""
MIN_ROWS = 50
"""With fewer rows, a perfect feature may be chance."""
MIN_OF_CLASS = 5
WORDS = 2000
"""The most frequent words of a text column, at most, that are looked at."""
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?")
"""Smaller classes don't count."""
BINS = 64
FOLDS = 3
PERFECT_RECALL = 0.98
"""Classification: the mean of the classes' recalls, out of fold. The best honest single features of well-known tables
have less (iris: 0.97)."""
NEARLY = 0.8
PERFECT_RANK = 0.999
"""Regression: the rank correlation with the target (in absolute value), or for categories the out-of-fold R²."""


def find_leaks(columns: Columns, target: NDArray[np.float64], schema: Schema, seed: int) -> dict[str, float]:
    """The features that alone predict the target almost perfectly, with their figure, on these training rows.

    A number is cut into at most 64 bins of equal size, a category is its own bin; each bin's most frequent class (or
    mean target), learnt on two thirds of the rows, predicts the others. For numbers in a regression it is the rank
    correlation, because bins are too coarse to tell a copy. Of a text, the word counts that tells a class best, or the
    first or last number for a regression.
    """
    if len(target) < MIN_ROWS:
        return {}
    chosen = np.sort(np.random.default_rng(seed).permutation(len(target))[:ROWS])
    wanted = target[chosen]
    fold = np.random.default_rng(seed).permutation(len(chosen)) % FOLDS
    found: dict[str, float] = {}
    for feature in schema.features:
        values = columns[feature.name][chosen]
        if feature.type == "text":
            regression = schema.task == "regression"
            figure = _numbers_in(values, wanted) if regression else _best_words(values, wanted.astype(np.int64), fold)
            limit = PERFECT_RANK if regression else PERFECT_RECALL
        elif schema.task == "regression":
            figure = _ranks(values, wanted) if feature.type != "categorical" else _r2(_codes(values), wanted, fold)
            limit = PERFECT_RANK
        else:
            ordered = feature.type != "categorical"
            figure = _recall(_codes(values), wanted.astype(np.int64), fold, ordered=ordered)
            limit = PERFECT_RECALL
            if ordered and NEARLY <= figure < limit:  # perhaps the bins are too coarse: each value is its own
                figure = _recall(_codes(values, len(values)), wanted.astype(np.int64), fold, ordered=True)
        if figure >= limit:
            found[feature.name] = figure
    return found


def _codes(values: NDArray[np.generic], bins: int = BINS) -> NDArray[np.int64]:
    """The bin of each row, from 0; missing values have a bin of their own."""
    if values.dtype == object:
        return np.asarray(pd.factorize(cast(Any, values), use_na_sentinel=False)[0], dtype=np.int64)
    numbers = values.astype(np.float64)
    present = numbers[~np.isnan(numbers)]
    if not len(present):
        return np.zeros(len(numbers), dtype=np.int64)
    distinct = np.unique(present)
    edges = distinct if len(distinct) <= bins else np.unique(np.quantile(present, np.linspace(0, 1, bins + 1)))
    return np.where(np.isnan(numbers), 0, np.searchsorted(edges, np.nan_to_num(numbers), side="right") + 1)


def _recall(codes: NDArray[np.int64], labels: NDArray[np.int64], fold: NDArray[np.int64], *, ordered: bool) -> float:
    """The mean of the classes' recalls, out of fold; 0 with fewer than two classes of sufficient size.

    `ordered`: a bin without rows predicts what the bin before it does; an unknown category predicts nothing.
    """
    sizes = np.bincount(labels)
    counted = np.flatnonzero(sizes >= MIN_OF_CLASS)
    if len(counted) < 2:
        return 0.0
    places, width = codes.max() + 1, len(sizes)
    right = np.zeros(width)
    for number in range(FOLDS):
        learn, predict = fold != number, fold == number
        table = np.bincount(codes[learn] * width + labels[learn], minlength=places * width).reshape(places, width)
        # Each class weighs the same, as in the figure.
        weighted = table / np.maximum(np.bincount(labels[learn], minlength=width), 1)
        filled = table.any(axis=1)
        if ordered:
            weighted = weighted[np.maximum.accumulate(np.where(filled, np.arange(places), filled.argmax()))]
        answer = np.where(filled | ordered, weighted.argmax(axis=1), -1)[codes[predict]]
        right += np.bincount(labels[predict][answer == labels[predict]], minlength=width)
    return float((right[counted] / sizes[counted]).mean())


def _r2(codes: NDArray[np.int64], target: NDArray[np.float64], fold: NDArray[np.int64]) -> float:
    answer = np.full(len(target), target.mean())
    for number in range(FOLDS):
        learn, predict = fold != number, fold == number
        rows = np.bincount(codes[learn], minlength=codes.max() + 1)
        means = np.bincount(codes[learn], target[learn], codes.max() + 1) / np.maximum(rows, 1)
        answer[predict] = np.where(rows > 0, means, target[learn].mean())[codes[predict]]
    spread = ((target - target.mean()) ** 2).sum()
    return float(1 - ((target - answer) ** 2).sum() / spread) if spread else 0.0


def _ranks(values: NDArray[np.generic], target: NDArray[np.float64]) -> float:
    pair = pd.DataFrame({"value": values.astype(np.float64), "target": target}).dropna()
    if len(pair) < max(MIN_ROWS, len(target) / 2) or pair["value"].nunique() < 2 or pair["target"].nunique() < 2:
        return 0.0
    return abs(float(pair["value"].rank().corr(pair["target"].rank())))


def _best_words(texts: NDArray[np.generic], labels: NDArray[np.int64], fold: NDArray[np.int64]) -> float:
    """The mean over the classes of the recall, out of fold, of the word whose presence or absence tells a class best.

    The recall is the mean of the class's own and the other rows'.
    """
    from sklearn.feature_extraction.text import CountVectorizer

    counted = np.flatnonzero(np.bincount(labels) >= MIN_OF_CLASS)
    try:
        counter = CountVectorizer(binary=True, max_features=WORDS, min_df=MIN_OF_CLASS)
        words = counter.fit_transform(["" if text is None else str(text) for text in texts]).tocsr()
    except ValueError:  # no word is in that many texts
        return 0.0
    if len(counted) < 2:
        return 0.0

    def recalls(rows: NDArray[np.bool_], own: NDArray[np.bool_]) -> NDArray[np.float64]:
        """By word; above 0.5 if it is more frequent in the class's own rows."""
        shares = [np.asarray(words[rows & side].mean(axis=0)).ravel() for side in (own, ~own)]
        return np.asarray((shares[0] + 1 - shares[1]) / 2)

    figures = []
    for label in counted:
        own = labels == label
        for number in range(FOLDS):
            learn, held = fold != number, fold == number
            if not all((rows & side).any() for rows in (learn, held) for side in (own, ~own)):
                continue
            learnt = recalls(learn, own)
            best = int(np.abs(learnt - 0.5).argmax())
            found = float(recalls(held, own)[best])
            figures.append(found if learnt[best] > 0.5 else 1 - found)
    return float(np.mean(figures)) if figures else 0.0


def _numbers_in(texts: NDArray[np.generic], target: NDArray[np.float64]) -> float:
    """The rank correlation of the first or the last number of the texts with the target, whichever is larger."""
    found = [_NUMBER.findall("" if text is None else str(text)) for text in texts]
    return max(
        _ranks(np.array([float(numbers[place]) if numbers else np.nan for numbers in found]), target)
        for place in (0, -1)
    )
