"""Finds the layout that the times of a column have in common, in training; ml/values.py reads single times."""

import re
from collections.abc import Iterable

from ml.values import DECIMAL_YEAR, EPOCHS, UnreadableError, iso_moment, moment_of, number, parse_time, spell

_FULL_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d*)?")
_DIGITS = {4: "%Y", 6: "%Y%m", 8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
_DATES = ("%d{0}%m{0}%Y", "%m{0}%d{0}%Y", "%Y{0}%m{0}%d")
_SHORT_DATES = ("%d{0}%m{0}%y", "%m{0}%d{0}%y", "%y{0}%m{0}%d")
_NAMED_DATES = ("%d %b %Y", "%d-%b-%Y", "%d %B %Y", "%d. %B %Y", "%b %d %Y", "%b %d, %Y", "%B %d, %Y", "%B %d %Y")
_CLOCKS = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p", " %I:%M%p")
_FIRST = 200
"""Every layout is tried on this number of values, and on all values only those that fit these."""


class AmbiguousTimesError(ValueError):
    """Times that several layouts fit, with different meanings."""

    def __init__(self, example: str, layouts: list[str]) -> None:
        super().__init__(f"{example!r} can be read in several ways")
        self.example = example
        self.layouts = layouts


def find_layout(values: Iterable[object], *, declared: bool) -> str | None:
    """The layout that all values share: `iso`, a pattern, DECIMAL_YEAR, a key of EPOCHS; None when they aren't times.

    `declared`: the column is known to contain times, so that plain numbers and years of two digits are times, too.
    Raises AmbiguousTimesError when several layouts fit and give different times.
    """
    texts = [spell(value) for value in values]
    if not texts:
        return None
    if all(_NUMBER.fullmatch(text) for text in texts[:_FIRST]):
        return _numeric_layout(texts) if declared else None
    if (declared or _FULL_DATE.match(texts[0])) and _fits(texts, None):
        return "iso" if declared or all(map(_FULL_DATE.match, texts)) else None
    first = texts[0]
    separator = next((mark for mark in "./-" if mark in first), None)
    dates = [] if separator is None else [date.format(separator) for date in _DATES]
    if separator is not None and declared:
        dates += [date.format(separator) for date in _SHORT_DATES]
    if any(letter.isalpha() for letter in first):
        dates += _NAMED_DATES
    candidates = [date + clock for date in dates for clock in _CLOCKS if _fits(texts[:1], date + clock)]
    return _only(texts, [layout for layout in candidates if _fits(texts[:_FIRST], layout) and _fits(texts, layout)])


def _numeric_layout(texts: list[str]) -> str | None:
    numbers = [amount for text in texts if (amount := number(text)) is not None]
    if len(numbers) < len(texts):
        return None
    candidates = []
    for epoch, unit in EPOCHS.items():  # from 1973 to 2286, in which the units don't overlap
        if all(1e8 * unit <= abs(amount) < 1e10 * unit for amount in numbers):
            candidates.append(epoch)
    lengths = {len(text) for text in texts}
    layout = _DIGITS.get(lengths.pop()) if len(lengths) == 1 else None
    years = all(text.isdigit() and "1800" <= text[:4] <= "2199" for text in texts)
    if layout is not None and years and _fits(texts, layout):
        candidates.append(layout)
    elif not candidates and all(text.isdigit() and 5 <= len(text) <= 6 for text in texts):
        candidates = [short for short in ("%y%m%d", "%d%m%y", "%m%d%y") if _fits(texts, short)]
    elif not candidates and any(amount % 1 for amount in numbers) and 1500 <= min(numbers) <= max(numbers) < 2200:
        candidates.append(DECIMAL_YEAR)
    return _only(texts, candidates)


def _only(texts: list[str], layouts: list[str]) -> str | None:
    """The single layout that fits."""
    if len({layout.replace("%B", "%b") for layout in layouts}) > 1:  # May is May's short form
        differ = (
            text for text in texts if len({moment_of(text, layout).replace(tzinfo=None) for layout in layouts}) > 1
        )
        raise AmbiguousTimesError(next(differ, texts[0]), layouts)
    return layouts[0] if layouts else None


def _fits(texts: list[str], layout: str | None) -> bool:
    try:
        for text in texts:
            if layout is None:
                iso_moment(text, None)
            elif layout not in EPOCHS and layout != DECIMAL_YEAR:
                parse_time(text, layout)
    except (ValueError, UnreadableError):
        return False
    return True
