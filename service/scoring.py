"""The tables of MLflow's scoring protocol and of KServe's first protocol as rows."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import UNSET

from ml.schema import Feature, Schema
from ml.values import is_missing, number
from service.errors import ApiError
from service.protocols import Invocation, Split, Table

Rows = list[dict[str, Any]]
TRUTHS = {"true": True, "false": False}


def read_invocation(document: Invocation, schema: Schema) -> Rows:
    """The rows of a document in whichever of MLflow's forms it has; a 422 when it has none or several of them."""
    given = {name: value for name in FORMS if (value := getattr(document, name)) is not UNSET}
    if len(given) != 1:
        raise ApiError(422, "no_rows", f"send an object with exactly one of {', '.join(FORMS)}")
    ((form, value),) = given.items()
    return FORMS[form](value, schema)


def read_instances(instances: Table, schema: Schema) -> Rows:
    """Rows as objects; as lists of values in the order of the features; or as an object of columns, or of one row."""
    if isinstance(instances, dict):
        return _by_column(instances)
    names = [feature.name for feature in schema.features]
    return [
        row if isinstance(row, dict) else _named(number, row, names, "one for each feature")
        for number, row in enumerate(instances)
    ]


def _named(place: int, row: Sequence[Any], names: Sequence[str], why: str) -> dict[str, Any]:
    if len(row) != len(names):
        raise ApiError(422, "not_a_row", f"row {place} has {len(row)} values, not {len(names)}, {why}")
    return dict(zip(names, row, strict=True))


def _by_column(columns: Mapping[str, Any]) -> Rows:
    if not all(isinstance(values, list) for values in columns.values()):
        return [dict(columns)]  # one row
    lengths = {len(values) for values in columns.values()}
    if len(lengths) > 1:
        raise ApiError(422, "no_rows", f"columns have different lengths: {sorted(lengths)[:5]}")
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _split(split: Split, schema: Schema) -> Rows:
    names = [feature.name for feature in schema.features] if split.columns is None else split.columns
    if len(set(names)) != len(names):
        raise ApiError(422, "no_rows", "dataframe_split.columns contains a name twice")
    return [_named(place, row, names, "one for each column") for place, row in enumerate(split.data)]


def _records(records: Rows, _: Schema) -> Rows:
    return records


FORMS: dict[str, Callable[[Any, Schema], Rows]] = {
    "dataframe_split": _split,
    "dataframe_records": _records,
    "instances": read_instances,
    "inputs": read_instances,
}
"""MLflow's forms of a table, and how each is read."""


def read_csv(body: bytes, schema: Schema) -> Rows:
    """The rows of a CSV file with a header, as `pandas.DataFrame.to_csv` writes it; columns without a name are dropped.

    A 400 when it isn't such a file.
    """
    try:
        lines = csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True)
        header = next(lines, [])
        found = [(lines.line_num, line) for line in lines if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ApiError(400, "not_csv", f"the body is not CSV in UTF-8: {str(error)[:200]}") from None
    named = [name for name in header if name]
    if not named or len(set(named)) != len(named):
        raise ApiError(400, "not_csv", "the first line must be a header of distinct names")
    for place, line in found:
        if len(line) != len(header):
            raise ApiError(400, "not_csv", f"line {place} has {len(line)} values, but the header has {len(header)}")
    readers = {feature.name: _cell_reader(feature, schema) for feature in schema.features}
    return [
        {
            name: readers[name](text) if name in readers else text
            for name, text in zip(header, line, strict=True)
            if name
        }
        for _, line in found
    ]


def _cell_reader(feature: Feature, schema: Schema) -> Callable[[str], Any]:
    """A CSV file has only text: what that text is for a feature, as JSON would have it."""
    missing = schema.spellings(feature)

    def read(text: str) -> Any:
        if is_missing(text, missing):
            return None
        if feature.type != "numeric":
            return text
        if "boolean" in feature.forms and (word := text.strip().lower()) in TRUTHS:
            return TRUTHS[word]
        found = number(text)
        return text if found is None else found

    return read
