"""The section `data` of params.yaml: the raw table, how its file is written, its target and its columns."""

import codecs
from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from ml.param_types import Duration, Spelling
from ml.schema import MISSING, Document, FeatureType, Task
from ml.values import check_layout, time_zone


def _encoding(name: str) -> str:
    try:
        codecs.lookup(name)
    except LookupError:
        raise ValueError("Python knows no encoding of this name") from None
    return name


TimeFormat = Annotated[str, AfterValidator(check_layout)]
TimeZone = Annotated[str, AfterValidator(lambda name: time_zone(name).key)]


MULTILABEL = "a model has one target: several targets (multilabel) are out of scope; train a model for each of them"


def _one_target(value: Any) -> Any:
    if isinstance(value, list | tuple | dict):
        raise ValueError(MULTILABEL)
    return value


def _no_multilabel(value: Any) -> Any:
    if isinstance(value, str) and value.lower().replace("-", "").replace("_", "") in ("multilabel", "multioutput"):
        raise ValueError(MULTILABEL)
    return value


class FeatureParams(Document):
    """What the owner of the data declares about a column; everything else is inferred."""

    type: FeatureType | None = None
    required: bool = False
    minimum: float | None = None
    maximum: float | None = None
    unknown: Literal["accept", "refuse"] = "accept"
    live: bool = False
    description: str = ""
    missing: tuple[Spelling, ...] = ()
    """Spellings that mean in this column that the value is missing, besides `data.missing`: "?" or -999.

    For the target, only these and blank cells are missing, because a class may be called NaN.
    """
    format: TimeFormat | None = None
    """How times are written: a pattern of Python's strptime (`%d.%m.%Y`), or epoch_s, epoch_ms, epoch_us, epoch_ns,
    decimal_year (1958.208).

    None: ISO 8601, or what all values fit. The service accepts the same format and ISO 8601.
    """
    timezone: TimeZone | None = None
    """The zone whose calendar and clock the model sees (`Europe/Berlin`), instead of `data.timezone`."""


Format = Literal["csv", "json", "parquet", "feather", "orc", "stata", "sas"]


class CsvParams(Document):
    """How a text file writes its table, named as in pandas; what isn't declared is inferred where it is unambiguous."""

    delimiter: Annotated[str, Field(min_length=1, max_length=3)] | None = None
    """The sign between two fields; `\\s+`: runs of blanks."""
    decimal: Literal[".", ","] | None = None
    """The decimal sign of numbers that are written as text, in files of every format."""
    thousands: Literal[",", ".", " ", "'"] | None = None
    """The sign between groups of three digits; needs `decimal`."""
    encoding: Annotated[str, AfterValidator(_encoding)] | None = None
    """Such as utf-8, cp1252, utf-16: a name that Python knows."""
    comment: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    """The rest of a line from this sign on is left out."""
    skiprows: Annotated[int, Field(ge=0)] | None = None
    """Number of lines before the header (or before the first row, with `names`)."""
    names: tuple[str, ...] | None = None
    """The names of the columns, for a file without a header."""

    @model_validator(mode="after")
    def _signs_differ(self) -> Self:
        if self.thousands is not None and self.decimal is None:
            raise ValueError("thousands needs decimal, the decimal sign")
        if self.decimal is not None and self.decimal == self.thousands:
            raise ValueError(f"{self.decimal!r} can't be both decimal and thousands")
        return self


def _lasting(duration: timedelta) -> timedelta:
    if not duration:
        raise ValueError("must be longer than 0; without a ttl a row counts until there is a newer row")
    return duration


class ViewParams(Document):
    """A feature view of the table: rows of a file with keys and times, as the value of `data.views.NAME`."""

    uri: str
    """A file, a folder of Parquet files, an s3:// or https:// URI; read as `data.uri` is."""
    format: Format | None = None
    """As `data.format`, for this file."""
    csv: CsvParams = CsvParams()
    """As `data.csv`, for this file."""
    keys: tuple[str, ...]
    """Columns that name what a row is about: of the file, of the table, and fields of a request; `[]`: nothing."""
    timestamp: str
    """The column with the time from which on a row is known; times without an offset are of `data.timezone`."""
    timestamp_format: TimeFormat | None = None
    """How these times are written, as `features.NAME.format`."""
    ttl: Annotated[Duration, AfterValidator(_lasting)] | None = None
    """A row that is older than this counts as missing (`6h`); None: a row counts until there is a newer row."""
    features: Annotated[tuple[str, ...], Field(min_length=1)]
    """Columns of the file that become columns of the table, and are looked up by the service."""

    @model_validator(mode="after")
    def _columns_differ(self) -> Self:
        for name in self.features:
            if name in (*self.keys, self.timestamp) or self.features.count(name) > 1:
                raise ValueError(f"features: {name!r} is named twice in this view: each column has one role")
        return self


ViewName = Annotated[str, Field(pattern="^[a-z][a-z0-9_]*$")]


class DataParams(Document):
    """The raw table, its target and its columns."""

    source: Literal["flights", "table"]
    """`flights`: the default data; `table`: the file at `uri`."""
    uri: str
    """A file, a folder of Parquet files, an s3:// or https:// URI; `flights`: the lock file that pins its package."""
    format: Format | None = None
    """None: from the URI's ending, or from the file's first bytes. `csv` is every text with a row a line."""
    csv: CsvParams = CsvParams()
    horizon: Duration | None = None
    """How long before the event a prediction is made (flights: before the scheduled departure)."""
    target: Annotated[str, BeforeValidator(_one_target)]
    task: Annotated[Task, BeforeValidator(_no_multilabel)]
    positive: Spelling | None = None
    """Binary: the label of the positive class; None: the last label in sorted order (1, True, yes)."""
    id: str | None = None
    """A column that names the row; never a feature."""
    time: str | None = None
    """The column with the time of a row: for time splits, freshness and day blocks."""
    weight: str | None = None
    """A column with the weight of each row, a number above 0; never a feature.

    It counts in fitting and in the automatic choice. Calibration and the reported figures count every row once.
    """
    time_format: TimeFormat | None = None
    """How the times of `time` are written, as `features.NAME.format`, which counts if that column is declared."""
    timezone: TimeZone | None = None
    """The zone of all times: what has an offset from UTC is converted into it, what has none is of it.

    Without it, times with offsets are converted into UTC, so the hour of the day moves by one when summer time begins.
    """
    missing: tuple[Spelling, ...] = MISSING
    """Spellings that mean in every feature that the value is missing; a blank cell is always missing.

    A list here replaces the default one.
    """
    declared_only: bool = False
    """Use only the declared features; otherwise all other columns are features too, with inferred types."""
    exclude: tuple[str, ...] = ()
    """Columns that are never features."""
    features: dict[str, FeatureParams] = {}
    views: dict[ViewName, ViewParams] = {}
    """Further columns, which come from files with what was known from when on; the service looks them up."""

    @model_validator(mode="after")
    def _views_fit(self) -> Self:
        if self.views and self.source == "flights":
            raise ValueError("views: the flights have their own views; views are for source: table")
        if self.views and self.time is None:
            raise ValueError("views need data.time, the column with the time of a row")
        owner: dict[str, str] = {}
        for name, view in self.views.items():
            for feature in view.features:
                if feature in owner:
                    raise ValueError(
                        f"views.{name}.features: {feature!r} is a feature of views.{owner[feature]}, too: "
                        "rename the column in one of the files"
                    )
                owner[feature] = name
        return self

    @model_validator(mode="after")
    def _time_is_a_time(self) -> Self:
        declared = self.features.get(self.time) if self.time is not None else None
        if declared is not None and declared.type not in (None, "datetime"):
            raise ValueError(
                f"features.{self.time}.type: {declared.type} can't be, because time names this column; leave the type "
                "out, or put a copy of the column into the table"
            )
        return self

    def times(self, name: str) -> tuple[str | None, str | None]:
        """The declared format and zone of a column with times."""
        declared = self.features.get(name, FeatureParams())
        return declared.format or (self.time_format if name == self.time else None), declared.timezone or self.timezone

    def format_key(self, name: str) -> str:
        """The key of params.yaml that declares the format of a column with times."""
        return "data.time_format" if name == self.time and name not in self.features else f"data.features.{name}.format"
