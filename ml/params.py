"""params.yaml -> one frozen, validated object; unknown keys are an error."""

from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from ml.encoding import DatetimePart
from ml.schema import Document, FeatureType, Task

PARAMS = Path("params.yaml")


class ParamsError(ValueError):
    """params.yaml can't be used; the message names the key, the value and what is allowed."""


def _duration(value: Any) -> Any:
    """`90m`, `2h`, `7d` -> timedelta."""
    if isinstance(value, str) and value[:-1].replace(".", "", 1).isdigit() and value[-1:] in "smhd":
        return timedelta(**{{"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}[value[-1]]: float(value[:-1])})
    if isinstance(value, timedelta):
        return value
    raise ValueError("a duration is a number and a unit, such as 90m, 2h or 7d")


Duration = Annotated[timedelta, BeforeValidator(_duration)]
Share = Annotated[float, Field(ge=0, le=1)]


class FeatureParams(Document):
    """What the owner of the data declares about a column; all else is inferred."""

    type: FeatureType | None = None
    required: bool = False
    minimum: float | None = None
    maximum: float | None = None
    unknown: Literal["accept", "refuse"] = "accept"
    live: bool = False
    description: str = ""


class DataParams(Document):
    """Which rows, which target, which columns."""

    source: Literal["flights", "table"]
    """`flights`: the default data; `table`: the file at `uri`."""
    uri: str
    """A file, s3:// or https:// URI (CSV or Parquet). For `flights`: the lock file that pins its package."""
    format: Literal["csv", "parquet"] | None = None
    """None: by the URI's ending."""
    horizon: Duration | None = None
    """How long before the event a prediction is made (flights: before the scheduled departure)."""
    target: str
    task: Task
    positive: str | None = None
    """Binary: the label that counts as positive; None: the last one in sorted order (1, True, yes)."""
    id: str | None = None
    """A column that names the row; never a feature."""
    time: str | None = None
    """The column that says when a row happened: for time splits, freshness and day blocks."""
    declared_only: bool = False
    """Use the declared features alone; otherwise every other column is one too, its type inferred."""
    exclude: tuple[str, ...] = ()
    """Columns that are never features."""
    features: dict[str, FeatureParams] = {}


class ColumnRule(Document):
    """What a raw column must satisfy; missing values pass unless `required`."""

    type: FeatureType | None = None
    minimum: float | None = None
    maximum: float | None = None
    required: bool = False
    categories: tuple[str, ...] | None = None
    pattern: str | None = None
    """A regular expression that a whole text must match."""


class FreshnessRule(Document):
    """The newest row may be at most this old."""

    max_age: Duration
    as_of: date | None = None
    """Counted from the start of this day; None: from now."""


class ContractParams(Document):
    """The data contract, checked at ingestion."""

    on_breach: Literal["stop", "set_aside"] = "stop"
    """`set_aside` keeps breaching rows out of the pipeline and lists them; a breach of the whole table always stops."""
    max_set_aside: Share = 0.01
    """More than this share of rows set aside stops the pipeline too."""
    min_rows: int = 1
    unique: tuple[str, ...] = ()
    """Columns that together name one row."""
    columns: dict[str, ColumnRule] = {}
    freshness: FreshnessRule | None = None


class SplitParams(Document):
    """Which rows train, which choose the threshold, which are kept for the report."""

    method: Literal["random", "stratified", "time"]
    validation: date | Share = 0.15
    """time: the first day of validation, or its share of rows; otherwise its share."""
    test: date | Share = 0.15

    @model_validator(mode="after")
    def _borders_fit(self) -> Self:
        borders = (self.validation, self.test)
        if isinstance(borders[0], date) != isinstance(borders[1], date):
            raise ValueError("validation and test are both days or both shares")
        if isinstance(self.validation, date) and isinstance(self.test, date):
            if self.method != "time":
                raise ValueError(f"days are for method: time, this one is {self.method}")
            if self.validation >= self.test:
                raise ValueError(f"validation ({self.validation}) must begin before test ({self.test})")
        elif float(str(self.validation)) + float(str(self.test)) >= 1:
            raise ValueError("validation and test leave no rows to train on")
        return self


EncodingKind = Literal["onehot", "target", "frequency"]


class EncodingParams(Document):
    """How columns become numbers."""

    onehot_limit: int = 12
    """Up to this many categories get a column each; more are target-encoded."""
    categories: dict[str, tuple[EncodingKind, ...]] = {}
    """Per categorical column, instead of that default."""
    crosses: tuple[tuple[str, ...], ...] = ()
    """Combinations of columns, target-encoded as one category."""
    datetime_parts: tuple[DatetimePart, ...] = ("month", "dayofweek", "hour")
    datetimes: dict[str, tuple[DatetimePart, ...]] = {}
    """Per datetime column, instead of that default; an empty list leaves the column out."""
    text_terms: int = 100
    """Words per text column."""
    text_terms_min_rows: int = 2
    folds: int = 5
    """Training rows are target-encoded out of fold, in this many folds."""
    live_dropout: Share = 0.0
    """Share of training rows that lose all their live features, so that the model learns what their absence means."""


class EstimatorParams(Document):
    """One scikit-learn estimator; several are averaged (soft vote)."""

    kind: Literal[
        "linear",  # LogisticRegression or Ridge, on imputed and scaled columns
        "hist_gradient_boosting",
        "random_forest",
        "extra_trees",
    ]
    weight: Annotated[float, Field(gt=0)] = 1.0
    params: dict[str, Any] = {}
    """Keyword arguments of the scikit-learn class."""


CalibrationMethod = Literal["none", "sigmoid", "isotonic", "temperature"]
ThresholdMetric = Literal["f1", "balanced_accuracy", "cost"]


class ThresholdParams(Document):
    """How the decision threshold of a binary model is chosen on validation rows."""

    maximize: ThresholdMetric = "f1"
    cost_false_positive: float = 1.0
    """With `cost`: what a false alarm costs, in the unit of `cost_false_negative`."""
    cost_false_negative: float = 1.0


class ModelParams(Document):
    """The estimators and what is fitted around them."""

    name: str
    estimators: Annotated[tuple[EstimatorParams, ...], Field(min_length=1)]
    class_weight: Literal["balanced"] | None = None
    """`balanced` weighs classes by their inverse frequency."""
    recency_half_life: Duration | None = None
    """A row this much older than the newest counts half; needs a time column."""
    calibration: tuple[CalibrationMethod, ...] = ("none", "sigmoid", "isotonic")
    """Candidates; the lowest log-loss over the folds wins, `none` on a tie. Classification only."""
    calibration_folds: int = 3
    """Rolling-origin folds (random ones where there is no time)."""
    threshold: ThresholdParams = ThresholdParams()
    refit: bool = True
    """Fit the serving model on every row after the figures were taken."""
    parity_tolerance: float = 1e-5
    """Compiled and original model may differ by this much, or the bundle falls back to `runtime: sklearn`.

    In probability; for a regression as a share of the target's standard deviation.
    """


class EvaluationParams(Document):
    """What is reported on the test rows."""

    replicates: int = 200
    """Bootstrap replicates of an interval (95 %)."""
    slices: tuple[str, ...] = ()
    """Features whose values get figures of their own."""
    slice_min_rows: int = 500
    importance_rows: int = 5000


Metric = Literal["roc_auc", "pr_auc", "log_loss", "brier", "accuracy", "f1", "f1_macro", "rmse", "mae", "r2"]


class GateParams(Document):
    """What a candidate must clear to become champion."""

    metric: Metric
    """The figure in which it must beat the incumbent."""
    margin: float = 0.0
    """By at least this much; the paired interval's end counts, not its middle."""
    slice_margin: float = 0.05
    """How much worse a slice's interval may be, for sure, before it refuses."""
    minimum: dict[Metric, float] = {}
    """Figures that must be reached by the bad end of the interval (larger is better)."""
    maximum: dict[Metric, float] = {}
    """Figures that must not be passed by the bad end of the interval (smaller is better)."""
    base: str = "main"
    """The git branch whose bundle is the incumbent."""


class RegistryParams(Document):
    """Names in MLflow."""

    experiment: str
    model: str


class Params(Document):
    """All of params.yaml."""

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
            raise ValueError("split.method: time needs data.time, the column that says when a row happened")
        if self.split.method == "stratified" and self.data.task == "regression":
            raise ValueError("split.method: stratified needs classes; use random or time for a regression")
        if self.contract.freshness is not None and self.data.time is None:
            raise ValueError("contract.freshness needs data.time, the column that says when a row happened")
        if self.model.recency_half_life is not None and self.data.time is None:
            raise ValueError("model.recency_half_life needs data.time, the column that says when a row happened")
        if self.data.source == "flights" and self.data.horizon is None:
            raise ValueError("data.source: flights needs data.horizon, such as 2h")
        return self


def load_params(path: Path = PARAMS) -> Params:
    """The validated parameters.

    Raises ParamsError, one line per wrong key, when the file is missing or something in it isn't allowed.
    """
    try:
        document = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise ParamsError(f"{path} not found: run this from the repository's root") from None
    except yaml.YAMLError as error:
        raise ParamsError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    try:
        return Params.model_validate(document)
    except ValidationError as error:
        lines = [
            f"{path}: {'.'.join(map(str, detail['loc'])) or 'document'}: {detail['msg']}"
            + ("" if isinstance(detail["input"], dict) else f" (got {detail['input']!r})")
            for detail in error.errors()
        ]
        raise ParamsError("\n".join(lines)) from None
