"""The section `model` of params.yaml: estimators, weights of rows, calibration, threshold."""

from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, PositiveFloat, model_validator

from ml.estimator_kinds import Kind, check_parameters
from ml.param_types import Duration, Spelling
from ml.schema import Document, Task


class EstimatorParams(Document):
    """A scikit-learn estimator. All keys besides the first three are keyword arguments of its class."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    kind: Kind
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Its share in the average, relative to the other estimators."""
    without: tuple[str, ...] = ()
    """Endings of columns of the encoded matrix that it doesn't see, such as `:later_half`; not for boosted trees."""

    @model_validator(mode="after")
    def _boosted_trees_see_all(self) -> Self:
        if self.without and self.kind == "hist_gradient_boosting":
            raise ValueError("without is not for hist_gradient_boosting, which sees all columns")
        return self

    @property
    def needs_positive(self) -> bool:
        """Whether it learns only from a target without negative numbers."""
        return not {self.settings.get("loss"), self.settings.get("criterion")}.isdisjoint(("poisson", "gamma"))

    @property
    def settings(self) -> dict[str, Any]:
        """The keyword arguments of the scikit-learn class."""
        return dict(self.model_extra or {})


def _by_name(value: Any) -> Any:
    if isinstance(value, list):
        raise ValueError("it is a mapping by name, such as {trees: {kind: hist_gradient_boosting, max_iter: 300}}")
    return value


EstimatorName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9]*([_-][A-Za-z0-9]+)*$")]
"""Letters, digits, and single `_` or `-`: `dvc exp run -S model.estimators.NAME.max_iter=40` can address it."""
Estimators = Annotated[dict[EstimatorName, EstimatorParams], BeforeValidator(_by_name), Field(min_length=1)]


CalibrationMethod = Literal["none", "sigmoid", "isotonic", "temperature"]
ThresholdMetric = Literal["f1", "balanced_accuracy", "cost"]


class ThresholdParams(Document):
    """How the decision threshold of a binary model is chosen on rows that the model hasn't learnt from."""

    maximize: ThresholdMetric = "f1"
    cost_false_positive: float = 1.0
    """With `cost`: the cost of a false positive, in the unit of `cost_false_negative`."""
    cost_false_negative: float = 1.0


class ModelParams(Document):
    """The estimators, their weights, calibration and threshold."""

    name: str
    estimators: Estimators | None = None
    """Estimators by name; the predictions of several are averaged (soft vote). None: Atlas chooses."""
    budget: Duration = timedelta(seconds=60)
    """Without `estimators`: about the time that the choice takes. The two fits of what was chosen come on top.

    The clock is looked at between two candidates, so the choice may take up to two budgets (docs/training.md).
    """
    target: Literal["identity", "log"] | None = None
    """Regression: what is learnt, the target or the logarithm of 1 + target.

    None: Atlas chooses, if it also chooses the estimators; else identity.
    """
    class_weight: Literal["balanced"] | dict[Spelling, PositiveFloat] | None = None
    """`balanced` weighs classes by their inverse frequency; or a weight by class, 1 for a class that isn't named."""
    monotone: dict[str, Literal["increasing", "decreasing"]] = {}
    """Numeric, boolean or ordinal features with which the prediction may only increase (or only decrease).

    Boosted trees alone keep to it, so other kinds of estimators are refused beside it, and not chosen automatically.
    """

    @model_validator(mode="after")
    def _only_boosted_trees_are_monotone(self) -> Self:
        others = {name for name, one in (self.estimators or {}).items() if one.kind != "hist_gradient_boosting"}
        if self.monotone and others:
            raise ValueError(
                f"monotone isn't supported by the estimator {sorted(others)[0]}; only kind: hist_gradient_boosting is"
            )
        return self

    recency_half_life: Duration | None = None
    """A row that is older than the newest row by this time has half its weight; needs a time column."""
    calibration: tuple[CalibrationMethod, ...] = ("none", "sigmoid", "isotonic")
    """Candidate methods; the method with the lowest log-loss over the folds is used, `none` if it may be chance.

    Classification only.
    """
    calibration_folds: int = 3
    """Number of folds. A time split has rolling-origin folds: each is predicted from earlier rows, and the validation
    part is the last. All other splits deal the training rows at random, by class, and the validation part is one more.
    """
    threshold: ThresholdParams = ThresholdParams()
    refit: bool = True
    """After the figures are computed, fit the serving model on all rows."""
    parity_tolerance: float = 1e-5
    """If the compiled model differs from the original by more than this, the bundle uses `runtime: sklearn`.

    In probability; for a regression as a share of the target's standard deviation, or of the prediction's distance from
    the mean if that is larger.
    """


def wrong_parameters(model: ModelParams, task: Task) -> list[str]:
    """A line per wrong parameter of an estimator, with its key, what is wrong and what is allowed."""
    return [
        f"model.estimators.{name}.{key}: {message}"
        for name, estimator in (model.estimators or {}).items()
        for key, message in check_parameters(estimator.kind, task, estimator.settings)
    ]
