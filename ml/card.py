"""The documents about a model in a bundle: the card for readers, the reference for the drift monitor."""

from pydantic import JsonValue

from ml.schema import Document


class Figure(Document):
    """A metric with its day-block bootstrap interval (or from random blocks, if the data has no time)."""

    value: float
    low: float | None = None
    high: float | None = None


class Slice(Document):
    """Metrics of the rows with a certain value of a feature."""

    feature: str
    value: str
    rows: int
    metrics: dict[str, Figure]


class Parity(Document):
    """The difference between the compiled model's results and scikit-learn's."""

    rows: int
    edge_rows: int = 0
    """Further rows, at the edges: missing values, unseen categories, extremes, neighbours of thresholds."""
    largest_difference: float
    """In probability; for a regression as a share of the target's standard deviation in the training rows."""
    tolerance: float
    """The allowed difference, in the same unit."""


class Tried(Document):
    """A candidate of the automatic choice."""

    name: str
    kind: str
    settings: dict[str, JsonValue] = {}
    """Parameters of the scikit-learn class; for boosted trees with the number of trees that was found."""
    loss: float | None = None
    """Over the held-out rows of all folds; None if it could not be fitted."""
    by_fold: tuple[float, ...] = ()
    """Log-loss of each fold; for a regression the mean squared error."""
    weight: float = 0.0
    """Its share in the chosen average."""
    why_not: str = ""
    """Why it could not be fitted."""


class AutomaticChoice(Document):
    """How the estimators were chosen."""

    rows: int
    """Rows that the candidates were compared on."""
    folds: int
    metric: str
    loss: float | None = None
    """Of the chosen average, over the held-out rows of all folds."""
    planned: int
    """Candidates that the budget was expected to be enough for. Their number depends on the table's size alone."""
    stopped_by_clock: bool = False
    """Whether the time ran out before all of them were tried: a faster machine may choose otherwise."""
    tried: tuple[Tried, ...]


class ModelFacts(Document):
    """How the model was made."""

    estimators: dict[str, dict[str, JsonValue]] = {}
    """As `model.estimators` of params.yaml; what was chosen automatically can be copied there."""
    automatic: AutomaticChoice | None = None
    """None if params.yaml names the estimators."""
    target: str = "identity"
    """What is learnt of a regression's target."""
    calibration: str = "none"
    calibration_log_loss: dict[str, float] = {}
    """Mean log-loss over the folds, by method."""
    calibration_excluded: dict[str, str] = {}
    """Why a method could not be chosen."""
    threshold_maximizes: str | None = None
    refitted: bool = False
    """Whether the serving model was fitted on all rows, test rows included."""


class Support(Document):
    """How many rows the figures of a part rest on."""

    rows: int
    rarest: str | None = None
    """The class with the fewest rows; None for a regression."""
    rarest_rows: int | None = None


class DataFacts(Document):
    """The rows behind a model: where they came from, what was left out and why, what was assumed about them."""

    source: str = ""
    horizon: str | None = None
    """How long before the event a prediction is made, if the data has a prediction time."""
    rows: dict[str, int] = {}
    """Number of rows by part."""
    borders: dict[str, tuple[str, str]] = {}
    """First and last time by part, if rows have a time."""
    rows_in_source: int = 0
    set_aside: int = 0
    """Rows that break the data contract."""
    set_aside_by: dict[str, int] = {}
    """Rows by the rule that they break."""
    without_target: int = 0
    columns_left_out: dict[str, str] = {}
    """Name -> why it is not a feature."""
    assumed: tuple[str, ...] = ()
    """What was inferred from the table and could be otherwise, a sentence each."""
    warnings: tuple[str, ...] = ()
    """What makes figures look better than they are: leaks, names of rows; a sentence each."""


class Card(Document):
    """The model card: what a reader should know about the model before using it."""

    name: str
    description: str = ""
    task: str
    target: str
    data: DataFacts = DataFacts()
    model: ModelFacts = ModelFacts()
    parity: Parity | None = None
    metrics: dict[str, Figure] = {}
    """On the test rows, of a model that was fitted without them."""
    support: dict[str, Support] = {}
    """By part: train, validation, test."""
    doubts: tuple[str, ...] = ()
    """Why the figures, or the model, can't be trusted, a sentence each."""
    without_live: dict[str, Figure] = {}
    """The same metrics with all live features missing."""
    slices: tuple[Slice, ...] = ()
    importance: dict[str, float] = {}
    """Loss in the headline metric when a feature is shuffled in the test rows; largest first."""
    curves: dict[str, tuple[tuple[float, float], ...]] = {}
    """Points (x, y) of: roc, precision_recall, calibration; or residuals (predicted, residual)."""
    confusion: tuple[tuple[int, ...], ...] = ()
    """Rows by actual (down) and predicted (across) class."""


class Distribution(Document):
    """The distribution of a feature in training."""

    missing: float
    """Share of rows without a value, 0 to 1."""
    edges: tuple[float, ...] = ()
    """Numeric, boolean and datetime: bin edges (deciles, without repeated edges)."""
    counts: tuple[int, ...] = ()
    """Rows per bin (len(edges) - 1), or per category of `categories`."""
    categories: tuple[str, ...] = ()
    """Categorical: the most frequent categories."""
    other: int = 0
    """Categorical: rows of all remaining categories."""


class Reference(Document):
    """The reference that the drift monitor compares new data with."""

    rows: int
    features: dict[str, Distribution]
    scores: Distribution
    """The distribution of the positive probability, the top class's probability, or the predicted number."""
    sample: tuple[dict[str, JsonValue], ...]
    """Rows in the format of a request."""
    fitted_through: str | None = None
    """The latest time in the training rows (ISO 8601), if the data has a time."""
