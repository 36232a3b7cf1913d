"""Small real bundles, trained on invented rows and compiled; tests of all areas serve, deploy or register them."""

import math
import tempfile
import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ml.bundle import Parts, write_bundle
from ml.card import Card, Distribution, Figure, Parity, Reference, Slice
from ml.decision import Decision, SigmoidCalibration
from ml.encoding import DatetimeEncoder, Encoding, LookupEncoder, NumericEncoder, OneHotEncoder, TextEncoder
from ml.schema import Columns, Feature, Schema, Task

Kind = Literal["binary", "multiclass", "regression"]

COLOURS = ("red", "green", "blue")
SHOPS = ("north", "south")
JANUARY = 1_704_067_200.0  # 2024-01-01
JULY = 1_719_792_000.0  # 2024-07-01

FEATURES = (
    Feature(
        name="amount",
        type="numeric",
        required=True,
        minimum=0,
        maximum=1000,
        low=1,
        high=500,
        example=120.5,
        description="What was paid",
    ),
    Feature(name="visits", type="numeric", integer=True, low=0, high=9, example=3.0, live=True),
    Feature(name="colour", type="categorical", categories=COLOURS, example="red"),
    Feature(name="shop", type="categorical", required=True, unknown="refuse", categories=SHOPS, example="north"),
    Feature(name="bought", type="datetime", low=JANUARY, high=JULY, example="2024-03-01T17:30:00"),
    Feature(name="seen", type="datetime", utc=True, low=JANUARY, high=JULY, example="2024-03-02T08:00:00Z"),
    Feature(name="member", type="boolean", example=True),
    Feature(name="note", type="text", example="late refund"),
)
"""A feature of every type: required and optional, with and without bounds, refusing or accepting new categories."""

EXAMPLE: dict[str, Any] = {feature.name: feature.example for feature in FEATURES}
"""A row in the format of a request."""

ENCODING = Encoding(
    encoders=(
        NumericEncoder(column="amount"),
        NumericEncoder(column="visits"),
        OneHotEncoder(columns=("colour",), categories=COLOURS),
        LookupEncoder(
            kind="target",
            columns=("shop",),
            outputs=("",),
            table={"north": (0.3,), "south": (0.6,)},
            default=(0.45,),
        ),
        DatetimeEncoder(column="bought", parts=("hour", "dayofweek")),
        DatetimeEncoder(column="seen", parts=("epoch_days",)),
        NumericEncoder(column="member"),
        TextEncoder(column="note", vocabulary={"late": 0, "refund": 1, "thanks": 2}, idf=(1.2, 1.5, 1.1)),
    )
)


def make_parts(kind: Kind = "binary", name: str | None = None, seed: int = 1) -> Parts:
    """A bundle's parts; another seed gives another model, and so another version."""
    columns, amount = _columns(seed)
    matrix = ENCODING.transform(columns)
    member = np.nan_to_num(np.asarray(columns["member"], dtype=np.float64))
    signal = amount / 250 - 1 + member + 0.3 * np.random.default_rng(seed).standard_normal(len(amount))
    classes: tuple[str, ...] = {"binary": ("no", "yes"), "multiclass": ("low", "middle", "high"), "regression": ()}[
        kind
    ]
    target = {
        "binary": (signal > 0.5).astype(int),
        "multiclass": np.digitize(signal, [0, 1]),
        "regression": signal * 100,
    }[kind]
    task: Task = kind
    return Parts(
        name=name or f"small-{kind}",
        runtime="onnx",
        model=_compiled(kind, matrix, target),
        schema=Schema(target="returned", task=task, classes=classes, features=FEATURES, horizon="2h"),
        encoding=ENCODING,
        decision=Decision(calibration=SigmoidCalibration(slope=1.1, intercept=-0.1), threshold=0.4)
        if kind == "binary"
        else Decision(),
        reference=_reference(kind),
        card=_card(kind, name or f"small-{kind}", classes),
    )


def make_bundle(path: Path, kind: Kind = "binary", name: str | None = None, seed: int = 1) -> Path:
    """A bundle directory at `path`."""
    write_bundle(path, make_parts(kind, name, seed))
    return path


def version_of(parts: Parts) -> str:
    """The version that a bundle of these parts gets."""
    with tempfile.TemporaryDirectory() as folder:
        return write_bundle(Path(folder, "bundle"), parts)


def _columns(seed: int, rows: int = 300) -> tuple[Columns, NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    amount = rng.uniform(1, 500, rows)
    columns: Columns = {
        "amount": amount,
        "visits": np.where(rng.random(rows) < 0.2, math.nan, rng.integers(0, 10, rows)),
        "colour": rng.choice(np.array([*COLOURS, None], dtype=object), rows),
        "shop": rng.choice(np.array(SHOPS, dtype=object), rows),
        "bought": rng.uniform(JANUARY, JULY, rows),
        "seen": rng.uniform(JANUARY, JULY, rows),
        "member": np.where(rng.random(rows) < 0.1, math.nan, (rng.random(rows) < 0.5).astype(float)),
        "note": rng.choice(np.array(["late refund", "thanks", None], dtype=object), rows),
    }
    return columns, amount


def _compiled(kind: Kind, matrix: NDArray[np.float32], target: NDArray[Any]) -> bytes:
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LinearRegression, LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = {
        "binary": lambda: HistGradientBoostingClassifier(max_iter=20, max_leaf_nodes=6, random_state=0),
        "multiclass": lambda: make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()),
        "regression": lambda: make_pipeline(SimpleImputer(), StandardScaler(), LinearRegression()),
    }[kind]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings of the converters
        model.fit(matrix, target)
        graph = convert_sklearn(
            model,
            initial_types=[("features", FloatTensorType([None, matrix.shape[1]]))],
            options=None if kind == "regression" else {id(model): {"zipmap": False}},
            target_opset=17,
        )
    compiled: bytes = graph.SerializeToString()
    return compiled


def _reference(kind: Kind) -> Reference:
    deciles = tuple(float(edge) for edge in range(0, 501, 50))
    return Reference(
        rows=300,
        features={
            "amount": Distribution(missing=0, edges=deciles, counts=(30,) * 10),
            "colour": Distribution(missing=0.25, categories=COLOURS, counts=(75, 75, 75)),
        },
        scores=Distribution(missing=0, edges=(-300.0, 300.0) if kind == "regression" else (0.0, 1.0), counts=(300,)),
        sample=(EXAMPLE, EXAMPLE | {"amount": 480.0, "member": False, "visits": None}),
        fitted_through="2024-06-30T23:00:00",
    )


def _card(kind: Kind, name: str, classes: tuple[str, ...]) -> Card:
    metric = "rmse" if kind == "regression" else "log_loss"
    figures = {metric: Figure(value=0.52, low=0.51, high=0.53)}
    line = ((0.0, 0.0), (0.3, 0.7), (1.0, 1.0))
    curves = {
        "binary": {"roc": line, "precision_recall": line[::-1], "calibration": line},
        "multiclass": {"calibration": line},
        "regression": {"residuals": ((-20.0, 3.0), (10.0, -4.0), (90.0, 1.5))},
    }[kind]
    return Card(
        name=name,
        description="Made-up purchases.",
        task=kind,
        target="returned",
        data={
            "rows": {"train": 200, "validation": 50, "test": 50},
            "borders": {"test": ["2024-06-01T00:00:00", "2024-06-30T23:00:00"]},
            "without_target": 4,
            "set_aside": 2,
            "set_aside_by": {"amount.maximum": 2},
        },
        model={"calibration": "sigmoid", "threshold_maximizes": "f1", "refitted": True},
        parity=Parity(rows=50, largest_difference=2e-7, tolerance=1e-5),
        metrics=figures,
        without_live=figures,
        slices=(Slice(feature="shop", value="north", rows=25, metrics=figures),),
        importance={"amount": 0.12, "member": 0.05, "note": 0.0},
        curves=curves,
        confusion=tuple(
            tuple(10 if row == column else 3 for column in range(len(classes))) for row in range(len(classes))
        ),
    )
