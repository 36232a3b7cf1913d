"""Odd tables go through all stages with the params.yaml that `atlas init` writes, registry included, and are served."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from threadpoolctl import threadpool_limits

from ml import suggestion
from ml.bundle import read_manifest, read_parts
from ml.files import BUNDLE, CANDIDATE
from service.app import create_app
from service.predictor import Predictor
from service.settings import load_settings
from tests.ml.conftest import STAGES, Workspace

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # MLflow warns of itself
]

RNG = np.random.default_rng


def numbers(rows: int, seed: int = 0) -> pd.DataFrame:
    return pd.DataFrame(RNG(seed).normal(size=(rows, 2)), columns=["x", "z"])


def noisy(table: pd.DataFrame) -> "pd.Series[float]":
    return table["x"] + RNG(1).normal(size=len(table))


def sorted_by_class() -> pd.DataFrame:
    table = numbers(150)
    labels = pd.cut(noisy(table), [-np.inf, -0.7, 0.7, np.inf], labels=["low", "mid", "high"])
    return table.assign(y=labels.astype(str)).sort_values("y", kind="stable")


def one_rare_class() -> pd.DataFrame:
    table = numbers(200)
    labels = np.where(noisy(table) > 0, "a", "b")
    labels[[20, 90]] = "rare"
    return table.assign(y=labels)


def few_positives() -> pd.DataFrame:
    return numbers(300).assign(y=lambda table: (noisy(table) > 3.2).astype(int))


def separable() -> pd.DataFrame:
    return numbers(120).assign(y=lambda table: np.where(table["x"] > 0, "yes", "no"))


def constant_column() -> pd.DataFrame:
    return numbers(120).assign(same="always", none=None, y=lambda table: noisy(table) > 0)


def forty_rows() -> pd.DataFrame:
    return numbers(40).assign(y=lambda table: np.where(noisy(table) > 0, "yes", "no"))


def other_scripts() -> pd.DataFrame:
    table = numbers(120)
    city = RNG(2).choice(["Zürich", "São Paulo", "東京"], 120)
    answer = np.where(noisy(table) > 0, "да", "нет")
    return pd.DataFrame({"größe (m)": table["x"], "город": city, "ответ": answer})


def text_only() -> pd.DataFrame:
    late = RNG(3).random(160) < 0.5
    said = np.where(late, "the parcel came far too late, I want a refund", "all was well and quick, many thanks")
    text = [f"{words} order {place} of {place % 7} things" for place, words in enumerate(said)]
    return pd.DataFrame({"comment": text, "y": np.where(late ^ (RNG(4).random(160) < 0.1), "bad", "good")})


def amounts_with_outliers() -> pd.DataFrame:
    return numbers(160).assign(y=lambda table: noisy(table).where(table.index % 40 != 7, 1e6 * table["x"]))


def log_in_order_of_time() -> pd.DataFrame:
    day = pd.date_range("2024-01-01", periods=160, freq="8h").astype(str)
    return numbers(160).assign(day=day, y=lambda table: np.where(noisy(table) > 0, "up", "down"))


TABLES: tuple[Callable[[], pd.DataFrame], ...] = (
    sorted_by_class,
    one_rare_class,
    few_positives,
    separable,
    constant_column,
    forty_rows,
    other_scripts,
    text_only,
    amounts_with_outliers,
    log_in_order_of_time,
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store for all tables, because its schema takes seconds; each test has its own name in it."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.mark.parametrize("make", TABLES, ids=lambda make: make.__name__)
def test_table_is_learnt_registered_and_served_with_what_init_writes(
    workspace: Workspace, store: str, monkeypatch: pytest.MonkeyPatch, make: Callable[[], pd.DataFrame]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    table = make()
    file = f"{make.__name__}.csv"
    table.to_csv(file, index=False)
    assert suggestion.main([file, "--target", table.columns[-1]]) == 0
    params = Path("params.yaml")
    # The choice of the estimators looks at the clock between two candidates, so it makes at least one.
    written, found = re.subn(r"(?m)^model: \{", "model: {budget: 0.1s, ", params.read_text())
    assert found == 1
    params.write_text(written)

    with threadpool_limits(1):  # small tables are fitted fastest by one thread
        assert workspace.run(*STAGES, "register_model") == [0] * 6
    assert read_manifest(BUNDLE).version == read_manifest(CANDIDATE).version

    _, parts = read_parts(BUNDLE)
    client = create_app(load_settings({}), Predictor.load(BUNDLE)).test_client()
    answer = client.post("/predict", json={"rows": list(parts.reference.sample[:5])})
    assert answer.status_code == 200, answer.get_json()
    assert len(answer.get_json()["predictions"]) == 5
