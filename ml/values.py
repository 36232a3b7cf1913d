"""What a text, number, truth value, time or missing value means: training and the service read values by this module.

The service reads a request value by value, without pandas. Training applies it to the different values of a column
(ml/tables.py).
"""

import math
import re
import unicodedata
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

TRUE = frozenset({"true", "yes", "1", "t", "y"})
FALSE = frozenset({"false", "no", "0", "f", "n"})
EPOCHS = {"epoch_s": 1.0, "epoch_ms": 1e3, "epoch_us": 1e6, "epoch_ns": 1e9}
"""Formats of times that are numbers: units since 1970-01-01 UTC, in a second."""

DECIMAL_YEAR = "decimal_year"
"""Format of times that are years with their fraction: 1958.208 is in March 1958."""

LEADING_ZERO = r"^[+-]?0[0-9]"
"""Matches digits that are no number but a text, such as a zip code."""

_START = datetime(1970, 1, 1)
_START_UTC = _START.replace(tzinfo=UTC)
_SHORT_DATE = re.compile(r"(\d{4})(?:-(\d{1,2}))?(?:-(\d{1,2})(?:[T ](.+))?)?")


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

    `layout`: a pattern of `datetime.strptime`, DECIMAL_YEAR or a key of EPOCHS, which is tried before ISO 8601.
    Raises UnreadableError when the value is no time, has an offset from UTC where it must not, or lacks it.
    """
    moment = moment_of(value, layout)
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
        return moment_of(value, layout).tzinfo is not None
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
    if layout in EPOCHS or layout == DECIMAL_YEAR:
        return layout
    try:
        datetime.strptime(datetime(2001, 2, 13, 4, 5, 6, tzinfo=UTC).strftime(layout), layout)  # noqa: DTZ007
        if "%Y" in layout or "%y" in layout or "%G" in layout:
            return layout
    except ValueError:
        pass
    raise ValueError(
        f"{layout!r} is no format of times: write a pattern of Python's strptime (%d.%m.%Y), "
        f"or {', '.join((*EPOCHS, DECIMAL_YEAR))}"
    )


def is_numeric(layout: str) -> bool:
    """Whether times of this layout are numbers in JSON: units since 1970, years, or digits such as 202412."""
    return layout in EPOCHS or layout == DECIMAL_YEAR or _digits(layout) is not None


def moment_of(value: object, layout: str | None) -> datetime:
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
        elif layout == DECIMAL_YEAR:
            amount = number(text)
            if amount is not None and 1 <= amount < 9999:
                first = datetime(int(amount), 1, 1)
                return first + (amount - first.year) * (first.replace(year=first.year + 1) - first)
        else:
            try:
                return parse_time(text, layout)
            except ValueError:
                pass
    return iso_moment(text, layout)


_WIDTHS = {"Y": 4, "j": 3, **dict.fromkeys("ymdHMS", 2)}


@cache
def _digits(layout: str) -> int | None:
    """The number of digits of times of a layout that has no signs between its fields, such as %Y%m; else None."""
    fields = re.fullmatch("(?:%([YymdHMSj]))+", layout)
    return None if fields is None else sum(_WIDTHS[field] for field in layout[1::2])


_FIELDS = {"Y": r"(\d{4})", "f": r"(\d{1,6})", **dict.fromkeys("mdHMS", r"(\d{1,2})")}


@cache
def _pattern(layout: str) -> tuple[re.Pattern[str], str] | None:
    """A pattern of a layout that has only numbers, and its fields in order; None for other layouts."""
    fields = re.findall("%(.)", layout)
    if len(set(fields)) < len(fields) or not {"Y", "m"} <= set(fields) <= set(_FIELDS):
        return None
    pattern = re.sub(r"%(.)", lambda field: _FIELDS[field[1]], re.sub(r"\\?\s+", r"\\s+", re.escape(layout)))
    return re.compile(pattern, re.ASCII), "".join(fields)


def parse_time(text: str, layout: str) -> datetime:
    """As `datetime.strptime`, and for layouts of numbers ten times as fast; ValueError when the text doesn't fit.

    Without signs between the fields, every digit must be there; as a number, 010203 lacks its first zero.
    """
    width = _digits(layout)
    if width is not None:
        text = text if layout.startswith("%Y") else text.zfill(width)
        if len(text) != width or not text.isdecimal():
            raise ValueError(text)
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


def iso_moment(text: str, layout: str | None) -> datetime:
    """The time that an ISO 8601 text says; `layout`: for the message of the UnreadableError."""
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
