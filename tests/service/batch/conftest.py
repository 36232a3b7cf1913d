"""Fixtures: bundles, and a table of requests with ids."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.bundles import COLOURS, EXAMPLE
from tests.service.conftest import bundles, predictors

__all__ = ["bundles", "predictors"]


@pytest.fixture(scope="session")
def requests() -> Callable[[int], list[dict[str, Any]]]:
    """Rows as requests, with an id, a column that the model doesn't read, missing values and unusual ones."""

    def make(rows: int) -> list[dict[str, Any]]:
        rng = np.random.default_rng(3)
        found = []
        for place in range(rows):
            row = EXAMPLE | {"order": f"o{place}", "amount": round(float(rng.uniform(0, 999)), 3), "city": "Oslo, old"}
            row["colour"] = str(rng.choice([*COLOURS, "mauve"])) if rng.random() < 0.8 else None
            row["visits"] = int(rng.integers(0, 12)) if rng.random() < 0.7 else None
            row["note"] = "late\nrefund" if rng.random() < 0.3 else "thanks"
            row["member"] = bool(rng.random() < 0.5)
            found.append(row)
        return found

    return make
