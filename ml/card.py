"""What a bundle says of its model: the card for a reader, the reference for the drift monitor."""

from pydantic import JsonValue

from ml.schema import Document


class Figure(Document):
    """A metric with its day-block bootstrap interval (or plain rows, where the data has no time)."""

    value: float
    low: float | None = None
    high: float | None = None


class Slice(Document):
    """Metrics of the rows that share one value."""

    feature: str
    value: str
    rows: int
    metrics: dict[str, Figure]


class Parity(Document):
    """How far the compiled model is from scikit-learn's own answers."""

    rows: int
    largest_difference: float
    """In probability; for a regression as a share of the target's standard deviation in the rows it was fitted on."""
    tolerance: float
    """In the same unit."""


class Card(Document):
    """What a reader should know before trusting the model."""

    name: str
    description: str = ""
    task: str
    target: str
    data: dict[str, JsonValue] = {}
    """Where the rows came from, how many, what was dropped and why, the split's borders."""
    model: dict[str, JsonValue] = {}
    """Estimators, settings, calibration and how it was chosen."""
    parity: Parity | None = None
    metrics: dict[str, Figure] = {}
    """On the test rows, by the model that never saw them."""
    without_live: dict[str, Figure] = {}
    """The same with every live feature missing."""
    slices: tuple[Slice, ...] = ()
    importance: dict[str, float] = {}
    """Loss of the chosen metric when the feature is shuffled, test rows, largest first."""
    curves: dict[str, tuple[tuple[float, float], ...]] = {}
    """Points (x, y) of: roc, precision_recall, calibration; or residuals (predicted, residual)."""
    confusion: tuple[tuple[int, ...], ...] = ()
    """Rows by actual (down) and predicted (across) class."""


class Distribution(Document):
    """How one feature was distributed in training."""

    missing: float
    """Share of rows without a value, 0 to 1."""
    edges: tuple[float, ...] = ()
    """Numeric, boolean and datetime: bin edges (deciles, repeated ones merged)."""
    counts: tuple[int, ...] = ()
    """Rows per bin (len(edges) - 1), or per category of `categories`."""
    categories: tuple[str, ...] = ()
    """Categorical: the most frequent ones."""
    other: int = 0
    """Categorical: rows of all remaining categories."""


class Reference(Document):
    """What the drift monitor compares with."""

    rows: int
    features: dict[str, Distribution]
    scores: Distribution
    """Of the positive probability, the top class's probability, or the predicted number."""
    sample: tuple[dict[str, JsonValue], ...]
    """Rows as a request would write them."""
    fitted_through: str | None = None
    """The latest time in the training rows (ISO 8601), where the data has one."""
