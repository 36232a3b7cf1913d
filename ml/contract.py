"""The data contract: the conditions that raw rows must satisfy before they are used for training."""

import difflib
import re
from dataclasses import dataclass
from datetime import datetime, time
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import JsonValue

from ml.data_params import DataParams
from ml.params import ColumnRule, ContractParams
from ml.schema import Document, Feature, SchemaError
from ml.tables import as_text, by_distinct, learn_times, moments_of, read_column

SHOWN = 30
"""Maximum number of columns that an error lists."""
EXAMPLES = 20
"""Maximum number of rows that the report lists for a breach."""


class ContractError(Exception):
    """The data breaks the contract so that the pipeline must stop; the message names rows and rules."""


class Example(Document):
    """A row that breaks a rule."""

    row: int
    """Position in the source, from 0."""
    id: str | None
    value: str


class Breach(Document):
    """A rule that some rows break."""

    rule: str
    column: str
    rows: int
    examples: tuple[Example, ...]


class Report(Document):
    """The result of the contract check; reports/data_contract.json."""

    rows: int
    """Rows in the source."""
    set_aside: int
    breaches: tuple[Breach, ...] = ()
    newest: str | None = None
    """The latest time (ISO 8601), if rows have a time."""
    assumed: tuple[str, ...] = ()
    """What was inferred in order to read the file and could be otherwise, a sentence each."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A table, split into rows that satisfy the contract and rows that don't."""

    kept: pd.DataFrame
    set_aside: pd.DataFrame
    """These rows have an additional column `breach` with the rules that they break."""
    report: Report


def check_names(columns: list[str], data: DataParams) -> None:
    """Raise SchemaError when params.yaml names a column that the table doesn't have; likely names are suggested."""
    named = [("the target", data.target)]
    named += [(f"data.{key}:", name) for key, name in (("id", data.id), ("time", data.time)) if name is not None]
    named += [("data.features:", name) for name in data.features] + [("data.exclude:", name) for name in data.exclude]
    for what, name in named:
        if name in columns:
            continue
        folded = {column.casefold(): column for column in columns}
        close = difflib.get_close_matches(name.casefold(), folded, n=1)
        meant = f"; did you mean {folded[close[0]]!r}?" if close else ""
        shown = ", ".join(columns[:SHOWN]) + (f", … ({len(columns)} columns)" if len(columns) > SHOWN else "")
        headless = sum(column.replace(".", "", 1).lstrip("-").isdigit() for column in columns) >= len(columns) / 2
        hint = (
            " (a file without a header? data.csv.names names its columns)"
            if headless and data.csv.names is None
            else ""
        )
        raise SchemaError(f"{what} {name!r} is not a column; the table has {shown}{meant}{hint}")


def check(
    table: pd.DataFrame,
    rules: ContractParams,
    id_column: str | None,
    time_column: str | None,
    now: datetime,
    assumed: tuple[str, ...] = (),
    data: DataParams | None = None,
) -> Checked:
    """Check the table against its contract.

    `data`: what params.yaml declares about the columns, such as how times are written.
    Raises ContractError, with a line per breach, when the contract says stop, too many rows break it, or the whole
    table breaks it (too few rows, a missing column, outdated rows).
    """
    _check_table(table, rules, id_column, time_column)
    newest = _newest(table, time_column, data)
    if rules.freshness is not None:
        _check_freshness(rules, newest, time_column, now)
    found = [(rule, column, bad) for rule, column, bad in _broken(table, rules, data) if bad.any()]
    breaches = tuple(_describe(table, rule, column, bad, id_column) for rule, column, bad in found)
    bad_rows = np.logical_or.reduce([bad for _, _, bad in found]) if found else np.zeros(len(table), dtype=bool)
    report = Report(
        rows=len(table),
        set_aside=int(bad_rows.sum()),
        breaches=breaches,
        newest=newest and newest.isoformat(),
        assumed=assumed,
    )
    if breaches and rules.on_breach == "stop":
        raise ContractError(
            "\n".join(["the data breaks its contract (contract.on_breach: stop):", *map(_line, breaches)])
        )
    if report.set_aside > rules.max_set_aside * len(table):
        raise ContractError(
            "\n".join(
                [
                    f"the data breaks its contract in {report.set_aside} of {len(table)} rows, more than "
                    f"contract.max_set_aside ({rules.max_set_aside:.2%}) allows:",
                    *map(_line, breaches),
                ]
            )
        )
    labels = pd.Series("", index=table.index)
    for rule, column, bad in found:
        labels[bad] += f"{column}: {rule}; "
    return Checked(
        kept=table[~bad_rows].reset_index(drop=True),
        set_aside=table[bad_rows].assign(breach=labels[bad_rows].str.rstrip("; ")).reset_index(drop=True),
        report=report,
    )


def _check_table(table: pd.DataFrame, rules: ContractParams, id_column: str | None, time_column: str | None) -> None:
    wanted = {*rules.columns, *rules.unique, *(name for name in (id_column, time_column) if name)}
    if missing := sorted(wanted - set(table.columns)):
        raise ContractError(
            f"the table lacks {', '.join(map(repr, missing))}, named in params.yaml; it has {', '.join(table.columns)}"
        )
    if len(table) < rules.min_rows:
        raise ContractError(f"the table has {len(table)} rows, but contract.min_rows requires {rules.min_rows}")


def _newest(table: pd.DataFrame, time_column: str | None, data: DataParams | None) -> pd.Timestamp | None:
    if time_column is None:
        return None
    times = moments_of(table[time_column], _times(table[time_column], time_column, data))
    newest = (times if times.dt.tz is None else times.dt.tz_localize(None)).max()
    return None if pd.isna(newest) else newest


def _times(column: "pd.Series[Any]", name: str, data: DataParams | None) -> Feature:
    """How the times of a column are written."""
    try:
        return learn_times(column, name, *((None, None) if data is None else data.times(name)))
    except SchemaError as error:
        raise ContractError(str(error)) from None


def _check_freshness(
    rules: ContractParams, newest: pd.Timestamp | None, time_column: str | None, now: datetime
) -> None:
    freshness = rules.freshness
    if freshness is None:
        return
    if newest is None:
        raise ContractError(f"contract.freshness: column {time_column!r} has no valid times")
    reference = now if freshness.as_of is None else datetime.combine(freshness.as_of, time.min)
    if reference - newest > freshness.max_age:
        raise ContractError(
            f"contract.freshness: the newest row is from {newest.isoformat()}, more than {freshness.max_age} "
            f"before {reference.isoformat(timespec='minutes')}"
        )


def _broken(
    table: pd.DataFrame, rules: ContractParams, data: DataParams | None
) -> list[tuple[str, str, NDArray[np.bool_]]]:
    """(rule, column, rows that break it) for every rule, including rules that no row breaks."""
    results = []
    if rules.unique:
        repeats = table.duplicated(list(rules.unique), keep="first").to_numpy(dtype=bool)
        results.append(("unique (an earlier row is the same)", "+".join(rules.unique), repeats))
    for name, rule in rules.columns.items():
        results += [(text, name, bad) for text, bad in _broken_column(table[name], name, rule, data)]
    return results


def _broken_column(
    column: "pd.Series[Any]", name: str, rule: ColumnRule, data: DataParams | None
) -> list[tuple[str, NDArray[np.bool_]]]:
    missing = column.isna().to_numpy(dtype=bool)
    results: list[tuple[str, NDArray[np.bool_]]] = []
    if rule.required:
        results.append(("required", missing))
    if rule.type is not None:
        feature = _times(column, name, data) if rule.type == "datetime" else Feature(name=name, type=rule.type)
        results.append((f"type {rule.type}", read_column(column, feature)[1]))
    if rule.minimum is not None or rule.maximum is not None:
        values, unreadable = read_column(column, Feature(name=name, type="numeric"))
        numbers = values.astype(np.float64)
        if rule.type is None:
            results.append(("a number", unreadable))
        if rule.minimum is not None:
            results.append((f"minimum {rule.minimum:g}", numbers < rule.minimum))
        if rule.maximum is not None:
            results.append((f"maximum {rule.maximum:g}", numbers > rule.maximum))
    if rule.categories is None and rule.pattern is None:
        return results
    text = as_text(column)
    if rule.categories is not None:
        results.append(
            (f"one of {', '.join(rule.categories)}", ~missing & ~text.isin(rule.categories).to_numpy(dtype=bool))
        )
    if rule.pattern is not None:
        # Not by pandas: the regular expressions of Arrow, which it uses for texts, lack (?>…) and {1,2000}.
        pattern = re.compile(rule.pattern)
        matches = by_distinct(text, lambda value: pattern.fullmatch(value) is not None, bool)
        results.append((f"pattern {rule.pattern}", ~missing & ~matches))
    return results


def _describe(table: pd.DataFrame, rule: str, column: str, bad: NDArray[np.bool_], id_column: str | None) -> Breach:
    def value(row: int) -> JsonValue:
        return "/".join(str(table[name].iloc[row]) for name in (column.split("+") if column not in table else [column]))

    rows = [int(row) for row in np.flatnonzero(bad)[:EXAMPLES]]
    return Breach(
        rule=rule,
        column=column,
        rows=int(bad.sum()),
        examples=tuple(
            Example(row=row, id=None if id_column is None else str(table[id_column].iloc[row]), value=str(value(row)))
            for row in rows
        ),
    )


def _line(breach: Breach) -> str:
    shown = ", ".join(
        f"row {example.row}{'' if example.id is None else f' ({example.id})'} is {example.value}"
        for example in breach.examples[:3]
    )
    return f"  {breach.column}: {breach.rule}: {breach.rows} rows; {shown}"
