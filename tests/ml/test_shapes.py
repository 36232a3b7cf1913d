"""Tables of every shape go through all stages and the service, or end in one clear line."""

import decimal
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from threadpoolctl import threadpool_limits

from ml.bundle import read_parts
from ml.files import CANDIDATE, TRAINED
from service.app import create_app
from service.predictor import Predictor
from service.settings import load_settings
from tests.ml.conftest import STAGES, Workspace

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Shape:
    """A table, what params.yaml says of it, and how it ends."""

    make: Callable[[Path], Any]
    """Writes the table to this path."""
    file: str = "table.csv"
    data: dict[str, Any] = field(default_factory=dict)
    sections: dict[str, Any] = field(default_factory=dict)
    refused: str = ""
    """Part of the line that ends it; empty if it works."""
    features: int | None = None


def numbers(rows: int, columns: int = 2, seed: int = 0) -> pd.DataFrame:
    values = np.random.default_rng(seed).normal(size=(rows, columns))
    return pd.DataFrame(values, columns=[f"x{place}" for place in range(columns)])


def table(rows: int, labels: Any = ("no", "yes"), columns: int = 2) -> pd.DataFrame:
    """Numbers, and labels that take turns."""
    return numbers(rows, columns).assign(y=[labels[row % len(labels)] for row in range(rows)])


def csv(made: pd.DataFrame, **options: Any) -> Callable[[Path], Any]:
    return lambda path: made.to_csv(path, index=False, **options)


def text(content: str, encoding: str = "utf-8") -> Callable[[Path], Any]:
    return lambda path: path.write_text(content, encoding=encoding)


def arrow(**columns: Any) -> Callable[[Path], Any]:
    made = {"x": np.arange(60.0) % 7, **columns, "y": ["no", "yes"] * 30}
    return lambda path: pq.write_table(pa.table(made), path)


def partitioned(path: Path) -> None:
    table(90).assign(year=[2022, 2023, 2024] * 30).to_parquet(path, partition_cols=["year"])


def german(rows: int = 60) -> str:
    lines = [f"{row // 10},{row % 10};{1000 + row * 17};{'nein' if row % 2 else 'ja'}" for row in range(rows)]
    return "\n".join(["Größe;Umsatz;y", *lines]) + "\n"


MULTI = {"task": "multiclass"}
NUMBER = {"task": "regression"}
RANDOM = {"split": {"method": "random"}}
MOMENTS = pd.date_range("2024-01-01", periods=60, freq="D")

ODD: dict[str, Any] = {
    "größe.in m": 1.5 * np.arange(60), "a[0]": [*range(6)] * 10, "<b>": 0.5, '"q"/?': ["u", "v"] * 30,
}  # fmt: skip

SHAPES = {
    "rows sorted by class": Shape(csv(table(150, ("a", "b", "c")).sort_values("y", kind="stable")), data=MULTI),
    "a class of a single row": Shape(
        csv(table(60, ("a", "b", "c")).assign(y=lambda t: ["d", *t["y"].iloc[1:]])), data=MULTI
    ),
    "classes of a single row each": Shape(csv(numbers(9).assign(y=list("abcdefghi"))), data=MULTI, refused="split"),
    "three rows": Shape(csv(table(3)), refused="split"),
    "a single row": Shape(csv(table(1)), refused="binary needs two values in 'y', there are 1"),
    "two hundred classes": Shape(csv(table(1000, [f"c{n:03}" for n in range(200)])), data=MULTI),
    "two thousand columns": Shape(csv(table(500, columns=2000)), features=2000),
    "a constant and an empty column": Shape(csv(table(60).assign(same=1, empty=None)), features=2),
    "nothing but a constant": Shape(csv(table(60)[["y"]].assign(same=1)), refused="no column is left as a feature"),
    "an almost empty column": Shape(csv(table(60).assign(rare=pd.Series([1.0]).reindex(range(60)))), features=3),
    "duplicated rows": Shape(csv(pd.concat([table(30)] * 4))),
    "odd names": Shape(
        csv(table(60).assign(**ODD)),
        features=5,
    ),
    "odd labels": Shape(csv(table(60, ('say "no"', "back\\slash", "tab\there"))), data=MULTI),
    "a target with a dot, in another script": Shape(
        csv(table(60).rename(columns={"y": "цель.1"})), data={"target": "цель.1"}
    ),
    "a dictionary": Shape(arrow(d=pa.array(["u", "v", None] * 20).dictionary_encode()), "table.parquet", features=2),
    "decimals": Shape(arrow(d=pa.array([decimal.Decimal(n) / 4 for n in range(60)])), "table.parquet", features=2),
    "a time zone": Shape(arrow(t=pa.array(MOMENTS, pa.timestamp("us", "Europe/Berlin"))), "table.parquet", features=2),
    "times without zone": Shape(arrow(t=pa.array(MOMENTS, pa.timestamp("ns"))), "table.parquet", features=2),
    "nested values": Shape(
        arrow(s=[{"a": n} for n in range(60)], m=[[n] for n in range(60)]), "table.parquet", features=1
    ),
    "bytes and durations": Shape(
        arrow(b=[b"x"] * 60, d=pd.to_timedelta(np.arange(60), unit="s")), "table.parquet", features=1
    ),
    "a partitioned folder": Shape(partitioned, "sales", features=3),
    "decimal commas in Windows-1252": Shape(text(german(), "cp1252"), features=2),
    "JSON Lines of mixed types": Shape(
        text("".join(json.dumps({"x": [n, str(n), "n/a"][n % 3], "y": n % 2}) + "\n" for n in range(60))),
        "t.jsonl",
        features=1,
    ),
    "words among numbers": Shape(csv(table(60).assign(hp=["?", *range(40, 99)])), features=3),
    "numbers past 64 bits under bounds": Shape(
        csv(table(60).assign(n=[10**20 + n * 10**15 for n in range(60)])),
        features=3,
        sections={"contract": {"columns": {"n": {"minimum": 0, "maximum": 1e30}}}},
    ),
    "numbers beyond float32": Shape(csv(table(60).assign(n=np.linspace(-1e300, 1e300, 60)))),
    "a repeated name": Shape(text("a,y,y\n1,0,1\n"), refused="column names repeat: 'y' (2 times)"),
    "labels as numbers with gaps": Shape(csv(table(60, (1.0, 0.0)).assign(y=lambda t: [None, *t["y"].iloc[1:]]))),
    "labels of True and False": Shape(csv(table(60, (True, False)))),
    "a target of lists": Shape(
        lambda path: pq.write_table(pa.table({"x": range(40), "y": [[1]] * 40}), path), "t.parquet", refused="'y'"
    ),
    "a constant number as target": Shape(csv(numbers(60).assign(y=1.0)), data=NUMBER, sections=RANDOM),
    "a number as target, twenty rows": Shape(
        csv(numbers(20).assign(y=lambda t: t["x0"] * 3)), data=NUMBER, sections=RANDOM
    ),
    "a target that is never known": Shape(
        csv(table(60).assign(y=None)), refused="no row has a value for the target 'y'"
    ),
    "an ordered time and few rows": Shape(
        csv(table(30).assign(day=MOMENTS[:30])), data={"time": "day"}, sections={"split": {"method": "time"}}
    ),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_it_is_served_or_refused_in_one_line(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], shape: Shape
) -> None:
    shape.make(workspace.path / shape.file)
    trees = {"kind": "hist_gradient_boosting", "max_iter": 2, "min_samples_leaf": 2}
    given = {"split": {"method": "stratified"}} | shape.sections
    metric = "rmse" if shape.data.get("task") == "regression" else "log_loss"
    workspace.params(
        data={"uri": shape.file} | shape.data,
        model={"estimators": {"trees": trees}, "calibration": ["none"], "parity_tolerance": 1e-4},
        evaluation={"replicates": 5, "importance_rows": 20},
        gate={"metric": metric},
        **given,
    )
    for stage in STAGES:
        with threadpool_limits(1):  # small tables are fitted fastest by one thread
            status = workspace.run(stage)
        told = capsys.readouterr().err
        if status != [0]:
            assert shape.refused
            assert shape.refused in told
            assert "Traceback" not in told
            assert len([line for line in told.splitlines() if line.startswith(f"{stage}: ")]) == 1
            return
    assert not shape.refused
    serve(shape)


def serve(shape: Shape) -> None:
    _, parts = read_parts(CANDIDATE)
    assert read_parts(TRAINED)[1].runtime == "onnx"
    assert shape.features in (None, len(parts.schema.features))
    client = create_app(load_settings({}), Predictor.load(CANDIDATE)).test_client()
    # A request may have a megabyte; a row of the widest table has 60 kB.
    rows = list(parts.reference.sample[:5])
    answer = client.post("/predict", json={"rows": rows})
    assert answer.status_code == 200, answer.get_json()
    assert len(answer.get_json()["predictions"]) == len(rows)
    assert client.get("/").status_code == 200
