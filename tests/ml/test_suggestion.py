"""`atlas init` looks at a table and writes a params.yaml that can be used, and never loses the one that was there."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from ml.params import load_params
from ml.suggestion import main, suggest
from tests.ml.conftest import Workspace

REPOSITORY = Path(__file__).parents[2]


def shop(rows: int = 60) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "customer_id": [f"c{n}" for n in range(rows)],
            "born": pd.date_range("1970-01-01", periods=rows, freq="D").astype(str),
            "ordered_at": pd.date_range("2024-01-01", periods=rows, freq="h").astype(str),
            "amount": np.linspace(1, 9, rows),
            "churned": ["yes", "no"] * (rows // 2),
        }
    )


@pytest.mark.parametrize(
    ("target", "task"),
    [
        (["yes", "no"] * 30, "binary"),
        ([1, 0] * 30, "binary"),
        ([True, False] * 30, "binary"),
        ([3, 4, 5] * 20, "multiclass"),
        (["a", "b", "c"] * 20, "multiclass"),
        (["01", "02", "03"] * 20, "multiclass"),
        (list(range(60)), "regression"),
        ([0.5, 1.5, 2.5] * 20, "regression"),
        ([0] * 30 + [1] * 14 + [2] * 7 + [3] * 4 + [4] * 2 + [5] * 2 + [6], "regression"),
        ([0, 1, 2, 3, 4, 5] * 10, "multiclass"),
        ([1] * 30 + [2] * 20 + [3] * 10, "multiclass"),
    ],
)
def test_the_task_is_what_the_targets_values_tell(target: list[Any], task: str) -> None:
    assert suggest(shop().assign(y=target), "y").task == task


@pytest.mark.parametrize("name", ["n_children", "visits", "number of rooms", "Age"])
def test_whole_numbers_that_are_called_amounts_are_no_classes(name: str) -> None:
    found = suggest(shop().assign(**{name: [1, 2, 3] * 20}), name)
    assert found.task == "regression"
    assert "if they are classes: multiclass" in found.reason


def test_it_writes_params_that_can_be_used_and_says_what_it_inferred(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    shop().to_csv("Shop data.csv", index=False)
    assert main(["Shop data.csv", "--target", "churned"]) == 0
    params = load_params()
    assert (params.data.task, params.data.positive, params.data.id, params.data.time) == (
        "binary",
        "yes",
        "customer_id",
        "ordered_at",
    )
    assert params.split.method == "time"
    assert params.gate.metric == "log_loss"
    assert params.registry.model == "shop-data"
    stages = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"].values()
    named = {section for stage in stages for section in stage.get("do", stage)["params"]}
    assert named <= yaml.safe_load(Path("params.yaml").read_text()).keys()  # DVC runs no stage without its sections
    told = capsys.readouterr().out
    assert "Shop data.csv: 60 rows, 5 columns" in told
    assert "churned: binary (two values): yes 50%, no 50%" in told
    assert "# Inferred types:\n  #   born: datetime" in Path("params.yaml").read_text()


def test_the_previous_params_are_kept_and_never_twice_without_force(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    shop().to_csv("t.csv", index=False)
    Path("params.yaml").write_text("mine: 1\n")
    assert main(["t.csv", "--target", "churned"]) == 0
    assert "params.yaml is kept as params.old.yaml" in capsys.readouterr().out
    assert Path("params.old.yaml").read_text() == "mine: 1\n"
    assert main(["t.csv", "--target", "amount"]) == 1
    assert "params.old.yaml is there from the last time" in capsys.readouterr().err
    assert load_params().data.target == "churned"
    assert main(["t.csv", "--target", "amount", "--force"]) == 0
    assert load_params().data.task == "regression"
    assert yaml.safe_load(Path("params.old.yaml").read_text())["data"]["target"] == "churned"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["t.csv", "--target", "Churned"], "the target 'Churned' is not a column; the table has customer_id, born"),
        (["none.csv", "--target", "y"], "none.csv not found"),
        (["t.csv", "--target", "customer_id"], "60 different values in 60 rows: no classes, and no numbers"),
        (["same.csv", "--target", "y"], "fewer than two different values"),
    ],
)
def test_what_cannot_be_predicted_leaves_everything_as_it_was(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    shop().to_csv("t.csv", index=False)
    shop().assign(y=1).to_csv("same.csv", index=False)
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("atlas init: ")
    assert error.count("\n") == 1
    assert not Path("params.yaml").exists()


def test_names_that_yaml_reads_otherwise_are_quoted(workspace: Workspace) -> None:
    made = shop().rename(columns={"churned": "yes: #1", "amount": "a\nb"})
    made.to_parquet("t.parquet")
    assert main(["t.parquet", "--target", "yes: #1"]) == 0
    assert load_params().data.target == "yes: #1"


def test_a_time_whose_order_the_rows_do_not_have_is_asked_about_and_so_is_an_ambiguous_date() -> None:
    made = shop().sort_values("churned", kind="stable").reset_index(drop=True)
    suggestion = suggest(made, "churned")
    assert suggestion.time is None
    assert "'ordered_at' may be the time of a row" in suggestion.asked[0]
    made["ordered_at"] = [f"0{1 + n % 9}/0{1 + n % 7}/2024" for n in range(60)]
    suggestion = suggest(made, "churned")
    assert suggestion.types["ordered_at"] == "datetime"
    assert "ordered_at" in suggestion.asked[0]


def test_the_day_of_an_export_is_not_the_time_of_a_row() -> None:
    table = pd.DataFrame({"exported_on": ["2026-05-01"] * 60, "x": range(60), "y": [0, 1] * 30})
    assert suggest(table, "y").time is None
    table["exported_on"] = pd.date_range("2026-05-01", periods=60).astype(str)
    assert suggest(table, "y").time == "exported_on"


def test_a_class_that_may_mean_unknown_is_asked_about() -> None:
    found = pd.DataFrame({"x": range(60), "y": ["male", "female", "NA"] * 20})
    suggestion = suggest(found, "y")
    assert suggestion.task == "multiclass"
    assert any("'y' has 20 times 'NA'" in sentence for sentence in suggestion.asked)


def test_a_time_written_as_a_number_is_asked_about_if_the_rows_stand_in_its_order() -> None:
    found = pd.DataFrame({"year": range(1900, 1960), "day": [5, 3] * 30, "y": np.linspace(0, 1, 60) ** 2})
    (sentence,) = suggest(found, "y").asked
    assert "'year' may be the time of a row, written as a number" in sentence
