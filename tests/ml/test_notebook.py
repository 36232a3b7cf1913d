"""The notebook runs from the first cell to the last and leaves an experiment."""

import os
from collections.abc import Callable
from pathlib import Path

import mlflow
import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient

from tests.ml.conftest import Workspace

NOTEBOOK = Path(__file__).parents[2] / "notebooks/explore.ipynb"

# Jupyter's client and MLflow cause deprecation warnings from their dependencies.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


def test_the_notebook_explores_the_data_and_logs_an_experiment(
    workspace: Workspace, people: Callable[[int], pd.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    people(600).to_csv("table.csv", index=False)
    workspace.params(data={"id": "id"})
    assert workspace.run("data_ingestion", "data_preprocessing", "feature_engineering") == [0, 0, 0]
    uri = f"sqlite:///{workspace.path}/store.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parents[1]))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=200, resources={"metadata": {"path": os.fspath(workspace.path)}}).execute()
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("test-notebook")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert 0.5 < run.data.metrics["validation.score"] <= 1


def test_the_committed_notebook_holds_no_output() -> None:
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in cells)
