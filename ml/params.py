"""Reads params.yaml into a frozen, validated object; unknown keys are an error."""

import re
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import AfterValidator, Field, ValidationError, model_validator

from ml.data_params import DataParams
from ml.encoding import DatetimePart
from ml.model_params import ModelParams, wrong_parameters
from ml.param_types import Duration, Share, Spelling
from ml.schema import Document, FeatureType

PARAMS = Path("params.yaml")
D = TypeVar("D", bound=Document)


class ParamsError(ValueError):
    """params.yaml can't be used; the message names the key, the value and what is allowed."""


def _regular_expression(pattern: str) -> str:
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"is no regular expression of Python: {error}") from None
    return pattern


class ColumnRule(Document):
    """What a raw column must satisfy; missing values pass unless `required`."""

    type: FeatureType | None = None
    minimum: float | None = None
    maximum: float | None = None
    required: bool = False
    categories: tuple[str, ...] | None = None
    pattern: Annotated[str, AfterValidator(_regular_expression)] | None = None
    """A regular expression of Python that the whole text must match."""


class FreshnessRule(Document):
    """The maximum age of the newest row."""

    max_age: Duration
    as_of: date | None = None
    """The age is measured from the start of this day; None: from now."""


class ContractParams(Document):
    """The data contract, checked at ingestion."""

    on_breach: Literal["stop", "set_aside"] = "stop"
    """`set_aside` excludes rows that break the contract and lists them; a breach of the whole table always stops."""
    max_set_aside: Share = 0.01
    """If more than this share of rows is set aside, the pipeline stops."""
    min_rows: int = 1
    unique: tuple[str, ...] = ()
    """Columns that together identify a row."""
    columns: dict[str, ColumnRule] = {}
    freshness: FreshnessRule | None = None


class SplitParams(Document):
    """Which rows are for training, for choosing the threshold (validation), and for the reported figures (test)."""

    method: Literal["random", "stratified", "time"]
    validation: date | Share = 0.15
    """time: the first day of validation, or its share of rows; otherwise its share."""
    test: date | Share = 0.15
    group: str | None = None
    """A column such as a patient or a shop: all rows of a group are in one part, and in one fold. Not for time splits.

    Intervals resample whole groups. It is no feature, unless it is declared in `data.features`.
    """

    @model_validator(mode="after")
    def _borders_fit(self) -> Self:
        borders = (self.validation, self.test)
        if self.group is not None and self.method == "time":
            raise ValueError("group is for method: random or stratified; a time split already holds out later rows")
        if isinstance(borders[0], date) != isinstance(borders[1], date):
            raise ValueError("validation and test must both be days or both be shares")
        if isinstance(self.validation, date) and isinstance(self.test, date):
            if self.method != "time":
                raise ValueError(f"days are only for method: time, but the method is {self.method}")
            if self.validation >= self.test:
                raise ValueError(f"validation ({self.validation}) must begin before test ({self.test})")
        elif float(str(self.validation)) + float(str(self.test)) >= 1:
            raise ValueError("validation and test leave no rows to train on")
        return self


EncodingKind = Literal["onehot", "target", "frequency"]


class EncodingParams(Document):
    """How columns are encoded as numbers."""

    onehot_limit: int = 12
    """Features with up to this number of categories are one-hot encoded, features with more are target-encoded."""
    categories: dict[str, tuple[EncodingKind, ...]] = {}
    """Encodings of certain categorical columns, instead of that default."""
    ordinal: dict[str, tuple[Spelling, ...]] = {}
    """Categorical columns whose categories have an order, as `size: [small, medium, large]`: encoded as 0, 1, 2.

    Each of a column's categories in the training rows must be named; one that comes later is missing to the model.
    """
    crosses: tuple[tuple[str, ...], ...] = ()
    """Combinations of columns, target-encoded as one category."""
    datetime_parts: tuple[DatetimePart, ...] | None = None
    """Parts of every datetime column. None: the day since 1970 for trends, and the parts of year, week and day that the
    training rows have several of; parts of the year only if the rows span a year and a half. For a time split also the
    days since the middle of the training rows, so that a trend may bend there.
    """
    datetimes: dict[str, tuple[DatetimePart, ...]] = {}
    """Parts for certain datetime columns, instead of that default; an empty list leaves the column out."""
    text_terms: int = 2000
    """Maximum number of words per text column."""
    text_columns: int = 100
    """If a text column has more words, they are projected onto 32 directions and a linear model's scores."""
    text_terms_min_rows: int = 2
    folds: int = 5
    """Number of folds for the out-of-fold target encoding of training rows."""
    live_dropout: Share = 0.0
    """Share of training rows that lose all their live features, so that the model learns what their absence means."""


class EvaluationParams(Document):
    """What is reported about the test rows."""

    replicates: int = 200
    """Number of bootstrap replicates for the 95 % intervals."""
    slices: tuple[str, ...] = ()
    """Features for whose values metrics are reported separately."""
    slice_min_rows: int = 500
    min_class_rows: int = 10
    """Test rows of the rarest class (for a regression: test rows) below which figures can't be trusted.

    Log, card and report say so, and the gate compares nothing.
    """
    importance_rows: int = 5000


Metric = Literal["roc_auc", "pr_auc", "log_loss", "brier", "accuracy", "f1", "f1_macro", "rmse", "mae", "r2"]


class GateParams(Document):
    """The conditions for a candidate to become champion."""

    metric: Metric
    """The metric in which it must be better than the incumbent."""
    margin: float = 0.0
    """The required improvement; the lower end of the paired interval must exceed it."""
    slice_margin: float = 0.05
    """The candidate is refused if it is significantly worse on a slice, by more than this."""
    minimum: dict[Metric, float] = {}
    """Metrics (larger is better) whose interval's lower end must reach this value."""
    maximum: dict[Metric, float] = {}
    """Metrics (smaller is better) whose interval's upper end must not exceed this value."""
    base: str = "main"
    """The git branch whose bundle is the incumbent."""
    accept: Annotated[str, Field(pattern="^[0-9a-f]{7,64}$")] | None = None
    """The version (or its first 7 digits or more) of a candidate that is served although the gate refuses it.

    It holds for this version only. The run in MLflow and reports/gate.json keep the reasons of the refusal.
    """


class RegistryParams(Document):
    """Names in MLflow."""

    experiment: str
    model: str


class Params(Document):
    """The content of params.yaml."""

    seed: int
    data: DataParams
    contract: ContractParams = ContractParams()
    split: SplitParams
    encoding: EncodingParams = EncodingParams()
    model: ModelParams
    evaluation: EvaluationParams = EvaluationParams()
    gate: GateParams
    registry: RegistryParams

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        if self.split.method == "time" and self.data.time is None:
            raise ValueError("split.method: time needs data.time, the column with the time of a row")
        if self.split.method == "stratified" and self.data.task == "regression":
            raise ValueError("split.method: stratified needs classes; use random or time for a regression")
        if self.contract.freshness is not None and self.data.time is None:
            raise ValueError("contract.freshness needs data.time, the column with the time of a row")
        if self.model.recency_half_life is not None and self.data.time is None:
            raise ValueError("model.recency_half_life needs data.time, the column with the time of a row")
        if isinstance(self.model.class_weight, dict) and self.data.task == "regression":
            raise ValueError("model.class_weight needs classes, but data.task is regression")
        if self.model.monotone and self.data.task == "multiclass":
            raise ValueError("model.monotone is for binary and regression: scikit-learn has no such trees for classes")
        if self.data.source == "flights" and self.data.horizon is None:
            raise ValueError("data.source: flights needs data.horizon, such as 2h")
        return self


def load_params(path: Path = PARAMS, *, check_estimators: bool = True) -> Params:
    """The validated parameters. `check_estimators` needs scikit-learn, whose import takes a second.

    Raises ParamsError, one line per wrong key, when the file is missing or something in it isn't allowed.
    """
    params = _valid(Params, _document(path), path)
    if check_estimators:
        wrong = [f"{path}: {line}" for line in wrong_parameters(params.model, params.data.task)]
        if wrong:
            raise ParamsError("\n".join(wrong))
    return params


def load_data(path: Path = PARAMS) -> DataParams:
    """The section `data` alone: in an image, params.yaml has no other.

    Raises ParamsError as load_params does.
    """
    document = _document(path)
    section = document.get("data") if isinstance(document, dict) else None
    return _valid(DataParams, section, path, "data")


def _document(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise ParamsError(f"{path} not found: run this from the repository's root") from None
    except yaml.YAMLError as error:
        raise ParamsError(f"{path} is not YAML: {' '.join(str(error).split())}") from None


def _valid(model: type[D], content: Any, path: Path, *section: str) -> D:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        lines = [
            f"{path}: {'.'.join(map(str, (*section, *detail['loc']))) or 'document'}: {detail['msg']}"
            + ("" if isinstance(detail["input"], dict) else f" (got {detail['input']!r})")
            for detail in error.errors()
        ]
        raise ParamsError("\n".join(lines)) from None
