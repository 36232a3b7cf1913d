"""Atlas by params alone beside LightGBM, CatBoost and linear models on real tables: same rows, same split.

    .venv/bin/python tests/benchmarks/tables.py [--tables cars,penguins] [--seeds 3] [--budget 60s] [--folder DIR]
        [--metric log_loss]

The tables ship in packages, which are installed with the peers into an environment of this script's own. Atlas gets
target, task and, for time splits, time; nothing else. The peers learn from the same training and validation rows, with
a few settings each, chosen by folds; every model predicts the same test rows. A table is split once for each seed
(a time split is always the same), and the figures are means over the splits. Prints a table in Markdown.

The budget is a time by the clock, so other work on the machine changes what Atlas tries. For one core for Atlas and
peers alike: OMP_NUM_THREADS=1 taskset -c 0 .venv/bin/python …
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import time
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from ml.bundle import bundle_of, read_parts
from ml.evaluation import predict
from ml.files import TRAINED
from ml.metrics import LARGER_IS_BETTER, block_weights, day_blocks, improvement, interval, values
from ml.params import load_params
from ml.rows import read_rows
from ml.schema import Task

PACKAGES = (
    "catboost==1.2.10", "causaldata==0.1.5", "lifelines==0.30.3", "lightgbm==4.7.0", "palmerpenguins==0.1.6",
    "pandas==2.3.3", "plotnine==0.15.9", "pyarrow==26.0.1", "scikit-learn==1.9.1", "statsmodels==0.15.0",
    "vega_datasets==0.9.0",
)  # fmt: skip
HEADLINE: dict[Task, str] = {"binary": "roc_auc", "multiclass": "roc_auc", "regression": "r2"}
PEERS = Path(__file__).with_name("tables_peers.py")
STAGES = ("data_ingestion", "data_preprocessing", "feature_engineering", "model_building")
TEST, REPLICATES = 0.25, 400


@dataclass(frozen=True, slots=True)
class Result:
    """A table's figures for one split: the metric and its replicates, by model."""

    drawn: dict[str, NDArray[np.float64]]
    metric: str
    rows: int
    seconds: float
    """Of Atlas's model_building."""


def environment(folder: Path) -> Path:
    """The Python of the environment of the peers, made if it isn't there."""
    python = folder / "environment/bin/python"
    if not python.exists():
        venv.create(folder / "environment", with_pip=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    return python


def run(
    folder: Path, name: str, data: dict[str, Any], seed: int, budget: str, python: Path, metric: str | None
) -> Result:
    """Atlas and the peers on one split of a table; `metric`: instead of the task's own."""
    place = folder / "runs" / f"{name}-{seed}"
    place.mkdir(parents=True, exist_ok=True)
    method = "time" if "time" in data else "random" if data["task"] == "regression" else "stratified"
    if method == "time":
        (place / "time").touch()
    document = {
        "seed": seed,
        "data": {"source": "table", "uri": str(folder / f"{name}.csv"), **data},
        "split": {"method": method, "test": TEST},
        "model": {"name": "benchmark", "budget": budget, "refit": False},
        "gate": {"metric": "rmse" if data["task"] == "regression" else "log_loss"},
        "registry": {"experiment": "benchmark", "model": "benchmark"},
    }
    os.chdir(place)
    Path("params.yaml").write_text(yaml.safe_dump(document))
    start = 0.0
    for stage in STAGES:
        start = time.monotonic()
        if importlib.import_module(f"ml.{stage}").main():
            raise SystemExit(f"{name}: {stage} failed")
    seconds = time.monotonic() - start
    if not Path("peers.npz").exists():
        subprocess.run([str(python), str(PEERS), "fit", ".", str(seed)], check=True)
    params = load_params()
    _, parts = read_parts(TRAINED)
    test = read_rows("test", parts.schema, params)
    scores = {"Atlas": predict(bundle_of("", parts), test.columns)[0], **np.load("peers.npz")}
    blocks = day_blocks(test.seconds, len(test), seed)
    weights = block_weights(int(blocks.max()) + 1, REPLICATES, seed)
    metric = metric or HEADLINE[parts.schema.task]
    if metric == "roc_auc" and len(np.unique(test.target)) < len(parts.schema.classes):
        metric = "accuracy"  # the ROC-AUC isn't defined for a class without test rows
    drawn = {
        model: values(metric, test.target, each, each if each.ndim == 1 else each.argmax(axis=1), blocks, weights)
        for model, each in scores.items()
    }
    return Result(drawn, metric, len(test), seconds)


def line(name: str, results: list[Result]) -> str:
    """The table's row in Markdown: means over the splits, with the interval of Atlas's lead over the best peer."""
    models = list(results[0].drawn)
    # With several splits, a replicate is the mean of one replicate of each split.
    drawn = {model: np.mean([result.drawn[model] for result in results], axis=0) for model in models}
    sign = 1 if results[0].metric in LARGER_IS_BETTER else -1
    best = max(models[1:], key=lambda model: sign * drawn[model][0])
    lead = improvement(results[0].metric, drawn["Atlas"], drawn[best])
    own = interval(drawn["Atlas"])
    figures = " | ".join(f"{drawn[model][0]:.3f}" for model in models[1:])
    return (
        f"| {name} | {results[0].metric} | {own.value:.3f} ({own.low:.3f} to {own.high:.3f}) | {figures} | "
        f"{lead.value:+.3f} ({lead.low:+.3f} to {lead.high:+.3f}) over {best} | "
        f"{max(result.seconds for result in results):.0f} s |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", default="")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budget", default="60s")
    parser.add_argument("--metric", help="such as log_loss or rmse, where lower is better; its lead is positive")
    parser.add_argument("--folder", type=Path, default=Path(".atlas/benchmarks/tables"))
    options = parser.parse_args()
    folder: Path = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    python = environment(folder)
    subprocess.run([str(python), str(PEERS), "prepare", str(folder)], check=True)
    tables: dict[str, dict[str, Any]] = json.loads((folder / "tables.json").read_text())
    wanted = options.tables.split(",") if options.tables else list(tables)
    lines = ["| table | figure | Atlas | LightGBM | CatBoost | linear | Atlas's lead | time |", "| --- " * 8 + "|"]
    for name in wanted:
        seeds = range(1, 2 if "time" in tables[name] else options.seeds + 1)
        found = [run(folder, name, tables[name], seed, options.budget, python, options.metric) for seed in seeds]
        lines.append(line(name, found))
        print(lines[-1], file=sys.stderr, flush=True)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
