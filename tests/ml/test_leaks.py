"""A feature that alone predicts the target is found, and an honest good one isn't."""

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, load_wine

from ml.leaks import find_leaks
from ml.schema import Columns, Feature, FeatureType, Schema, Task

RNG = np.random.default_rng(0)


def schema(columns: Columns, task: Task, classes: int) -> Schema:
    kinds: dict[str, FeatureType] = {
        name: "text" if name.startswith("text") else "categorical" if values.dtype == object else "numeric"
        for name, values in columns.items()
    }
    features = tuple(Feature(name=name, type=kind) for name, kind in kinds.items())
    return Schema(target="y", task=task, classes=tuple(map(str, range(classes))), features=features)


def found(columns: Columns, target: "np.ndarray", task: Task = "binary", classes: int = 2) -> set[str]:
    return set(find_leaks(columns, target.astype(float), schema(columns, task, classes), 1))


def test_copies_codes_bins_and_missing_values_that_give_the_target_away() -> None:
    target = RNG.integers(0, 2, 300)
    number = np.where(target == 1, RNG.uniform(5, 9, 300), RNG.uniform(0, 5, 300))
    columns: Columns = {
        "copy": target.astype(float),
        "threshold": number,
        "code": np.array([f"{'paid' if y else 'due'}-{n % 7}" for n, y in enumerate(target)], dtype=object),
        "only_if_so": np.where(target == 1, number, np.nan),
        "noise": RNG.normal(size=300),
        "good": target + RNG.normal(size=300) * 0.5,
        "unique": np.array([f"name {n}" for n in range(300)], dtype=object),
        "constant": np.zeros(300),
        "empty": np.full(300, np.nan),
    }
    assert found(columns, target) == {"copy", "threshold", "code", "only_if_so"}


def texts(says: list[str], seed: int = 0) -> "np.ndarray":
    """Ten words of no meaning each, and what it says among them."""
    words = np.random.default_rng(seed).choice([f"word{n}" for n in range(60)], (len(says), 10))
    return np.array([" ".join([*row[:5], said, *row[5:]]) for row, said in zip(words, says, strict=True)], dtype=object)


def test_a_text_whose_words_or_numbers_give_the_target_away() -> None:
    target = RNG.integers(0, 2, 300)
    columns: Columns = {
        "text_of_one": texts(["refunded" if y else "" for y in target]),
        "text_of_two": texts(["refunded" if y else "paid" for y in target], 1),
        "text_that_helps": texts(["good" if RNG.random() < (0.8 if y else 0.2) else "" for y in target], 2),
        "text_without_words": np.array([None, ""] * 150, dtype=object),
    }
    assert found(columns, target) == {"text_of_one", "text_of_two"}
    three = np.arange(300) % 3
    named = texts([("small", "medium", "large")[y] for y in three])
    assert found({"text": named}, three, "multiclass", 3) == {"text"}
    amount = RNG.lognormal(size=300)
    columns = {
        "text_with_amount": np.array([f"{y:.4f} EUR, page 3" for y in amount], dtype=object),
        "text_with_noise": np.array([f"{y:.4f} EUR" for y in RNG.lognormal(size=300)], dtype=object),
        "text_without": texts([""] * 300),
    }
    assert found(columns, amount, "regression", 0) == {"text_with_amount"}


def test_row_numbers_of_a_table_that_is_sorted_by_class() -> None:
    target = np.repeat([0, 1, 2], 60)
    assert found({"row": np.arange(180.0)}, target, "multiclass", 3) == {"row"}


def test_a_regressions_copy_in_another_unit() -> None:
    target = RNG.lognormal(size=400)
    group = np.array([f"g{n % 20}" for n in range(400)], dtype=object)
    columns: Columns = {"cents": target * 100, "log": -np.log(target), "near": target + RNG.normal(size=400) * 0.3}
    assert found(columns, target, "regression", 0) == {"cents", "log"}
    assert found({"group": group}, np.arange(400) % 20 * 3.0, "regression", 0) == {"group"}


@pytest.mark.parametrize("load", [load_iris, load_wine, load_breast_cancer, load_diabetes])
def test_the_best_honest_features_of_known_tables_are_none(load: "type[load_iris]") -> None:
    data, target = load(return_X_y=True)
    task: Task = {2: "binary", 3: "multiclass"}.get(len(np.unique(target)), "regression")  # type: ignore[assignment]
    columns: Columns = {f"x{place}": values for place, values in enumerate(data.T)}
    assert not found(columns, target, task, 0 if task == "regression" else len(np.unique(target)))


def test_small_tables_and_single_classes_say_nothing() -> None:
    few = np.arange(40) % 2
    assert not found({"copy": few.astype(float)}, few)
    rare = np.array([0] * 100 + [1] * 4)
    assert not found({"copy": rare.astype(float)}, rare)
