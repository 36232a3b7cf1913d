"""Fixtures: a separate workspace for the stages (a table, its params.yaml), and a real MLflow server."""

import importlib
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

STAGES = ("data_ingestion", "data_preprocessing", "feature_engineering", "model_building", "model_evaluation")


@dataclass(frozen=True, slots=True)
class Workspace:
    """The current directory, with the pipeline's structure."""

    path: Path

    def params(self, **sections: Any) -> dict[str, Any]:
        """Write params.yaml: a small binary problem, with these sections changed."""
        document: dict[str, Any] = {
            "seed": 1,
            "data": {"source": "table", "uri": "table.csv", "target": "y", "task": "binary"},
            "split": {"method": "random", "validation": 0.2, "test": 0.2},
            "model": {
                "name": "small",
                "estimators": {"trees": {"kind": "hist_gradient_boosting", "max_iter": 20, "max_leaf_nodes": 8}},
            },
            "evaluation": {"replicates": 20, "importance_rows": 200},
            "gate": {"metric": "log_loss"},
            "registry": {"experiment": "test", "model": "small"},
        }
        for section, values in sections.items():
            if isinstance(values, dict):
                document[section] = document.get(section, {}) | values
            else:
                document[section] = values
        Path("params.yaml").write_text(yaml.safe_dump(document))
        return document

    def run(self, *stages: str) -> list[int]:
        """The exit status of each stage (all up to the evaluation when none is named)."""
        return [importlib.import_module(f"ml.{stage}").main() for stage in stages or STAGES]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    return Workspace(tmp_path)


@pytest.fixture
def people() -> Callable[[int], pd.DataFrame]:
    """Rows of every feature type, with missing values, and a target that depends on them."""

    def make(rows: int) -> pd.DataFrame:
        rng = np.random.default_rng(7)
        age = rng.integers(18, 90, rows).astype(float)
        city = rng.choice(["Oslo", "Rome", "Lima", "Pune"], rows)
        joined = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 500 * 24, rows), unit="h")
        member = rng.random(rows) < 0.4
        words = np.where(rng.random(rows) < 0.5, "late refund please", "thank you very much")
        comment = [f"{text} number {place}" for place, text in enumerate(words)]
        odds = (age - 50) / 20 + (city == "Rome") - 0.8 * member + (words == "late refund please") * 1.5
        y = rng.random(rows) < 1 / (1 + np.exp(-odds))
        table = pd.DataFrame(
            {"id": np.arange(rows), "age": age, "city": city, "joined": joined, "member": member, "comment": comment}
        )
        table.loc[rng.random(rows) < 0.1, "age"] = np.nan
        table.loc[rng.random(rows) < 0.1, "city"] = None
        return table.assign(y=np.where(y, "yes", "no"))

    return make


def free_port() -> int:
    with socket.socket() as probe_socket:
        probe_socket.bind(("127.0.0.1", 0))
        return int(probe_socket.getsockname()[1])


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real `mlflow server` with SQLite that also serves artifacts."""
    home, port = tmp_path_factory.mktemp("mlflow"), free_port()
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{home}/mlflow.db", "--artifacts-destination", str(home / "artifacts"),
    ]  # fmt: skip
    with (home / "log").open("w") as log:
        environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        process = subprocess.Popen(command, cwd=home, env=environment, stdout=log, stderr=log, start_new_session=True)
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"{address}/health", timeout=2).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError((home / "log").read_text()[-2000:]) from None
                time.sleep(0.3)
        yield address
        os.killpg(process.pid, 15)
        process.wait(timeout=30)
