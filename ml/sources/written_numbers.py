"""Reads numbers that are written as text: decimal commas, thousands separators, currency and percent signs.

A column becomes numbers only if that is what all its cells say. Digits with a leading zero are text (a zip code). If
"1,234" may be 1234 or 1.234, the other columns of the file decide; if they can't, the owner is asked.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ml.data_params import CsvParams
from ml.values import LEADING_ZERO

PLAIN = r"^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$"
WHOLE = r"^[+-]?[0-9]+$"
MANY_WORDS = 5
"""A column with more different words than this among its numbers is text."""
CURRENCIES = "$€£¥₹₽₩₺₴₫₦₱฿₪¢"

Decimal = Literal[".", ","]
_BLANK = " \u00a0\u202f\u2009"
_QUOTES = "'\u2019"
_GROUPS = {".": (",", _QUOTES, _BLANK), ",": (".", _QUOTES, _BLANK)}
"""The thousands separators that go with a decimal sign."""
_SHELL = re.compile(
    rf"(?P<open>\()?\s*(?P<sign>[+-]?)\s*(?P<before>[{CURRENCIES}]?)\s*(?P<sign2>[+-]?)(?P<number>[0-9.,].*?)"
    rf"\s*(?P<after>[{CURRENCIES}%]?)\s*(?P<close>\))?"
)


LONGEST = 100
"""Characters of a number, at most: the pattern takes cubic time for a long run of blanks."""


class AmbiguousNumberError(ValueError):
    """A number that can be read in two ways; the message names the column, the value and the param."""


@dataclass(frozen=True, slots=True)
class Written:
    """What the cells of a column say about how its numbers are written."""

    plain: bool
    """The numbers are as a computer writes them: 1234.5."""
    fits: tuple[Decimal, ...]
    """The decimal signs under which all its numbers can be read."""
    doubtful: str | None
    """A number whose value depends on the decimal sign."""
    grouped: bool
    """Short numbers have no separator and long ones always have: the separator is for thousands."""
    signs: frozenset[str]
    """Currency and percent signs; the empty text if a number has none."""


def plain_numbers(cells: pa.ChunkedArray) -> bool:
    """Whether all cells that aren't null are plain numbers, none with a leading zero; false if all are null."""
    present = cells.drop_null()
    return bool(
        len(present)
        and pc.all(pc.match_substring_regex(present, PLAIN)).as_py()
        and not pc.any(pc.match_substring_regex(present, LEADING_ZERO)).as_py()
    )


def to_numbers(cells: pa.ChunkedArray) -> "pd.Series[Any]":
    """Plain numbers as int64 if all are whole and fit, else as float64 (NaN where null; infinite past its range)."""
    cells = pc.utf8_ltrim(cells, characters="+")
    if pc.all(pc.match_substring_regex(cells, WHOLE)).as_py():
        try:
            return cells.cast(pa.int64()).to_pandas()
        except pa.ArrowInvalid:  # past 64 bits
            pass
    try:
        return cells.cast(pa.float64()).to_pandas()
    except pa.ArrowInvalid:  # 1e400: Arrow refuses what Python reads as infinite
        return pd.Series([None if text is None else float(text) for text in cells.to_pylist()], dtype=float)


def written(values: list[str]) -> Written | None:
    """How the numbers among these distinct texts are written; None if the texts are no column of numbers.

    Texts without a digit are words, which may stand among numbers.
    """
    numbers = [value for value in values if any(sign.isdigit() for sign in value)]
    if not numbers or len(values) - len(numbers) > MANY_WORDS:
        return None
    bodies, signs = [], set()
    for value in numbers:
        shell = _shell(value)
        if shell is None or bool(shell["open"]) != bool(shell["close"]) or (shell["before"] and shell["after"]):
            return None
        if re.match(r"0[0-9]", shell["number"]):
            return None
        bodies.append(shell["number"])
        signs.add(shell["before"] or shell["after"])
    decimals: tuple[Decimal, ...] = (".", ",")
    fits = [
        decimal
        for decimal in decimals
        if any(all(re.fullmatch(_pattern(decimal, group), body) for body in bodies) for group in _GROUPS[decimal])
    ]
    if not fits:
        return None
    if any(blank in body for body in bodies for blank in _BLANK) and not _grouped(bodies, _BLANK):
        return None  # "555 123" may be a code
    doubtful = [body for body in bodies if "," in body or "." in body] if len(fits) == 2 else []
    return Written(
        plain=all(re.match(PLAIN, value) for value in numbers),
        fits=tuple(fits),
        doubtful=doubtful[0] if doubtful else None,
        grouped=_grouped(bodies, ","),
        signs=frozenset(signs),
    )


def decide(columns: Mapping[str, Written], params: CsvParams) -> dict[str, Decimal]:
    """The decimal sign of each column.

    Raises AmbiguousNumberError when a value can be read in two ways.
    """
    seen: set[Decimal] = {column.fits[0] for column in columns.values() if len(column.fits) == 1}
    decided: dict[str, Decimal] = {}
    for name, column in columns.items():
        if column.plain and params.decimal == "," and params.thousands != ".":
            decided[name] = "."
        elif params.decimal is not None and params.decimal in column.fits:
            decided[name] = params.decimal
        elif len(column.fits) == 1 or column.doubtful is None:
            decided[name] = column.fits[0]
        elif column.plain and params.decimal is None and "," not in seen:
            decided[name] = "."  # 1.234, as every program writes it
        elif len(seen) == 1:
            decided[name] = next(iter(seen))
        elif column.grouped and not column.plain and not seen:
            decided[name] = "."
        else:
            point, comma = column.doubtful.replace(",", ""), column.doubtful.replace(".", "").replace(",", ".")
            if column.plain:
                point, comma = column.doubtful, column.doubtful.replace(".", "")
            raise AmbiguousNumberError(
                f"column {name!r} has {column.doubtful!r}, which is {point} with decimal points and {comma} with "
                "decimal commas: set data.csv in params.yaml to {decimal: '.', thousands: ','} or to "
                "{decimal: ',', thousands: '.'}"
            )
    return decided


def rewrite(value: str, decimal: Decimal) -> str:
    """A written number as a computer writes it; a word stays as it is."""
    shell = _shell(value)
    if shell is None or not any(sign.isdigit() for sign in value):
        return value
    thousands = "," if decimal == "." else "."
    number = re.sub(rf"[{thousands}{_QUOTES}{_BLANK}]", "", shell["number"]).replace(decimal, ".")
    negative = shell["open"] or "-" in shell["sign"] + shell["sign2"]
    return f"-{number}" if negative else number


def _shell(value: str) -> re.Match[str] | None:
    return _SHELL.fullmatch(value.replace("\u2212", "-")) if len(value) <= LONGEST else None


def _pattern(decimal: Decimal, group: str) -> str:
    point = re.escape(decimal)
    return (
        rf"(?:[1-9][0-9]{{0,2}}(?:[{group}][0-9]{{3}})+(?:{point}[0-9]+)?|[0-9]+(?:{point}[0-9]*)?|{point}[0-9]+)"
        r"(?:[eE][+-]?[0-9]+)?"
    )


def _grouped(bodies: list[str], group: str) -> bool:
    long = [body for body in bodies if any(sign in body for sign in group)]
    short = [body for body in bodies if body not in long]
    return bool(long) and bool(short) and all(len(re.match(r"[0-9]*", body)[0]) <= 3 for body in short)  # type: ignore[index]
