"""Reads a file in any format that pandas and Arrow know without a further dependency; cells of text files stay text."""

import io
import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

import fsspec
import pandas as pd

from ml.data_params import DataParams, Format
from ml.sources.csv_dialect import BLANKS, Dialect, DialectError, find_dialect

ENDINGS: dict[str, Format] = {
    ".csv": "csv", ".tsv": "csv", ".tab": "csv", ".txt": "csv", ".data": "csv", ".dat": "csv",
    ".json": "json", ".jsonl": "json", ".ndjson": "json",
    ".parquet": "parquet", ".pq": "parquet", ".feather": "feather", ".arrow": "feather", ".ipc": "feather",
    ".orc": "orc", ".dta": "stata", ".sas7bdat": "sas", ".xpt": "sas",
}  # fmt: skip
"""Format by the file's ending; the ending of a compressed file (.gz, .bz2, .xz, .zip) comes before it."""
COMPRESSED = (".gz", ".bz2", ".xz", ".zip", ".zst")
CONVERT = {
    ".xlsx": "an Excel file",
    ".xlsm": "an Excel file",
    ".xlsb": "an Excel file",
    ".xls": "an Excel file",
    ".ods": "a spreadsheet",
    ".sav": "an SPSS file",
    ".rds": "an R file",
    ".rda": "an R file",
    ".rdata": "an R file",
    ".pkl": "a pickle",
    ".pickle": "a pickle",
    ".h5": "an HDF5 file",
    ".hdf5": "an HDF5 file",
    ".sqlite": "a database",
    ".db": "a database",
    ".avro": "an Avro file",
}
"""Endings of files that aren't read, and what they are."""
REMEDY = {
    "an Excel file": "save the sheet as CSV, or run once `pandas.read_excel('{uri}').to_parquet('{stem}.parquet')` "
    "(pip install openpyxl)",
    "a spreadsheet": "save the sheet as CSV",
    "an SPSS file": "run once `pandas.read_spss('{uri}').to_parquet('{stem}.parquet')` (pip install pyreadstat)",
    "an R file": "run once in R: `arrow::write_parquet(readRDS('{uri}'), '{stem}.parquet')`",
    "a pickle": "run once `pandas.read_pickle('{uri}').to_parquet('{stem}.parquet')`",
    "an HDF5 file": "run once `pandas.read_hdf('{uri}').to_parquet('{stem}.parquet')` (pip install tables)",
    "a database": "export the table: `pandas.read_sql(…).to_parquet('{stem}.parquet')`",
    "an Avro file": "convert it to Parquet",
}  # fmt: skip


class SourceError(Exception):
    """A table that can't be read; the message names its address and the remedy."""


@dataclass(frozen=True, slots=True)
class Read:
    """A table, and what was assumed in order to read it, a sentence each."""

    table: pd.DataFrame
    assumed: tuple[str, ...] = ()


def read_file(params: DataParams) -> Read:
    """The table at `params.uri`, with the types of the file; cells of text files are text, empty where blank.

    Raises SourceError, one line, when it can't be read.
    """
    uri = params.uri
    kind = params.format or format_by_name(uri)
    try:
        if kind == "parquet":
            return _columns(pd.read_parquet(uri))
        data = _bytes(uri)
        kind = kind or format_by_content(data)
        return _read_csv(data, params) if kind == "csv" else _columns(_typed(kind, data, uri))
    except FileNotFoundError as error:
        # fsspec says "not found" also when it can't connect; the cause tells.
        if error.__cause__ is not None:
            raise SourceError(f"{uri} can't be read as {kind or 'a table'}: {error.__cause__}") from None
        raise SourceError(f"{uri} not found: check data.uri in params.yaml") from None
    except (DialectError, SourceError) as error:
        raise SourceError(f"{uri}: {error}") from None
    # Readers raise many kinds of errors: a damaged file, no credentials, no route to the host.
    except Exception as error:
        if twice := re.search(r"Multiple matches for FieldRef.Name\((.*?)\) in", str(error)):
            raise SourceError(f"{uri}: column names repeat: {twice[1]!r}; give each column its own name") from None
        raise SourceError(
            f"{uri} can't be read as {kind or 'a table'}: {' '.join(str(error).split()) or type(error).__name__}"
        ) from error


def format_by_name(uri: str) -> Format | None:
    """The format by the URI's ending; None when only the content can tell."""
    path = PurePosixPath(uri.split("?", 1)[0].rstrip("/"))
    endings = [ending.lower() for ending in path.suffixes if ending.lower() not in COMPRESSED]
    if "://" not in uri and Path(uri).is_dir():
        if any(Path(uri).rglob("*.parquet")) or any(Path(uri).rglob("*.pq")):
            return "parquet"
        raise SourceError(f"{uri} is a folder without Parquet files; data.uri names a file, or such a folder")
    if not endings:
        return None
    if endings[-1] in CONVERT:
        what = CONVERT[endings[-1]]
        remedy = REMEDY[what].format(uri=path.name, stem=path.stem)
        raise SourceError(f"{uri} is {what}, which isn't read directly: {remedy}, and name the new file in data.uri")
    return ENDINGS.get(endings[-1])


def _bytes(uri: str) -> bytes:
    """The file's content, decompressed by its ending."""
    with fsspec.open(uri, "rb", compression="infer") as file:
        return bytes(file.read())


def format_by_content(data: bytes) -> Format:
    """The format by the first bytes."""
    if data[:4] == b"PAR1":
        return "parquet"
    if data[:6] == b"ARROW1":
        return "feather"
    if data[:3] == b"ORC":
        return "orc"
    if data.lstrip()[:1] in (b"{", b"["):
        return "json"
    if data[:2] in (b"PK", b"\x1f\x8b") or data[:8] == b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1":
        raise SourceError(
            "its content is compressed or a spreadsheet: give it its ending (.csv.gz, .zip), or save the sheet as CSV"
        )
    if b"\0" in data[:4096] and data[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        raise SourceError(f"the format is unknown; set data.format in params.yaml: {', '.join(get_args(Format))}")
    return "csv"


def _typed(kind: Format, data: bytes, uri: str) -> pd.DataFrame:
    """The table in a file whose values have types."""
    file = io.BytesIO(data)
    match kind:
        case "json":
            return pd.DataFrame(records_of(data))
        case "feather":
            return pd.read_feather(file)
        case "orc":
            return pd.read_orc(file)
        case "stata":
            return pd.read_stata(file)
        case "sas":
            ending: Literal["xport", "sas7bdat"] = "xport" if uri.lower().endswith(".xpt") else "sas7bdat"
            return pd.read_sas(file, format=ending, encoding="infer")
        case _:
            return pd.read_parquet(file)


def _read_csv(data: bytes, params: DataParams) -> Read:
    dialect = find_dialect(data, params.uri, params.csv)
    if not dialect.width:
        raise SourceError("it contains no rows")
    table, names = _parse(data, dialect, params)
    assumed = list(dialect.assumed)
    if len(names) == len(table.columns) - 1:
        # R's write.table names no column for the rows' names; other programs end each row with a delimiter.
        if (table.iloc[:, -1] == "").all():
            table = table.iloc[:, :-1]
        else:
            names = ["", *names]
            assumed.append("the header has a name less than the rows have fields: the first field is the row's name")
    elif len(names) != len(table.columns):
        raise SourceError(
            f"the header names {len(names)} columns, but the rows have {len(table.columns)} fields: "
            "correct it, or set data.csv.skiprows or data.csv.names in params.yaml"
        )
    table.columns = pd.Index(names)
    return _columns(table, tuple(assumed))


def _parse(data: bytes, dialect: Dialect, params: DataParams) -> tuple[pd.DataFrame, list[str]]:
    """All cells as text, and the names of the columns: from params, or else from the first line."""
    text = io.StringIO(data.decode(dialect.encoding), newline="")
    for _ in range(dialect.skip):
        text.readline()
    # A first line with as many fields as the rows: pandas refuses rows with more, and fills a shorter header.
    first = (" " if dialect.delimiter == BLANKS else dialect.delimiter).join(map(str, range(dialect.width)))
    try:
        table = pd.read_csv(
            io.StringIO(f"{first}\n{text.read()}"),
            sep=dialect.delimiter,
            dtype=str,
            index_col=False,
            keep_default_na=False,
            na_filter=False,
            comment=params.csv.comment,
            skipinitialspace=dialect.delimiter != BLANKS,
        )
    except pd.errors.ParserError as error:
        if found := re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", str(error)):
            raise SourceError(
                f"line {int(found[2]) + dialect.skip - 1} has {found[3]} fields where {found[1]} are expected: quote a "
                f"text that contains the delimiter {dialect.delimiter!r}, or set data.csv (delimiter, skiprows) in "
                "params.yaml"
            ) from None
        raise
    if params.csv.names is not None:
        return table, list(params.csv.names)
    header = [str(name).strip() for name in table.iloc[0]]
    header[0] = header[0].lstrip("# ") or header[0]  # a column may be called #
    if dialect.header < dialect.width:
        header = header[: dialect.header]
    return table.iloc[1:].reset_index(drop=True), header


def records_of(data: bytes) -> list[dict[str, Any]]:
    """The objects of a JSON array, or of JSON Lines."""
    text = data.decode("utf-8-sig")
    if text.lstrip()[:1] == "[":
        rows = json.loads(text, object_pairs_hook=_object)
    else:
        rows = []
        # Not splitlines: a text in JSON may contain U+2028 and other ends of a line.
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                try:
                    rows.append(json.loads(line, object_pairs_hook=_object))
                except json.JSONDecodeError as error:
                    raise SourceError(
                        f"line {number} is not a JSON object ({error.msg}); a table is an array of objects, or "
                        "an object a line"
                    ) from None
    if not all(isinstance(row, dict) for row in rows):
        raise SourceError("as JSON, a table is an array of objects, or an object a line")
    if re.search(rb"\\u[dD][89a-fA-F]", data):
        _check_surrogates(rows)
    return rows


def _check_surrogates(rows: list[dict[str, Any]]) -> None:
    """Raise SourceError naming the first half of a surrogate pair: JSON can say it, but it is no Unicode text."""
    wrong = "half of a surrogate pair, so it is no Unicode text: correct it in the file"
    for number, row in enumerate(rows):
        if _is_unicode(row):
            continue
        name = next(name for name, value in row.items() if not _is_unicode({name: value}))
        if not _is_unicode(name):
            raise SourceError(f"the column's name {name!a} has {wrong}")
        raise SourceError(f"column {name!r} has {str(row[name])[:100]!a} in row {number}, which has {wrong}")


def _is_unicode(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if repeated := [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]:
        raise SourceError(f"the name {repeated[0]!r} occurs twice in one object: rename it")
    return dict(pairs)


def _columns(table: pd.DataFrame, assumed: tuple[str, ...] = ()) -> Read:
    """The table with distinct names of text for its columns; a named index becomes columns."""
    if any(name is not None for name in table.index.names):
        table = table.reset_index()
    names = ["" if name is None else str(name).strip() for name in table.columns]
    names = [name or f"Unnamed: {place}" for place, name in enumerate(names)]
    counted = [(name, count) for name, count in Counter(names).items() if count > 1]
    if repeated := [f"{name!r} ({count} times)" for name, count in counted]:
        raise SourceError(
            f"column names repeat: {', '.join(repeated[:5])}; give each column its own name"
            + (
                " (no header? data.csv.names)"
                if all(re.fullmatch(r"[-+.\d]+|NaN", name) for name, _ in counted)
                else ""
            )
        )
    table.columns = pd.Index(names)
    if not len(table.columns) or not len(table):
        raise SourceError("it contains no rows")
    return Read(table.reset_index(drop=True), assumed)
