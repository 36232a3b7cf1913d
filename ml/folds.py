"""The folds that the split implies: which rows are learnt from and which are predicted, when training holds rows out.

A time split is imitated by a rolling origin: every fold is predicted from earlier rows only. All other splits deal
their rows at random, with the same share of each class in every fold, because the order of a table's rows says nothing
about the rows to come, and many published tables are sorted by class.
"""

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.params import SplitParams

Fold = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Positions of the rows to learn from, and of the rows to predict."""


def make_folds(
    split: SplitParams, rows: int, folds: int, seed: int, classes: NDArray[Any] | None, groups: NDArray[Any] | None
) -> list[Fold]:
    """The folds of a split. `classes`: the class of each row (None for a regression); `groups`: see `split.group`.

    A class with a single row can't be in both parts of a fold: every fold learns from this row and none predicts it.
    If a class has fewer rows than there are folds, some folds predict none of its rows; all learn from at least one.
    """
    if split.method == "time":
        return rolling_origin(rows, folds)
    fold = deal(split, rows, folds, seed, classes, groups)
    alone = np.zeros(rows, dtype=bool)
    if classes is not None and groups is None:
        _, place, counts = np.unique(classes, return_inverse=True, return_counts=True)
        alone = counts[place] == 1
    parts = [(np.flatnonzero((fold != k) | alone), np.flatnonzero((fold == k) & ~alone)) for k in range(folds)]
    return [(learn, predict) for learn, predict in parts if len(learn) and len(predict)]


def rolling_origin(rows: int, folds: int) -> list[Fold]:
    """Each fold is predicted from all rows before it (Tashman, 2000); the first half of the rows is never predicted."""
    borders = np.linspace(rows / 2, rows, folds + 1).astype(int)
    return [(np.arange(begin), np.arange(begin, end)) for begin, end in pairwise(borders) if 0 < begin < end]


def deal(
    split: SplitParams, rows: int, folds: int, seed: int, classes: NDArray[Any] | None, groups: NDArray[Any] | None
) -> NDArray[np.int64]:
    """The fold of each row, from 0 to `folds` - 1: contiguous blocks for a time split, else at random by class."""
    if split.method == "time":
        sizes = [len(block) for block in np.array_split(np.arange(rows), folds)]
        return np.repeat(np.arange(folds), sizes)
    if groups is not None:
        return deal_groups(groups, classes, np.full(folds, 1 / folds), seed)
    order = np.random.default_rng(seed).permutation(rows)
    if classes is not None:
        # Row by row like cards, class after class: the folds' sizes, and a class's rows in them, differ by at most one.
        order = order[np.argsort(classes[order], kind="stable")]
    fold = np.empty(rows, dtype=np.int64)
    fold[order] = np.arange(rows) % folds
    return fold


def deal_groups(
    groups: NDArray[Any], classes: NDArray[Any] | None, shares: NDArray[np.float64], seed: int
) -> NDArray[np.int64]:
    """The part of each row, so that a group is never divided, and part k gets about `shares[k]` of each class's rows.

    Greedy: the largest groups first, each to the part where the sum of squared loads (by the shares) grows least.
    """
    _, group = np.unique(groups.astype(str), return_inverse=True)
    kinds = np.zeros(len(group), dtype=np.int64) if classes is None else np.unique(classes, return_inverse=True)[1]
    counts = np.zeros((group.max() + 1, kinds.max() + 1))
    np.add.at(counts, (group, kinds), 1)
    counts /= counts.sum(axis=0)
    order = np.random.default_rng(seed).permutation(len(counts))
    order = order[np.argsort(-counts[order].max(axis=1), kind="stable")]
    load, part_of = np.zeros((len(shares), counts.shape[1])), np.empty(len(counts), dtype=np.int64)
    for number in order:
        growth = ((2 * load + counts[number]) * counts[number]).sum(axis=1) / shares
        part_of[number] = growth.argmin()
        load[part_of[number]] += counts[number]
    return part_of[group]
