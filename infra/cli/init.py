"""`atlas init`: a params.yaml for a table of one's own."""

import os
import subprocess
import sys
from pathlib import Path

import click

from infra.cli.common import guarded
from infra.engine.workspace import REPOSITORY


@click.command()
@click.argument("table")
@click.option("--target", required=True, help="The column to predict.")
@click.option(
    "--task",
    type=click.Choice(["binary", "multiclass", "regression"]),
    help="What to predict; without it, the target's values tell.",
)
@click.option("--force", is_flag=True, help="Overwrite params.old.yaml, the copy of the previous params.yaml.")
@guarded
def init(table: str, target: str, task: str | None, force: bool) -> None:
    """Look at a table (a file, s3:// or https://) and write a params.yaml for it; says what it inferred.

    The previous params.yaml is kept as params.old.yaml. `make init TABLE=… TARGET=…` does the same.

    Example: atlas init data/churn.csv --target churned
    """
    if "://" not in table:  # a path as its author sees it; params.yaml names it as the repository sees it
        table = os.path.relpath(Path(table).absolute(), REPOSITORY)
        table = str(Path(table).resolve()) if table.startswith("..") else table
    options = ["--target", target, *(["--task", task] if task else []), *(["--force"] if force else [])]
    # The deployment program doesn't import ml: the pipeline runs as its own process, as DVC runs it.
    done = subprocess.run([sys.executable, "-m", "ml.suggestion", table, *options], cwd=REPOSITORY, check=False)
    sys.exit(done.returncode)
