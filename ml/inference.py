"""Infers what a column is from its values: its type, words that stand for missing numbers, names of rows."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ml.data_params import DataParams
from ml.schema import Feature, FeatureType
from ml.tables import are_times
from ml.values import LEADING_ZERO

TEXT_WORDS = 3.0
"""A column whose strings have at least this many words on average is text, if few of the strings repeat."""
TEXT_DISTINCT = 0.5
ID_ROWS = 20
"""From this many training values on, a column that never repeats a value can be an identifier of rows."""
MANY_WORDS = 5
"""A column with more different words than this among its numbers is categorical."""
FEW_NUMBERS = 10
"""Up to this many different numbers are also good categories, so that a word among them is a category as well."""
MARKS = frozenset({
    "?", "-", "--", "---", ".", "..", "*", "na", "n.a.", "nan", "none", "nil", "unknown", "missing", "not available",
    "inf", "+inf", "-inf", "infinity", "-infinity", "#div/0!", "#value!", "#ref!", "#num!", "\\n",
})  # fmt: skip
"""Words, in lower case, that people write where a number is missing."""
MOMENT = re.compile(r"date|time|day|month|week|year|stamp|created|updated|recorded|observed|^ds$|_at$|^t$", re.I)
"""Names of columns that hold moments."""
CHANCE_REPEATS = 5.0
"""Whole numbers that would repeat this often by chance and never do are names of rows."""
EVEN_ROWS = 100
"""With fewer rows, one can't tell whether numbers are spread evenly."""
EVEN = 1.5
"""The distance from an even spread, times the root of the number of rows: Kolmogorov and Smirnov's 2 % is 1.5."""
_IDENTIFIER = re.compile(
    r"(?:.*[\W_])?(?:id|ids|uuid|guid|key|index|idx|rowid|row|rownum|rownames?|level_0|nr|no)"
    r"|unnamed: \d+|.*[a-z](?:Id|ID)"
)


@dataclass(frozen=True, slots=True)
class Words:
    """Words among the numbers of a column."""

    words: dict[str, int]
    """Word -> number of values; the most frequent five."""
    marks: bool
    """Whether all of them are MARKS."""
    missing: bool
    """Whether they can only stand for missing numbers."""
    share: float
    """Share of the values that are numbers."""


def infer(column: "pd.Series[Any]") -> FeatureType:
    """The type of an undeclared column; whole numbers are always numeric, even with few distinct values.

    Digits with a leading zero are categories: a zip code.
    Raises SchemaError when the order of day and month of its times is ambiguous.
    """
    present = column.dropna()
    if pd.api.types.is_bool_dtype(present.infer_objects().dtype):
        return "boolean"
    if pd.api.types.is_numeric_dtype(column.dtype):
        return "numeric"
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        return "datetime"
    words = present.astype("string").str.strip()
    if set(words.str.lower().unique()) <= {"true", "false", "yes", "no"}:
        return "boolean"
    if _numbers(words).notna().all() or ((found := words_among_numbers(words)) is not None and found.marks):
        return "numeric"
    if are_times(words) or _marks_among_times(words):
        return "datetime"
    seldom_repeats = words.nunique() >= TEXT_DISTINCT * len(words)
    wordy = (words.str.count(r"\s+") + 1).mean() >= TEXT_WORDS
    return "text" if wordy and seldom_repeats else "categorical"


def words_among_numbers(column: "pd.Series[Any]") -> Words | None:
    """The words in a column of text that says mostly numbers; None if it doesn't, or if it says only numbers."""
    words = _texts(column)
    if words is None:
        return None
    sample = words.iloc[:: 1 + len(words) // 1000]
    if (_numbers(sample).isna() & ~sample.str.casefold().isin(MARKS)).mean() > 0.8:  # don't parse all of a text
        return None
    numbers = _numbers(words)
    share = float(numbers.notna().mean()) if len(words) else 0.0
    counts = words[numbers.isna()].value_counts()
    marks = all(str(word).casefold() in MARKS for word in counts.index)
    if not (0 if marks else 0.5) < share < 1:
        return None
    few = len(counts) <= MANY_WORDS and not any(re.search(r"\d", str(word)) for word in counts.index)
    missing = marks or (few and numbers.nunique() > FEW_NUMBERS)
    return Words({str(word): int(count) for word, count in counts.head(MANY_WORDS).items()}, marks, missing, share)


def without_words(
    raw: pd.DataFrame, data: DataParams, assumed: list[str]
) -> tuple[pd.DataFrame, dict[str, tuple[str, ...]]]:
    """The table in which the words that stand for missing numbers and times are missing; and these words by column.

    What is assumed about the columns is appended to `assumed`.
    """
    changed: dict[str, pd.Series[Any]] = {}
    words: dict[str, tuple[str, ...]] = {}
    together: dict[str, list[str]] = {}
    for name in map(str, raw.columns):
        declared = data.features.get(name)
        unsaid = declared is None or declared.type is None
        if (
            name in (data.id, data.time, *data.exclude)
            or not unsaid
            or (name == data.target and data.task != "regression")
        ):
            continue
        found = words_among_numbers(raw[name])
        if found is None:
            dated = name == data.target or (declared is not None and declared.format is not None)
            if not dated and (marks := _marks_among_times(raw[name])):
                changed[name] = raw[name].mask(
                    raw[name].astype("string").str.strip().isin([*marks]).fillna(value=False)
                )
                words[name] = tuple(marks)
                assumed.append(
                    f"column {name!r} has times, and {_counted(marks)} counts as missing (data.features.{name}.missing)"
                )
            continue
        shown = _counted(found.words)
        if found.missing:
            changed[name] = pd.to_numeric(raw[name], errors="coerce").astype(float).replace([np.inf, -np.inf], np.nan)
            words[name] = tuple(found.words)
            together.setdefault(shown if len(found.words) > 1 else repr(words[name][0]), []).append(name)
        elif name != data.target:
            assumed.append(
                f"column {name!r} is not numeric, though {found.share:.0%} of its values are numbers, because of "
                f"{shown}; data.features.{name}.missing makes such words missing"
            )
    for shown, names in together.items():
        assumed.append(f"{_listed(names)} numeric, and {shown} counts as missing (data.features.NAME: type, missing)")
    return (raw.assign(**changed) if changed else raw), words


def _listed(names: list[str]) -> str:
    """The columns with their verb: column 'a' is, columns 'a', 'b' are."""
    if len(names) == 1:
        return f"column {names[0]!r} is"
    return f"columns {', '.join(map(repr, names[:10]))}{f' and {len(names) - 10} more' if len(names) > 10 else ''} are"


def _counted(words: dict[str, int]) -> str:
    return ", ".join(f"{word!r} ({count})" for word, count in words.items())


def _marks_among_times(column: "pd.Series[Any]") -> dict[str, int]:
    """The MARKS in a column of text whose other values are all dates or times, with the number of each."""
    words = _texts(column)
    if words is None:
        return {}
    marks = words.str.casefold().isin(MARKS)
    if not marks.any() or marks.all() or not are_times(words[~marks]):
        return {}
    return {str(word): int(count) for word, count in words[marks].value_counts().items()}


def category_marks(column: "pd.Series[Any]", feature: Feature) -> list[str]:
    """Says of each category that people also write where a value is missing, such as NA, that it is one."""
    if feature.type != "categorical":
        return []
    return [
        f"column {feature.name!r} has {int((column == mark).sum())} times {mark!r}, which is a category; if it means "
        f"that the value is missing, name it in data.features.{feature.name}.missing or data.missing"
        for mark in feature.categories
        if mark.strip().casefold() in MARKS
    ]


def target_marks(target: "pd.Series[Any]", name: str) -> list[str]:
    """Says of each class that people also write where a value is missing that it counts as a class."""
    counts = target.dropna().astype(str).value_counts()
    return [
        f"the target {name!r} has {counts[mark]} times {mark!r}, which is a class of its own; if it means that the "
        f"target is unknown, name it in data.features.{name}.missing"
        for mark in sorted(counts.index)
        if mark.strip().casefold() in MARKS
    ]


def numbers_the_rows(column: "pd.Series[Any]", name: str) -> bool:
    """Whether it counts the rows of the table, each one more than the row before; years and days may."""
    if MOMENT.search(name) or not pd.api.types.is_integer_dtype(column.dtype) or len(column) < ID_ROWS:
        return False
    return bool((np.diff(column.to_numpy(dtype=np.float64)) == 1).all())


def resembles_numbers_of_accounts(column: "pd.Series[Any]", name: str) -> bool:
    """Whether it has another whole number in each row, and quantities seldom would; moments may.

    Quantities that are as dense would repeat, and if they have room enough not to, they are seldom spread evenly.
    """
    if MOMENT.search(name) or not pd.api.types.is_numeric_dtype(column.dtype) or pd.api.types.is_bool_dtype(column):
        return False
    present = column.dropna()
    numbers = np.sort(present.to_numpy(dtype=np.float64))
    rows = len(numbers)
    if rows < ID_ROWS or (numbers % 1 != 0).any() or not present.is_unique:
        return False
    span = numbers[-1] - numbers[0] + 1
    if rows * rows / (2 * span) >= CHANCE_REPEATS:  # about so many pairs of rows would be equal
        return True
    distance = np.abs((numbers - numbers[0] + 1) / span - np.arange(1, rows + 1) / rows).max()
    return bool(rows >= EVEN_ROWS and distance < EVEN / np.sqrt(rows))


def identifies_rows(column: "pd.Series[Any]", name: str) -> bool:
    """Whether it is called as identifiers are, and has another whole number in each row."""
    present = column.dropna()
    return bool(
        _IDENTIFIER.fullmatch(name if re.search(r"[a-z](?:Id|ID)$", name) else name.casefold())
        and pd.api.types.is_integer_dtype(column.dtype)
        and len(present) >= ID_ROWS
        and present.is_unique
    )


def _texts(column: "pd.Series[Any]") -> "pd.Series[Any] | None":
    """The values of a column of text, without surrounding blanks; None for a column of another type."""
    if column.dtype != object and not isinstance(column.dtype, pd.StringDtype):
        return None
    return column.dropna().astype("string").str.strip()


def _numbers(words: "pd.Series[Any]") -> "pd.Series[Any]":
    """The numbers that the texts say; NaN for other texts, infinity, and digits with a leading zero."""
    if words.str.match(LEADING_ZERO).any():
        return pd.Series(np.nan, index=words.index)
    return pd.to_numeric(words, errors="coerce").astype(float).replace([np.inf, -np.inf], np.nan)
