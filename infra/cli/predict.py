"""`atlas predict`: predictions for a whole file."""

import os
import sys
from pathlib import Path

import click

from infra.engine.workspace import REPOSITORY


@click.command()
@click.argument("table", metavar="INPUT")
@click.argument("output")
@click.option(
    "--bundle", default="models/bundle", show_default=True, help="The model bundle; in this repository by default."
)
@click.option(
    "--keep",
    multiple=True,
    help="Copy this column (default: those that the model doesn't read; '*': all).",
)
@click.option(
    "--bad-rows",
    type=click.Choice(["stop", "skip"]),
    default="stop",
    show_default=True,
    help="Stop at a row that the service would refuse, or leave such rows out.",
)
@click.option("--csv", default="{}", show_default=True, help="How a text file is written, as data.csv in params.yaml.")
@click.option("--force", is_flag=True, help="Replace OUTPUT if it exists.")
def predict(table: str, output: str, bundle: str, keep: tuple[str, ...], bad_rows: str, csv: str, force: bool) -> None:
    """Predict every row of a table with the local bundle, and write CSV, Parquet or JSON Lines, as OUTPUT's name ends.

    INPUT is a file of any size, in every format that the pipeline reads, or an s3:// or https:// address. OUTPUT
    appears when it is complete, or not at all.

    Example: atlas predict data/new.csv predictions.parquet --bad-rows skip
    """
    # This process becomes the other, which so gets Ctrl-C itself. In the repository, because its packages are there.
    absolute = table if "://" in table else str(Path(table).absolute())
    folder = bundle if bundle == "models/bundle" else str(Path(bundle).absolute())
    options = [f"--bundle={folder}", f"--bad-rows={bad_rows}", f"--csv={csv}", *(f"--keep={name}" for name in keep)]
    command = [
        "-m",
        "service.batch",
        *options,
        *(["--force"] if force else []),
        "--",
        absolute,
        str(Path(output).absolute()),
    ]
    os.chdir(REPOSITORY)
    os.execv(sys.executable, [sys.executable, *command])  # noqa: S606 - no shell is wanted
