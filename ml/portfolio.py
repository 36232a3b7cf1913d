"""The candidates of the automatic choice: estimators with settings that suit the size of the table, and their work.

The candidates, their order and the work that they are expected to take are fixed for a size. So the same table has the
same candidates on every machine, unless the clock stops the search.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ml.estimator_kinds import Kind
from ml.model_params import EstimatorParams
from ml.schema import Task

MAX_TREES = 1500
"""Boosted trees stop earlier, when held-out rows no longer gain."""
STRAIGHT = (":later_half",)
"""Without these columns, a linear estimator's trend in time is a straight line."""
LEAVES = 200_000
"""Leaves of all trees of a forest; the compiled model has about 150 bytes for each."""


@dataclass(frozen=True, slots=True)
class Size:
    """What the settings depend on."""

    task: Task
    rows: int
    columns: int
    """Of the encoded matrix."""
    classes: int
    """1 for a regression, and for two classes: trees in each round of boosting."""
    timed: bool
    """Whether the split is by time, so that trends matter."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An estimator that the choice may try."""

    name: str
    estimator: EstimatorParams
    seconds: float
    """Expected time of a fit, on one core of a common machine of 2025."""

    @property
    def stops_early(self) -> bool:
        """Whether the number of trees is found on held-out rows."""
        return self.estimator.kind == "hist_gradient_boosting"


def candidates(size: Size) -> list[Candidate]:
    """All candidates, the most useful first."""
    made: list[tuple[str, Kind, dict[str, Any]]] = []
    lines, boosted, forests = list(_lines(size)), list(_boosted(size)), list(_forests(size))
    for place in range(max(len(lines), len(boosted), len(forests))):
        made += [group[place] for group in (boosted, lines, forests) if place < len(group)]
    return [
        Candidate(name, EstimatorParams.model_validate({"kind": kind, **settings}), _seconds(kind, settings, size))
        for name, kind, settings in made
    ]


def _lines(size: Size) -> Iterator[tuple[str, Kind, dict[str, Any]]]:
    if size.task == "regression":
        for alpha in (1.0, 30.0, 0.03, 300.0):
            yield f"line-{alpha:g}".replace(".", "_"), "linear", {"alpha": alpha, "without": STRAIGHT}
            if size.timed:
                yield f"bent-{alpha:g}".replace(".", "_"), "linear", {"alpha": alpha}
    else:
        for strength in (1.0, 0.1, 10.0, 0.01):
            yield f"line-{strength:g}".replace(".", "_"), "linear", {"C": strength, "without": STRAIGHT}


def _boosted(size: Size) -> Iterator[tuple[str, Kind, dict[str, Any]]]:
    kind: Kind = "hist_gradient_boosting"
    few = max(3, min(20, size.rows // 60))
    if size.rows < 2000:
        yield "trees", kind, _trees(0.08, 8, few, 1.0, 0.6)
        yield "stumps", kind, _trees(0.1, 3, few, 1.0, 0.6)
        yield "trees-bushy", kind, _trees(0.08, 16, 2 * few, 5.0, 0.4)
    elif size.rows < 20_000:
        yield "trees", kind, _trees(0.06, 16, few, 1.0, 0.6)
        yield "trees-shallow", kind, _trees(0.1, 5, 10, 1.0, 0.6)
        yield "trees-bushy", kind, _trees(0.05, 40, 20, 5.0, 0.4)
    else:
        yield "trees", kind, _trees(0.1, 31, 20, 1.0, 0.7)
        yield "trees-bushy", kind, _trees(0.07, 90, 20, 5.0, 0.5)
        yield "trees-shallow", kind, _trees(0.15, 8, 20, 1.0, 0.7)


def _trees(rate: float, leaves: int, smallest: int, l2: float, features: float) -> dict[str, Any]:
    return {
        "max_iter": MAX_TREES,
        "learning_rate": rate,
        "max_leaf_nodes": leaves,
        "min_samples_leaf": smallest,
        "l2_regularization": l2,
        "max_features": features,
    }


def _forests(size: Size) -> Iterator[tuple[str, Kind, dict[str, Any]]]:
    trees = 200 if size.rows < 10_000 else 100
    smallest = 2 if size.task == "regression" else 3
    settings: dict[str, Any] = {"n_estimators": trees, "min_samples_leaf": smallest}
    if size.rows / smallest * trees > LEAVES:
        settings["max_leaf_nodes"] = LEAVES // trees
    yield "extra", "extra_trees", settings | {"max_features": 0.5}
    yield "forest", "random_forest", settings | {"max_features": 0.4}
    yield "extra-wide", "extra_trees", settings | {"max_features": 1.0}


def _seconds(kind: Kind, settings: dict[str, Any], size: Size) -> float:
    """Measured on one core for 400 to 40,000 rows of 10 to 200 columns; right within a factor of two."""
    cells = size.rows * size.columns
    if kind == "linear":
        return 1e-3 + 1e-7 * cells * (1 if size.task == "regression" else max(1, size.classes))
    if kind == "hist_gradient_boosting":
        leaves, rounds = settings["max_leaf_nodes"], 25 / settings["learning_rate"]
        tree = 3e-4 + leaves * (2e-5 + 3e-6 * size.columns) + 1e-8 * cells
        return rounds * size.classes * tree
    width = max(1.0, size.columns * settings["max_features"])
    split = 2e-8 if kind == "extra_trees" else 4e-8
    depth = math.log2(min(size.rows, settings.get("max_leaf_nodes", size.rows)) + 1)
    return settings["n_estimators"] * (1e-3 + split * size.rows * depth * width)
