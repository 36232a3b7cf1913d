"""Writes a params.yaml for a table after looking at it, and says what it inferred: `python -m ml.suggestion`."""

import argparse
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, get_args

import numpy as np
import pandas as pd
import yaml

from ml.contract import check_names
from ml.data_params import DataParams
from ml.inference import MOMENT, identifies_rows, infer, target_marks
from ml.params import PARAMS, ParamsError, load_params
from ml.schema import FeatureType, SchemaError, Task
from ml.sources import table
from ml.sources.reading import Read, SourceError
from ml.tables import holds_many, learn_times, moments_of

OLD = Path("params.old.yaml")
"""Where the params.yaml that is replaced is kept."""
COLUMNS = 50
"""Maximum number of columns whose types are listed."""
FEW_CLASSES = 20
"""Up to this many different whole numbers in a target are taken as classes, if each has 5 rows on average."""
CLASS_ROWS = 5
_COUNT = re.compile(
    r"(?:^|[\W_])(?:n|num|nr|no_of|number|counts?|quantity|qty|visits|times|age|years|months|days)(?:$|[\W_])", re.I
)
"""Names of amounts."""
_OTHER_MOMENT = re.compile(r"birth|born|dob|expir|valid|until|due|end", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What the content of a table suggests."""

    task: Task
    reason: str
    """Why it is that task."""
    id: str | None
    time: str | None
    types: dict[str, FeatureType]
    """Inferred type by column, for columns that can be features."""
    asked: tuple[str, ...] = ()
    """What only the owner of the table can tell, a sentence each."""


def suggest(found: pd.DataFrame, target: str, task: Task | None = None) -> Suggestion:
    """The task, the columns with the row's name and time, and the types of the others.

    Raises SchemaError when the target isn't a column, or can't be predicted.
    """
    check_names(list(found.columns), DataParams(source="table", uri="", target=target, task="binary"))
    inferred, reason = _task(found[target])
    others = [name for name in found.columns if name != target and not holds_many(found[name]).any()]
    types: dict[str, FeatureType] = {}
    asked = []
    for name in others:
        if found[name].notna().any():
            try:
                types[name] = infer(found[name])
            except SchemaError as error:  # times whose day and month can't be told apart
                types[name] = "datetime"
                asked.append(str(error))
    names = [
        name for name in types if identifies_rows(found[name], name) or _names_rows(found[name], name, types[name])
    ]
    times = [
        name
        for name, kind in types.items()
        if kind == "datetime"
        and found[name].notna().all()
        and found[name].nunique() > 1  # the day of an export says nothing of a row
        and not _OTHER_MOMENT.search(name)
    ]
    likely = [name for name in times if MOMENT.search(name)] or times
    # Rows of a log or a series stand in the order of their time. Elsewhere a time is a property like others.
    ordered = [name for name in likely if not asked and _in_order(found[name], name)]
    return Suggestion(
        task=task or inferred,
        reason="as you said" if task else reason,
        id=names[0] if names else None,
        time=ordered[0] if ordered else None,
        types=types,
        asked=(
            *([] if (task or inferred) == "regression" else target_marks(found[target], target)),
            *asked,
            *(
                f"{name!r} may be the time of a row; if later rows are to be predicted from earlier ones, "
                "name it in data.time and set split.method: time"
                for name in likely
                if not ordered
            ),
            *(
                f"{name!r} may be the time of a row, written as a number; if later rows are to be predicted from "
                "earlier ones, name it in data.time, its form in data.time_format (%Y, %Y%m%d, epoch_s …), and set "
                "split.method: time"
                for name, kind in types.items()
                if kind == "numeric" and not times and MOMENT.search(name) and _counts_up(found[name])
            ),
        ),
    )


def _in_order(column: "pd.Series[Any]", name: str) -> bool:
    moments = moments_of(column, learn_times(column, name, None, None))
    return moments.is_monotonic_increasing or moments.is_monotonic_decreasing


def _counts_up(column: "pd.Series[Any]") -> bool:
    """Whether the rows stand in its order, and it differs in most of them, as in a series."""
    return bool(column.is_monotonic_increasing and column.nunique() > len(column) / 2)


def write_params(uri: str, target: str, column: "pd.Series[Any]", suggestion: Suggestion) -> str:
    """The text of params.yaml; `column`: the target."""
    stem = PurePosixPath(uri.partition("?")[0]).name.partition(".")[0]
    name = re.sub(r"[^a-z0-9]+", "-", stem.casefold()).strip("-") or "table"
    classes = suggestion.task != "regression"
    split = "time" if suggestion.time else "stratified" if classes else "random"
    positive = _positive(column) if suggestion.task == "binary" else None
    columns = [column for column in suggestion.types if column != suggestion.id]
    listed = [f"{_scalar(column)}: {suggestion.types[column]}" for column in columns[:COLUMNS]]
    listed += [f"… {len(columns) - COLUMNS} more"] if len(columns) > COLUMNS else []
    return f"""\
# The settings of the pipeline for {_scalar(uri)}, written by `atlas init` after a look at the table.
# ml/params.py documents every key, its default and its allowed values. A wrong key or value is an error.
seed: 13

data:
  source: table
  uri: {_scalar(uri)}
  target: {_scalar(target)}
  task: {suggestion.task}   # {suggestion.reason}
  {_line("positive", positive)}   # binary: the class whose probability is predicted
  {_line("id", suggestion.id)}   # names the row; never a feature
  {_line("time", suggestion.time)}   # the time of a row: for time splits, freshness, day blocks
  # exclude: [COLUMN]   # never features, such as what is known only after the target
  # missing: ["?", NA, -999]   # spellings of a missing value, instead of the default ones
  features: {{}}   # what you know better than the inference: type, required, minimum, maximum, missing
  # Inferred types:
  #   {f"{chr(10)}  #   ".join(listed)}

contract: {{on_breach: stop}}   # or set_aside; also rules for columns, uniqueness, freshness
split: {{method: {split}, validation: 0.15, test: 0.15}}   # random, stratified or time
encoding: {{}}   # how columns become numbers: crosses, ordered categories, parts of times
model: {{name: {name}}}   # without `estimators`, Atlas chooses them within `budget`
evaluation: {{}}   # slices: [COLUMN]; below min_class_rows of the rarest class, figures are doubted
gate: {{metric: {"log_loss" if classes else "rmse"}}}   # also minimum, maximum: what a model must reach
registry: {{experiment: {name}, model: {name}}}
"""


def _line(key: str, value: str | None) -> str:
    return f"# {key}: …" if value is None else f"{key}: {_scalar(value)}"


def _task(column: "pd.Series[Any]") -> tuple[Task, str]:
    present = column.dropna()
    if holds_many(column).any():
        raise SchemaError(
            f"the target {column.name!r} holds lists, not single values; several labels a row aren't supported"
        )
    different = present.nunique()
    if different < 2:
        raise SchemaError(
            f"the target {column.name!r} has fewer than two different values, so there is nothing to predict"
        )
    if different == 2:
        return "binary", "two values"
    kind = infer(column)
    if kind == "numeric":
        numbers = pd.to_numeric(present, errors="coerce").dropna()
        whole = bool((numbers % 1 == 0).all())
        if whole and different <= FEW_CLASSES and len(present) >= CLASS_ROWS * different:
            if _are_counts(numbers, str(column.name)):
                return "regression", f"{different} whole numbers that look like counts; if they are classes: multiclass"
            return "multiclass", f"{different} whole numbers; if they are amounts: regression"
        return "regression", f"{different} numbers"
    if different > len(present) / 2:
        raise SchemaError(
            f"the target {column.name!r} has {different} different values in {len(present)} rows: no classes, and no "
            "numbers"
        )
    return "multiclass", f"{different} values"


def _are_counts(numbers: "pd.Series[Any]", name: str) -> bool:
    """Whether whole numbers count something: so it is called, or from 0 on larger ones are seldom, as in a count.

    Codes of classes are about equally frequent, or in no order.
    """
    if _COUNT.search(name):
        return True
    by_number = numbers.value_counts().sort_index()
    rows = by_number.to_numpy(dtype=np.int64)
    after = np.diff(rows[int(rows.argmax()) :])
    falls = len(after) > 3 and float(np.mean(after <= 0)) > 0.75
    return bool(falls and by_number.index[0] == 0 and rows[-1] < 0.1 * rows.max())


def _names_rows(column: "pd.Series[Any]", name: str, kind: FeatureType) -> bool:
    """Whether its texts are all different and its name says that it is an identifier."""
    named = re.search(r"(?:^|[\W_])(?:id|uuid|key)$|[a-z](?:Id|ID)$", name)
    return kind == "categorical" and named is not None and bool(column.notna().all()) and column.is_unique


def _positive(column: "pd.Series[Any]") -> str | None:
    """The label of the positive class, as params.yaml spells it; None for numbers and booleans, whose larger counts."""
    labels = sorted(map(str, column.dropna().unique()))
    text = column.dtype == object or isinstance(column.dtype, pd.StringDtype)
    return labels[-1] if text and infer(column) != "numeric" else None


def _scalar(value: str) -> str:
    """A text as YAML spells it, in one line."""
    spelled = yaml.safe_dump(value, allow_unicode=True, width=10**6).removesuffix("\n").removesuffix("\n...")
    return spelled if "\n" not in spelled else json.dumps(value)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="atlas init")
    parser.add_argument("table")
    parser.add_argument("--target", required=True)
    parser.add_argument("--task", choices=get_args(Task))
    parser.add_argument("--force", action="store_true")
    given = parser.parse_args(arguments)
    try:
        if PARAMS.exists() and OLD.exists() and not given.force:
            raise ParamsError(
                f"{OLD} is there from the last time: remove it, or let --force overwrite it with {PARAMS}"
            )
        read = table.read(DataParams(source="table", uri=given.table, target=given.target, task="binary"))
        suggestion = suggest(read.table, given.target, given.task)
        text = write_params(given.table, given.target, read.table[given.target], suggestion)
        if PARAMS.exists():
            PARAMS.replace(OLD)
            print(f"params.yaml is kept as {OLD}.")
        PARAMS.write_text(text)
        load_params()
    except (ParamsError, SchemaError, SourceError) as error:
        print(f"atlas init: {error}", file=sys.stderr)
        return 1
    print("\n".join(_said(given.table, given.target, read, suggestion)))
    return 0


def _said(uri: str, target: str, read: Read, suggestion: Suggestion) -> list[str]:
    kinds = pd.Series(suggestion.types).value_counts()
    shares = read.table[target].value_counts(normalize=True)
    shown = ", ".join(f"{label} {share:.0%}" for label, share in shares.head(3).items()) + (
        ", …" if len(shares) > 3 else ""
    )
    return [
        "params.yaml is written, with what the table suggests:",
        f"  table     {uri}: {len(read.table):,} rows, {len(read.table.columns)} columns",
        f"  target    {target}: {suggestion.task} ({suggestion.reason})"
        + (f": {shown}" if suggestion.task != "regression" else ""),
        f"  id        {suggestion.id or 'none found'}",
        f"  time      {suggestion.time or 'none found'}",
        f"  columns   {', '.join(f'{count} {kind}' for kind, count in kinds.items())}",
        *(f"  assumed   {sentence}" for sentence in read.assumed),
        *(f"  asks      {sentence}" for sentence in suggestion.asked),
        "Correct params.yaml where you know better; then `make up` trains and serves, `make repro` only trains.",
    ]


if __name__ == "__main__":
    sys.exit(main())
