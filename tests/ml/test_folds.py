"""Folds imitate the split: a rolling origin for time, else rows at random with every class, and whole groups."""

import numpy as np
import pytest

from ml.folds import deal, deal_groups, make_folds, rolling_origin
from ml.params import SplitParams

RANDOM, TIME = SplitParams(method="random"), SplitParams(method="time")
SORTED = np.repeat([0.0, 1.0, 2.0], [50, 50, 20])


def test_a_time_split_predicts_each_fold_from_all_rows_before_it() -> None:
    folds = make_folds(TIME, 100, 3, 1, SORTED[:100], None)
    assert [(learn[0], learn[-1] + 1, predict[0], predict[-1] + 1) for learn, predict in folds] == [
        (0, 50, 50, 66),
        (0, 66, 66, 83),
        (0, 83, 83, 100),
    ]
    assert len(rolling_origin(3, 5)) == 2  # empty folds are left out


@pytest.mark.parametrize("method", ["random", "stratified"])
def test_rows_sorted_by_class_have_every_class_in_every_fold_in_proportion(method: str) -> None:
    folds = make_folds(SplitParams.model_validate({"method": method}), 120, 5, 1, SORTED, None)
    for learn, predict in folds:
        assert not set(learn) & set(predict)
        np.testing.assert_array_equal(np.bincount(SORTED[predict].astype(int)), [10, 10, 4])
    assert sorted(np.concatenate([predict for _, predict in folds])) == list(range(120))


def test_folds_are_the_same_for_the_same_seed_only() -> None:
    first, again, other = (deal(RANDOM, 120, 5, seed, SORTED, None) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_every_fold_learns_from_classes_with_fewer_rows_than_folds() -> None:
    classes = np.array([0.0] * 20 + [1.0, 2.0, 2.0])
    folds = make_folds(RANDOM, 23, 5, 3, classes, None)
    assert len(folds) == 5
    for learn, _ in folds:
        assert set(classes[learn]) == {0, 1, 2}
    predicted = np.concatenate([predict for _, predict in folds])
    assert sorted(classes[predicted])[-2:] == [2, 2]
    assert 1 not in classes[predicted]


def test_a_group_is_never_divided_and_folds_have_similar_sizes_and_classes() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 60, 600)
    classes = (rng.random(600) < 0.2).astype(float)
    folds = make_folds(RANDOM, 600, 4, 1, classes, groups)
    for learn, predict in folds:
        assert not set(groups[learn]) & set(groups[predict])
        assert len(predict) == pytest.approx(150, abs=20)
        assert classes[predict].mean() == pytest.approx(classes.mean(), abs=0.04)


def test_parts_of_groups_have_the_wanted_shares() -> None:
    part = deal_groups(np.random.default_rng(0).integers(0, 200, 2000), None, np.array([0.7, 0.1, 0.2]), 1)
    np.testing.assert_allclose(np.bincount(part) / 2000, [0.7, 0.1, 0.2], atol=0.02)
