"""What a text, number, truth value, time or missing value means: training and the service read values by this module.

The service reads a request value by value, without pandas. Training applies it to the different values of a column
(ml/tables.py).
"""

import math
import re
import unicodedata
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

TRUE = frozenset({"true", "yes", "1", "t", "y"})
FALSE = frozenset({"false", "no", "0", "f", "n"})
EPOCHS = {"epoch_s": 1.0, "epoch_ms": 1e3, "epoch_us": 1e6, "epoch_ns": 1e9}
"""Formats of times that are numbers: units since 1970-01-01 UTC, in a second."""

LEADING_ZERO = r"^[+-]?0[0-9]"
"""Matches digits that are no number but a text, such as a zip code."""

_DIGITS = {4: "%Y", 6: "%Y%m", 8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}

_START = datetime(1970, 1, 1)
_START_UTC = _START.replace(tzinfo=UTC)
_SHORT_DATE = re.compile(r"(\d{4})(?:-(\d{1,2}))?(?:-(\d{1,2})(?:[T ](.+))?)?")
_FULL_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d*)?")


class UnreadableError(ValueError):
    """A value that doesn't have its column's type; the message says what is expected."""

    def __init__(self, message: str, code: str = "wrong_type") -> None:
        super().__init__(message)
        self.code = code


def clean(text: str) -> str:
    """The text without surrounding blanks, in Unicode's composed form (NFC), so that what looks alike is equal."""
    text = text.strip()
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def spell(value: object) -> str:
    """The text of a value, as a category: whole numbers without `.0`, truth values as true and false."""
    if isinstance(value, str):
        return clean(value)
    # By name, because numpy's numbers aren't Python's.
    kind = type(value).__name__
    if kind in ("bool", "bool_"):
        return "true" if value else "false"
    if kind.startswith("float") and float(value) % 1 == 0 and abs(float(value)) < 2**63:  # type: ignore[arg-type]
        return str(int(float(value)))  # type: ignore[arg-type]
    return clean(str(value))


def truth(value: object) -> float | None:
    """1.0 for true, yes, 1 and the like, 0.0 for their opposites, None for anything else."""
    word = spell(value).lower()
    return 1.0 if word in TRUE else 0.0 if word in FALSE else None


def number(text: str) -> float | None:
    """The finite number that a text contains; None if it contains none."""
    try:
        found = float(text)
    except ValueError:
        return None
    return found if math.isfinite(found) and "_" not in text else None


def is_missing(value: object, spellings: frozenset[str]) -> bool:
    """Whether a value is absent, NaN, blank, or spelled as one of the (cleaned) spellings of a missing value."""
    if value is None or value != value:  # noqa: PLR0124 - only NaN differs from itself
        return True
    if isinstance(value, str):
        return not (text := clean(value)) or text in spellings
    return bool(spellings) and spell(value) in spellings


def read_time(value: object, layout: str | None, zone: str | None, *, utc: bool) -> float:
    """Seconds since 1970: of the wall clock in `zone`; without a zone of UTC if `utc`, else of the clock as written.

    `layout`: a pattern of `datetime.strptime` or a key of EPOCHS, which is tried before ISO 8601.
    Raises UnreadableError when the value is no time, has an offset from UTC where it must not, or lacks it.
    """
    moment = _moment(value, layout)
    try:
        if moment.tzinfo is None:
            if utc and zone is None:
                raise UnreadableError("must have an offset from UTC, such as 2024-03-01T12:00:00Z")
            wall = moment
        elif zone is not None:
            wall = moment.astimezone(time_zone(zone)).replace(tzinfo=None)
        elif utc:
            wall = moment.astimezone(UTC).replace(tzinfo=None)
        else:
            raise UnreadableError("must be a local time without offset")
    except OverflowError:
        raise UnreadableError(f"{_quoted(value)} is outside the range of times", "out_of_bounds") from None
    return (wall - _START).total_seconds()


def has_offset(value: object, layout: str | None = None) -> bool:
    """Whether a value is a time with an offset from UTC."""
    try:
        return _moment(value, layout).tzinfo is not None
    except UnreadableError:
        return False


def iso(seconds: float, *, utc: bool = False) -> str:
    """A time as ISO 8601 text, `Z` at its end if `utc`; also outside the years 1 to 9999."""
    try:
        text = (_START + timedelta(seconds=seconds)).isoformat()
    except OverflowError:
        years = math.floor(seconds / 31_556_952)  # of the Gregorian calendar, on average
        text = f"{'+' if years > 0 else ''}{1970 + years}-01-01T00:00:00"
    return text + ("Z" if utc else "")


@cache
def time_zone(name: str) -> ZoneInfo:
    """The zone of this name, such as Europe/Berlin; ValueError when this machine doesn't know it."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{name!r} is no time zone that this machine knows, such as Europe/Berlin or UTC") from None


def check_layout(layout: str) -> str:
    """The layout; ValueError when it describes no times."""
    if layout in EPOCHS:
        return layout
    try:
        datetime.strptime(datetime(2001, 2, 13, 4, 5, 6, tzinfo=UTC).strftime(layout), layout)  # noqa: DTZ007
        if "%Y" in layout or "%y" in layout or "%G" in layout:
            return layout
    except ValueError:
        pass
    raise ValueError(
        f"{layout!r} is no format of times: write a pattern of Python's strptime (%d.%m.%Y), or {', '.join(EPOCHS)}"
    )


def is_numeric(layout: str) -> bool:
    """Whether times of this layout are numbers in JSON: units since 1970, or digits such as 202412."""
    return layout in EPOCHS or layout in _DIGITS.values()


def _moment(value: object, layout: str | None) -> datetime:
    """The time as it is written; without an offset from UTC its `tzinfo` is None."""
    text = spell(value)
    if layout is not None:
        if layout in EPOCHS:
            amount = number(text)
            if amount is not None:
                try:
                    return _START_UTC + timedelta(seconds=amount / EPOCHS[layout])
                except OverflowError:
                    raise UnreadableError(f"{text[:50]!r} is outside the range of times", "out_of_bounds") from None
        else:
            try:
                return _parse(text, layout)
            except ValueError:
                pass
    return _iso_moment(text, layout)


_FIELDS = {"Y": r"(\d{4})", "f": r"(\d{1,6})", **dict.fromkeys("mdHMS", r"(\d{1,2})")}


@cache
def _pattern(layout: str) -> tuple[re.Pattern[str], str] | None:
    """A pattern of a layout that has only numbers, and its fields in order; None for other layouts."""
    fields = re.findall("%(.)", layout)
    if len(set(fields)) < len(fields) or not {"Y", "m"} <= set(fields) <= set(_FIELDS):
        return None
    pattern = re.sub(r"%(.)", lambda field: _FIELDS[field[1]], re.sub(r"\\?\s+", r"\\s+", re.escape(layout)))
    return re.compile(pattern, re.ASCII), "".join(fields)


def _parse(text: str, layout: str) -> datetime:
    """As `datetime.strptime`, and for layouts of numbers ten times as fast; ValueError when the text doesn't fit."""
    known = _pattern(layout)
    if known is None:
        return datetime.strptime(text, layout)  # noqa: DTZ007 - the caller decides what a missing offset means
    pattern, fields = known
    if (found := pattern.fullmatch(text)) is None:
        raise ValueError(text)
    part = dict(zip(fields, found.groups(), strict=True))
    day, hour, minute, second = (
        int(part.get(field, first)) for field, first in (("d", 1), ("H", 0), ("M", 0), ("S", 0))
    )
    micro = int(f"{part['f']:0<6}") if "f" in part else 0
    return datetime(int(part["Y"]), int(part["m"]), day, hour, minute, second, micro)


def _iso_moment(text: str, layout: str | None) -> datetime:
    # Python would read 13 digits as a date, any separator, and an hour.
    if not text.isdigit() or len(text) == 8:
        try:
            return datetime.fromisoformat(text)
        except ValueError:
            pass
    if (parts := _SHORT_DATE.fullmatch(text)) is not None:  # 2024, 2024-03, 2024-3-1
        year, month, day, rest = parts.groups(default="")
        try:
            return datetime.fromisoformat(f"{year}-{month or 1:0>2}-{day or 1:0>2}{rest and 'T' + rest}")
        except ValueError:
            pass
    wanted = "an ISO 8601 time" + ("" if layout is None else f" or one like {layout}")
    raise UnreadableError(f"{text[:50]!r} is not {wanted}")


def _quoted(value: object) -> str:
    return repr(str(value)[:50])


# --- which layout the times of a column have ---

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
    """The layout that all values share: `iso`, a pattern, a key of EPOCHS; None when they aren't times.

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
    return _only(texts, candidates)


def _only(texts: list[str], layouts: list[str]) -> str | None:
    """The single layout that fits."""
    if len({layout.replace("%B", "%b") for layout in layouts}) > 1:  # May is May's short form
        differ = (text for text in texts if len({_moment(text, layout).replace(tzinfo=None) for layout in layouts}) > 1)
        raise AmbiguousTimesError(next(differ, texts[0]), layouts)
    return layouts[0] if layouts else None


def _fits(texts: list[str], layout: str | None) -> bool:
    try:
        for text in texts:
            if layout is None:
                _iso_moment(text, None)
            elif layout not in EPOCHS:
                _parse(text, layout)
    except (ValueError, UnreadableError):
        return False
    return True
