"""`atlas predict` gives each row of a file the service's answer, writes whole files, and says what is wrong by line."""

import csv
import gzip
import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from ml.data_params import CsvParams
from service.app import create_app
from service.batch import chunks, scoring
from service.batch.__main__ import main
from service.predictor import Predictor
from service.settings import Settings

REPOSITORY = Path(__file__).parents[3]
Requests = Callable[[int], list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # pytest keeps its own
    return tmp_path


def written(rows: list[dict[str, Any]], path: str, **options: Any) -> str:
    """The rows as a file of the format that its ending names."""
    frame = pd.DataFrame(rows)
    frame["visits"] = frame["visits"].astype("Int64")
    if path.endswith((".csv", ".csv.gz", ".tsv")):
        frame.to_csv(path, index=False, **options)
    elif path.endswith(".jsonl"):
        Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.endswith(".json"):
        Path(path).write_text(json.dumps(rows))
    else:
        frame["bought"] = pd.to_datetime(frame["bought"])
        frame["seen"] = pd.to_datetime(frame["seen"], utc=True)
        getattr(frame, f"to_{path.rpartition('.')[2]}")(path)
    return path


def served(predictor: Predictor, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The service's answers."""
    names = {feature.name for feature in predictor.schema.features}
    sent = [{name: value for name, value in row.items() if name in names} for row in rows]
    client = create_app(Settings.model_validate({"max_rows": 10_000}), predictor).test_client()
    answer = client.post("/predict", json={"rows": sent})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.get_json()["predictions"]
    return found


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "tsv", "jsonl", "json", "parquet", "feather", "orc"])
def test_each_row_of_any_format_gets_the_services_answer(
    ending: str, bundles: dict[str, Path], predictors: dict[str, Predictor], requests: Requests
) -> None:
    rows = requests(90)
    file = written(rows, f"in.{ending}", **({"sep": "\t"} if ending == "tsv" else {}))
    assert main([file, "out.jsonl", f"--bundle={bundles['binary']}"]) == 0
    found = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert [row.pop("order") for row in found] == [row["order"] for row in rows]
    assert {row.pop("city") for row in found} == {"Oslo, old"}
    assert found == served(predictors["binary"], rows)
    assert {w["code"] for row in found for w in row["warnings"]} == {"out_of_range", "unknown_category"}


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
def test_a_table_of_results_holds_the_same_in_each_format(
    kind: str, bundles: dict[str, Path], predictors: dict[str, Predictor], requests: Requests
) -> None:
    rows = requests(40)
    expected = served(predictors[kind], rows)
    written(rows, "in.parquet")
    for output in ("out.csv", "out.parquet"):
        assert main(["in.parquet", output, f"--bundle={bundles[kind]}"]) == 0
    for table in (pd.read_csv("out.csv", keep_default_na=False), pd.read_parquet("out.parquet")):
        assert list(table["order"]) == [row["order"] for row in rows]
        assert list(table["prediction"]) == [row["prediction"] for row in expected]
        for label in predictors[kind].schema.classes:
            assert list(table[f"probability:{label}"]) == [row["probabilities"][label] for row in expected]
        texts = ["; ".join(f"{w['field']}: {w['code']}" for w in row["warnings"]) for row in expected]
        assert list(table["warnings"]) == texts


def test_the_chunks_decide_nothing(
    bundles: dict[str, Path], requests: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(requests(50), "in.csv")
    assert main([file, "whole.csv", f"--bundle={bundles['binary']}"]) == 0
    monkeypatch.setattr(chunks, "ROWS", 7)
    assert main([file, "parts.csv", f"--bundle={bundles['binary']}"]) == 0
    assert Path("whole.csv").read_bytes() == Path("parts.csv").read_bytes()


def test_columns_are_kept_as_asked(bundles: dict[str, Path], requests: Requests) -> None:
    file, bundle = written(requests(3), "in.csv"), f"--bundle={bundles['binary']}"
    own = ["prediction", "probability:no", "probability:yes", "warnings"]
    for keep, expected in (
        ([], ["order", "city"]),
        (["--keep=amount", "--keep=order"], ["amount", "order"]),
        (["--keep=*"], list(pd.read_csv(file).columns)),
    ):
        assert main([file, "out.csv", bundle, "--force", *keep]) == 0
        assert Path("out.csv").read_text().split("\n")[0].split(",") == [*expected, *own]
    types = pa.schema([("order", pa.int32()), *((n, pa.string()) for n in ("shop",)), ("amount", pa.float32())])
    parquet.write_table(pa.table([[7], ["north"], [1.5]], schema=types), "typed.parquet")
    assert main(["typed.parquet", "typed.out.parquet", bundle, "--keep=order"]) == 0
    assert parquet.read_schema("typed.out.parquet").field("order").type == pa.int32()


def test_bad_rows_stop_with_their_line_or_are_left_out_and_counted(
    bundles: dict[str, Path],
    predictors: dict[str, Predictor],
    requests: Requests,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = requests(40)
    for row in rows:
        row["note"] = "two\nlines"
    written(rows, "in.csv")
    lines = list(csv.reader(io.StringIO(Path("in.csv").read_text())))
    place = lines[0].index("amount")
    lines[3][place], lines[5][place], lines[9] = "much", "-1", lines[9][:4]
    with Path("in.csv").open("w") as file:
        csv.writer(file).writerows(lines)
    bundle = f"--bundle={bundles['binary']}"
    assert main(["in.csv", "out.csv", bundle]) == 1
    assert "line 6: amount: must be a number, not a string ('much')" in capsys.readouterr().err
    assert [file.name for file in Path().iterdir()] == ["in.csv"]
    monkeypatch.setattr(scoring, "REPORTED", 2)
    assert main(["in.csv", "out.jsonl", bundle, "--bad-rows=skip"]) == 0
    printed = capsys.readouterr()
    assert "further bad rows are only counted" in printed.err
    assert "37 rows predicted, 3 bad rows left out" in printed.out
    good = [row for number, row in enumerate(rows) if number not in (2, 4, 8)]
    found = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert [row["order"] for row in found] == [row["order"] for row in good]
    assert [row["prediction"] for row in found] == [row["prediction"] for row in served(predictors["binary"], good)]


def test_hundreds_of_bad_rows_are_all_left_out(bundles: dict[str, Path], requests: Requests) -> None:
    rows = requests(400)
    for row in rows[50:]:
        row["amount"] = "x"
    assert main([written(rows, "in.jsonl"), "out.csv", f"--bundle={bundles['binary']}", "--bad-rows=skip"]) == 0
    assert len(pd.read_csv("out.csv")) == 50


def test_numbers_as_people_write_them_are_read_as_in_training(
    bundles: dict[str, Path], requests: Requests, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, bundle = requests(30), f"--bundle={bundles['binary']}"
    assert main([written(rows, "plain.csv"), "plain.out.csv", bundle]) == 0
    german = [row | {"amount": f"{row['amount']:.3f} €".replace(".", ",")} for row in rows]
    assert main([written(german, "german.csv", sep=";"), "german.out.csv", bundle, "--csv={decimal: ','}"]) == 0
    assert Path("plain.out.csv").read_bytes() == Path("german.out.csv").read_bytes()
    capsys.readouterr()
    assert main(["german.csv", "out.csv", bundle]) == 1  # 1,234 € may be a thousand
    assert "--csv" in capsys.readouterr().err
    late = [*rows, rows[0] | {"amount": "1,5"}]  # only one row of a file with decimal points has a comma
    assert main([written(late, "late.csv"), "out.csv", bundle]) == 1
    assert "amount: must be a number, not a string ('1,5')" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "name", "said"),
    [
        ("order,colour\n1,red\n", "in.csv", "needs the columns 'amount', 'shop'; the table has order, colour"),
        ("", "in.csv", "in.csv: it contains no rows"),
        ("amount,shop\n", "in.csv", "in.csv: it contains no rows"),
        ("amount,amount,shop\n1,2,north\n", "in.csv", "column names repeat: 'amount'"),
        ("amount,shop\n1,\xc0\xd0\xdd\xce\n" * 9, "in.csv", "set data.csv.encoding with --csv"),
        ("amount,shop\n" + "1,north\n" * 150_000 + "2,n\xf6rth\n", "in.csv", "after line"),
        ("x", "in.parquet", "in.parquet can't be read"),
        ("x", "in.xlsx", "is an Excel file"),
        ("[1, 2]", "in.json", "a table is an array of objects"),
        ('amount,shop\n1,"north\n' + "2,south\n" * 200_000, "in.csv", "is a quote not closed?"),
        (None, "in.csv", "in.csv not found"),
    ],
)  # fmt: skip
def test_what_cant_be_read_is_a_line(
    content: str | None, name: str, said: str, bundles: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        Path(name).write_bytes(content.encode("latin-1"))
    assert main([name, "out.csv", f"--bundle={bundles['binary']}"]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.startswith("atlas predict: ")
    assert len([line for line in error.splitlines() if "lacks columns" not in line]) == 1
    assert {file.name for file in Path().iterdir()} <= {name}


def test_an_output_is_never_overwritten_unasked_nor_left_half(
    bundles: dict[str, Path], requests: Requests, capsys: pytest.CaptureFixture[str]
) -> None:
    file, bundle = written(requests(9), "in.csv"), f"--bundle={bundles['binary']}"
    Path(".out.csv.part").write_text("left by a run that was killed")
    assert main([file, "out.csv", bundle]) == 0
    first = Path("out.csv").read_bytes()
    assert main([file, "out.csv", bundle]) == 1
    assert "out.csv exists: --force replaces it" in capsys.readouterr().err
    assert main([file, "out.csv", bundle, "--force"]) == 0
    assert Path("out.csv").read_bytes() == first
    assert not Path(".out.csv.part").exists()
    for output, said in (("out.xml", "must end with .csv"), ("no/out.csv", "there is no folder"), ("in.csv", "exists")):
        assert main([file, output, bundle]) == 1
        assert said in capsys.readouterr().err
    Path("in.csv").write_text(Path("in.csv").read_text().replace("city", "prediction"))
    assert main([file, "new.csv", bundle]) == 1
    assert "the input's column 'prediction' has the name of a result" in capsys.readouterr().err
    assert not Path("new.csv").exists()
    assert main([file, "new.csv", "--bundle=nowhere"]) == 1
    assert "no model bundle at nowhere" in capsys.readouterr().err


def test_a_file_is_read_a_chunk_at_a_time(requests: Requests, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "HEAD", 5_000)
    monkeypatch.setattr(chunks, "ROWS", 50)
    written(requests(5000), "in.csv")
    written(requests(5000), "in.jsonl")
    for name in ("in.csv", "in.jsonl"):
        with ExitStack() as files:
            table = chunks.open_table(name, CsvParams(), files)
            assert len(next(table.chunks).rows) == 50
            assert table.total is not None
            assert table.done() < table.total / 10
    # A row group at a time.
    pd.DataFrame(requests(5000)).to_parquet("in.parquet", row_group_size=50)
    with ExitStack() as files:
        table = chunks.open_table("in.parquet", CsvParams(), files)
        assert table.total == 5000
        next(table.chunks), next(table.chunks)
        assert table.done() == 50


def test_a_folder_of_parquet_files_and_a_compressed_file_are_tables(
    bundles: dict[str, Path], requests: Requests
) -> None:
    rows = requests(6)
    Path("folder/city=a").mkdir(parents=True)
    written([{k: v for k, v in row.items() if k != "city"} for row in rows], "folder/city=a/part.parquet")
    Path("in.csv.gz").write_bytes(gzip.compress(Path(written(rows, "in.csv")).read_bytes()))
    for source in ("folder", "in.csv.gz"):
        assert main([source, "out.jsonl", f"--bundle={bundles['binary']}", "--force"]) == 0
        assert len(Path("out.jsonl").read_text().splitlines()) == 6


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing(
    number: signal.Signals, bundles: dict[str, Path], requests: Requests
) -> None:
    """The run is at its second chunk, with the answers of the first in its temporary file."""
    written(requests(20), "in.csv")
    code = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # the tests themselves may run where it is ignored
from service.batch import chunks
from service.batch.__main__ import main
from service.predictor import Predictor
chunks.ROWS, predict = 5, Predictor.predict
def slowly(self, rows, *options):
    if rows[0]["amount"] == float(sys.argv.pop()):
        print("at the second chunk", flush=True)
        sys.stdin.read()
    return predict(self, rows, *options)
table = main.__globals__["open_table"]
def opened(*given):
    Predictor.predict = slowly
    return table(*given)
main.__globals__["open_table"] = opened
sys.argv += [sys.argv.pop()] * 3
sys.exit(main(sys.argv[1:-3]))
"""
    second = str(requests(20)[5]["amount"])
    run = subprocess.Popen(
        [sys.executable, "-c", code, "in.csv", "out.csv", f"--bundle={bundles['binary']}", second],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert run.stdout is not None
    assert run.stdout.readline() == "at the second chunk\n"
    assert {file.name for file in Path().iterdir()} == {"in.csv", ".out.csv.part"}
    run.send_signal(number)
    _, error = run.communicate(timeout=60)
    assert run.returncode == 130, error
    assert error == "atlas predict: interrupted; out.csv is not written\n"
    assert [file.name for file in Path().iterdir()] == ["in.csv"]


def read_to_the_end(terminal: int) -> bytes:
    """What is written to the terminal, until nothing has it open any more, which reads as an error."""
    shown = b""
    with suppress(OSError):
        while part := os.read(terminal, 65536):
            shown += part
    return shown


def test_the_command_runs_in_the_callers_folder_and_shows_a_bar_on_a_terminal(
    bundles: dict[str, Path], requests: Requests, here: Path
) -> None:
    file = written(requests(50), "in.csv")
    terminal, end = pty.openpty()
    termios.tcsetwinsize(end, (24, 100))
    command = [
        *(sys.executable, "-m", "infra.cli", "predict", file, "out.csv"),
        *("--bundle", os.path.relpath(bundles["binary"])),
    ]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    with ThreadPoolExecutor(1) as reader:
        reading = reader.submit(read_to_the_end, terminal)
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=end, text=True, timeout=100, env=environment, check=False
        )
        os.close(end)
        shown = reading.result(10)
    os.close(terminal)
    assert done.returncode == 0, shown
    assert f"{here / 'out.csv'}: 50 rows predicted" in done.stdout
    assert len((here / "out.csv").read_text().splitlines()) == 51
    assert re.search(rb"\d+%\|", shown)
    # Not on a terminal: nothing but the result.
    command += ["--force"]
    quiet = subprocess.run(command, capture_output=True, text=True, timeout=100, env=environment, check=False)
    assert (quiet.returncode, quiet.stderr) == (0, "")
