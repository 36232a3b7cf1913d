"""`python -m service.batch INPUT OUTPUT`, which `atlas predict` runs."""

import argparse
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import yaml
from pydantic import ValidationError
from tqdm import tqdm

from ml.bundle import BundleError
from ml.data_params import CsvParams
from ml.sources.reading import SourceError
from service.batch.chunks import open_table
from service.batch.results import OutputError, check_output
from service.batch.scoring import BadRowError, Choices, Tally, score
from service.predictor import Predictor

INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 when the output is written, 1 after one line that says why not, 130 after an interruption."""
    parser = argparse.ArgumentParser(prog="atlas predict")
    parser.add_argument("input")
    parser.add_argument("output", type=Path)
    parser.add_argument("--bundle", type=Path, default=Path("models/bundle"))
    parser.add_argument("--keep", action="append", default=[])
    parser.add_argument("--bad-rows", choices=["stop", "skip"], default="stop")
    parser.add_argument("--csv", default="{}")
    parser.add_argument("--force", action="store_true")
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # also where SIGINT is ignored: behind a shell's &
    try:
        with ExitStack() as files:
            return _run(given, files)
    except (BadRowError, BundleError, OutputError, SourceError) as error:
        _say(str(error))
        return 1
    except KeyboardInterrupt:
        _say(f"interrupted; {given.output} is not written")
        return INTERRUPTED


def _run(given: argparse.Namespace, files: ExitStack) -> int:
    check_output(given.output, force=given.force)
    params = _csv_params(given.csv)
    predictor = Predictor.load(given.bundle)
    table = open_table(given.input, params, files)
    for sentence in table.assumed:
        _say(f"assumed: {sentence}")
    begun = time.monotonic()
    # A bar on a terminal only (disable=None).
    with tqdm(total=table.total, unit=table.unit, unit_scale=True, disable=None, leave=False) as bar:

        def done(tally: Tally) -> None:
            bar.set_postfix_str(f"{tally.predicted:,} rows", refresh=False)
            bar.update(table.done() - bar.n)

        tally = score(
            table,
            predictor,
            given.output,
            Choices(given.bad_rows == "skip", tuple(given.keep), params),
            _say,
            done,
        )
    seconds = time.monotonic() - begun
    left_out = f", {tally.bad:,} bad rows left out" if tally.bad else ""
    print(
        f"{given.output}: {tally.predicted:,} rows predicted{left_out}, in {seconds:.1f} s "
        f"({tally.predicted / seconds:,.0f} rows/s), by {predictor.bundle.name} {predictor.bundle.version[:7]}"
    )
    for warning, rows in tally.warned.most_common(10):
        print(f"  warned of {rows:,} times: {warning}")
    return 0


def _csv_params(text: str) -> CsvParams:
    try:
        return CsvParams.model_validate(yaml.safe_load(text))
    except (ValidationError, yaml.YAMLError) as error:
        what = error.errors()[0]["msg"] if isinstance(error, ValidationError) else "it is not YAML"
        raise SourceError(
            f"--csv {text}: {what}; write it as data.csv in params.yaml, such as {{delimiter: ';'}}"
        ) from None


def _say(line: str) -> None:
    tqdm.write(f"atlas predict: {line}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
