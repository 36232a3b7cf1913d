"""Contributions are Shapley values, as a count over all coalitions gives them, and add up to the model's answer."""

import itertools
import logging
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from numpy.typing import NDArray

from ml.bundle import Bundle, Parts, bundle_of
from ml.compilation import compile_estimator
from ml.decision import (
    Decision,
    IsotonicCalibration,
    SigmoidCalibration,
    TargetTransform,
    TemperatureCalibration,
)
from ml.encoding import Encoding, LookupEncoder, NumericEncoder, OneHotEncoder
from ml.estimators import Model, average, make_estimator
from ml.model_params import EstimatorParams
from ml.schema import Feature, Schema, Task
from service.app import create_app
from service.explanation import explainer as explaining
from service.explanation import trees
from service.explanation.explainer import Explainer
from service.predictor import Predictor
from service.settings import Settings
from tests.bundles import make_parts

FEATURES = (
    Feature(name="amount", type="numeric"),
    Feature(name="visits", type="numeric"),
    Feature(name="colour", type="categorical", categories=("red", "green", "blue")),
    Feature(name="shop", type="categorical", categories=("north", "south")),
    Feature(name="unused", type="numeric"),
)
ENCODING = Encoding(
    encoders=(
        NumericEncoder(column="amount"),
        NumericEncoder(column="visits"),
        OneHotEncoder(columns=("colour",), categories=("red", "green", "blue")),
        LookupEncoder(
            kind="target",
            columns=("colour", "shop"),
            outputs=("",),
            table={"red\x1fnorth": (0.2,), "blue\x1fsouth": (0.9,), "green\x1fnorth": (0.7,)},
            default=(0.4,),
        ),
    )
)
PLAYERS = ((0,), (1,), (2, 3, 4), (5,))
"""The columns of each player: amount, visits, colour, and the cross of colour and shop."""


def invented(rows: int, seed: int = 0) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    return [
        {
            "amount": None if rng.random() < 0.2 else float(rng.normal()),
            "visits": float(rng.integers(0, 4)),
            "colour": str(rng.choice(["red", "green", "blue", "mauve"])),
            "shop": str(rng.choice(["north", "south"])),
            "unused": 1.0,
        }
        for _ in range(rows)
    ]


def fitted(kinds: dict[str, dict[str, Any]], task: Task, decision: Decision | None = None) -> Predictor:
    """A predictor whose model is of these kinds of estimators, averaged with the weights 1, 2, …"""
    rows = invented(400)
    columns: dict[str, NDArray[Any]] = {
        feature.name: np.array(
            [row[feature.name] for row in rows], dtype=object if feature.type == "categorical" else float
        )
        for feature in FEATURES
    }
    matrix = ENCODING.transform(columns)
    amount = np.nan_to_num(matrix[:, 0])
    signal = amount * (matrix[:, 1] > 1) + matrix[:, 2] - 2 * matrix[:, 5] * amount
    target = {"binary": signal > 0, "multiclass": np.digitize(signal, [-0.3, 0.5]), "regression": signal}[task]
    target = target if task == "regression" else target.astype(int)
    estimators = {}
    for kind, settings in kinds.items():
        params = EstimatorParams.model_validate({"kind": kind} | settings)
        estimators[kind] = make_estimator(params, task, 1, ENCODING.names()).fit(matrix, target)
    shares = [float(place) for place in range(1, len(estimators) + 1)]
    model = Model(ENCODING, average(estimators, shares, target, task))
    classes = {"binary": ("no", "yes"), "multiclass": ("a", "b", "c"), "regression": ()}[task]
    schema = Schema(target="y", task=task, classes=classes, features=FEATURES)
    runtime, data, _ = compile_estimator(model, schema, matrix, 1.0, 1e-4, logging.getLogger())
    assert runtime == "onnx"
    other = make_parts(task)
    parts = Parts(
        name="small",
        runtime=runtime,
        model=data,
        schema=schema,
        encoding=ENCODING,
        decision=decision or Decision(threshold=0.5 if task == "binary" else None),
        reference=other.reference.model_copy(update={"sample": tuple(rows[:12])}),
        card=other.card,
    )
    return Predictor(bundle_of("1" * 64, parts))


def by_definition(
    bundle: Bundle, row: NDArray[np.float32], background: NDArray[np.float32], score: Any
) -> NDArray[np.float64]:
    """Shapley values over all coalitions of players, and all background rows."""
    number = len(PLAYERS)

    def worth(coalition: tuple[int, ...]) -> float:
        mixed = background.copy()
        for player in coalition:
            mixed[:, PLAYERS[player]] = row[list(PLAYERS[player])]
        return float(np.mean(score(bundle.parts.decision.scores(bundle.run(mixed)))))

    values = np.zeros(number)
    for player in range(number):
        others = [other for other in range(number) if other != player]
        for size in range(number):
            share = math.factorial(size) * math.factorial(number - size - 1) / math.factorial(number)
            for coalition in itertools.combinations(others, size):
                values[player] += share * (worth((*coalition, player)) - worth(coalition))
    return values


def score_of(scale: str, winner: int) -> Any:
    """What is explained, of the model's answers."""
    return {
        "log_odds": lambda scores: np.log(scores[:, 1] / scores[:, 0]),
        "log_ratio": lambda scores: np.log(scores[:, winner]) - np.log(scores).mean(axis=1),
        "probability": lambda scores: scores[:, winner],
        "number": lambda scores: scores,
        "log": np.log1p,
    }[scale]


BOOSTED = {"hist_gradient_boosting": {"max_iter": 8, "max_leaf_nodes": 9, "min_samples_leaf": 5}}
FOREST = {"random_forest": {"n_estimators": 7, "max_depth": 5}}
EXTRA = {"extra_trees": {"n_estimators": 7, "max_depth": 5}}
LINEAR: dict[str, Any] = {"linear": {}}
SIGMOID = Decision(calibration=SigmoidCalibration(slope=1.3, intercept=-0.4), threshold=0.5)
HOT = Decision(calibration=TemperatureCalibration(temperature=2), threshold=0.5)
HOT_CLASSES = Decision(calibration=TemperatureCalibration(temperature=1.5))
BENT = Decision(calibration=IsotonicCalibration(x=(0, 0.3, 0.6, 1), y=(0.1, 0.2, 0.9, 0.95)), threshold=0.5)
MOVED = Decision(target=TargetTransform(shift=100, scale=5))
LOGARITHM = Decision(target=TargetTransform(kind="log", shift=1, scale=0.5))

CASES: dict[str, tuple[dict[str, Any], Task, Decision | None, str]] = {
    "boosted": (BOOSTED, "binary", None, "log_odds"),
    "boosted, calibrated": (BOOSTED, "binary", SIGMOID, "log_odds"),
    "boosted, temperature": (BOOSTED, "binary", HOT, "log_odds"),
    "boosted, three classes": (BOOSTED, "multiclass", HOT_CLASSES, "log_ratio"),
    "boosted, a number": (BOOSTED, "regression", MOVED, "number"),
    "boosted, a logarithm": (BOOSTED, "regression", LOGARITHM, "log"),
    "forest": (FOREST, "binary", None, "probability"),
    "forest, three classes": (EXTRA, "multiclass", None, "probability"),
    "forest, a number": (EXTRA, "regression", None, "number"),
    "linear": (LINEAR, "binary", None, "log_odds"),
    "linear, three classes": (LINEAR, "multiclass", None, "log_ratio"),
    "linear, a number, without a column": ({"linear": {"without": ["colour=red"]}}, "regression", None, "number"),
    "average of forests": (FOREST | EXTRA, "binary", None, "probability"),
    "average of numbers": (BOOSTED | LINEAR | FOREST, "regression", None, "number"),
}


@pytest.mark.parametrize("case", CASES)
def test_contributions_are_shapley_values_and_add_up(case: str) -> None:
    kinds, task, decision, scale = CASES[case]
    loaded = fitted(kinds, task, decision)
    explainer = Explainer(loaded)
    assert (explainer.scale, explainer.exact, explainer.background_rows) == (scale, True, 12)
    rows = invented(4, seed=5)
    answers = loaded.predict(rows)
    background = loaded.encode(loaded.bundle.parts.reference.sample)
    for place, found in enumerate(explainer.explain(rows, answers)):
        score = score_of(scale, answers.winners[place] if task == "multiclass" else 1)
        row = loaded.encode([rows[place]])
        values = by_definition(loaded.bundle, row[0], background, score)
        expected = {
            "amount": values[0],
            "visits": values[1],
            "colour": values[2] + values[3] / 2,  # the cross belongs to both
            "shop": values[3] / 2,
            "unused": 0.0,
        }
        assert found.contributions == pytest.approx(expected, abs=2e-5 * max(1, abs(found.value)))
        sizes = [abs(value) for value in found.contributions.values()]
        assert sizes == sorted(sizes, reverse=True)
        own = loaded.bundle.parts.decision.scores(loaded.bundle.run(row))
        assert found.value == pytest.approx(float(score(own)[0]), rel=1e-4, abs=1e-4)
        assert found.base + sum(found.contributions.values()) == pytest.approx(found.value)


SAMPLED: dict[str, tuple[dict[str, Any], Task, Decision | None]] = {
    "average of probabilities": (BOOSTED | LINEAR, "binary", None),
    "isotonic": (BOOSTED, "binary", BENT),
    "three classes, averaged": (BOOSTED | FOREST, "multiclass", None),
}


@pytest.mark.parametrize("case", SAMPLED)
def test_other_models_get_estimates_that_add_up_to_the_probability(case: str) -> None:
    loaded = fitted(*SAMPLED[case])
    explainer = Explainer(loaded)
    assert (explainer.scale, explainer.exact) == ("probability", False)
    rows = invented(3, seed=6)
    answers = loaded.predict(rows)
    background = loaded.encode(loaded.bundle.parts.reference.sample)
    found = explainer.explain(rows, answers)
    assert explainer.explain(rows, answers) == found
    for place, one in enumerate(found):
        winner = answers.winners[place] if loaded.schema.task == "multiclass" else 1
        assert one.value == pytest.approx(answers.scores[place][winner], abs=1e-9)
        values = by_definition(
            loaded.bundle, loaded.encode([rows[place]])[0], background, score_of("probability", winner)
        )
        assert one.contributions["amount"] == pytest.approx(values[0], abs=0.05)
        assert one.contributions["visits"] == pytest.approx(values[1], abs=0.05)


def test_too_large_trees_and_misread_graphs_are_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = fitted(*CASES["boosted"][:3])
    monkeypatch.setattr(trees, "MOST_EDGES", 10)
    assert not Explainer(loaded).exact
    monkeypatch.undo()
    monkeypatch.setattr(explaining, "BACKGROUND", 5)
    assert Explainer(loaded).background_rows == 5
    # As if the graph meant something else than what is read from it.
    run = loaded.bundle.run
    loaded.bundle = replace(loaded.bundle, run=lambda matrix: run(matrix)[:, ::-1])
    assert not Explainer(loaded).exact


def test_the_route_explains_what_predict_answers(client: FlaskClient, predictor: Predictor) -> None:
    rows = [predictor.example(), predictor.example() | {"amount": 900.0, "note": None}]
    predicted = client.post("/predict", json={"rows": rows}).get_json()
    answer = client.post("/explain", json={"rows": rows})
    assert answer.status_code == 200
    document = answer.get_json()
    assert document["model"] == predicted["model"]
    assert (document["scale"], document["exact"]) == ("log_odds", True)
    for explained, prediction in zip(document["explanations"], predicted["predictions"], strict=True):
        assert {name: explained[name] for name in prediction} == prediction
        assert explained["label"] == "yes"
        probability = prediction["probabilities"]["yes"]
        assert explained["value"] == pytest.approx(math.log(probability / (1 - probability)), abs=1e-4)
        assert explained["base"] + sum(explained["contributions"].values()) == pytest.approx(explained["value"])
        assert set(explained["contributions"]) == {feature.name for feature in predictor.schema.features}
    assert 'url_rule="/explain"' in client.get("/metrics").text


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"rows": []}, 422, "no_rows"),
        ({"row": []}, 422, "no_rows"),
        ({"rows": [{}] * 101}, 422, "too_many_rows"),
        ({"rows": [{"amount": "much"}]}, 422, "invalid_rows"),
        ({"rows": [3]}, 422, "not_an_object"),
    ],
)
def test_a_wrong_request_is_refused_as_elsewhere(client: FlaskClient, body: Any, status: int, code: str) -> None:
    answer = client.post("/explain", json=body)
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (status, code)


@pytest.mark.parametrize("kind", ["multiclass", "regression"])
def test_every_kind_of_model_is_explained(kind: str, predictors: dict[str, Predictor]) -> None:
    loaded = predictors[kind]
    served = create_app(Settings(), loaded).test_client()
    document = served.post("/explain", json={"rows": [loaded.example()]}).get_json()
    explained = document["explanations"][0]
    assert document["scale"] == {"multiclass": "log_ratio", "regression": "number"}[kind]
    if kind == "regression":
        assert explained["value"] == pytest.approx(explained["prediction"], rel=1e-4)
        assert "label" not in explained
    else:
        assert explained["label"] == explained["prediction"]


def test_a_service_without_a_model_is_not_ready(make_app: Any) -> None:
    assert make_app(None).test_client().post("/explain", json={"rows": [{}]}).status_code == 503
