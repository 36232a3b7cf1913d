"""The typed decoders of MLflow's, KServe's and the Open Inference Protocol can't be told from the careful ones."""

import io
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import flask
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from ml.bundle import write_bundle
from ml.schema import Feature
from service.predictor import Predictor
from service.usual import Column
from tests.bundles import EXAMPLE, make_parts
from tests.service.conftest import KINDS
from tests.service.test_direct import PIECES, Observed, post
from tests.service.test_matrix import rows

NAMES = [*EXAMPLE]
TEXTS = ("colour", "shop", "bought", "seen", "note")


def v2(given: list[dict[str, Any]], shape: int = 1, **more: object) -> dict[str, Any]:
    """A tensor for each key of the first row."""
    tensors = [
        {
            "name": name,
            "datatype": "BYTES" if name in TEXTS else "BOOL" if name == "member" else "FP64",
            "shape": [len(given), 1][:shape],
            "data": [row.get(name) if shape == 1 else [row.get(name)] for row in given],
        }
        for name in given[0]
    ]
    return {"inputs": tensors, **more}


FORMS: dict[str, Callable[[list[dict[str, Any]]], Any]] = {
    "split": lambda given: {
        "dataframe_split": {"columns": NAMES[::-1], "data": [[row.get(name) for name in NAMES[::-1]] for row in given]}
    },
    "records": lambda given: {"dataframe_records": given},
    "instances": lambda given: {"instances": given},
    "lists": lambda given: {"instances": [[row.get(name) for name in NAMES] for row in given]},
    "columns": lambda given: {"inputs": {name: [row.get(name) for row in given] for name in (*given[0],)}},
    "tensors": v2,
    "nested": lambda given: v2(given, 2),
}
"""A document of rows in each form."""


def path_of(form: str, name: str) -> list[str]:
    """The routes that take a form."""
    if form in ("tensors", "nested"):
        return [f"/v2/models/{name}/infer"]
    return ["/invocations", *([f"/v1/models/{name}:predict"] if form in ("instances", "lists") else [])]


class Both:
    """The application, and another without typed decoders; what they answer, log and count must be the same."""

    def __init__(self, whole: flask.Flask, plain: flask.Flask, caplog: pytest.LogCaptureFixture) -> None:
        documents = plain.extensions["atlas"].documents
        for part, name in (("tables", "invocation"), ("tables", "instances"), ("tensors", "read")):
            setattr(getattr(documents, part), name, lambda *_: None)
        self.typed, self.careful = Observed(whole, whole.wsgi_app), Observed(plain, plain.wsgi_app)
        self.caplog = caplog

    def ask(self, path: str, body: bytes) -> tuple[Any, ...]:
        """Status, headers, body and log lines of both."""
        found = self.typed(post(body, PATH_INFO=path), self.caplog)
        assert found == self.careful(post(body, PATH_INFO=path), self.caplog), body
        return found

    def check_counts(self) -> None:
        assert self.typed.counts() == self.careful.counts()


@pytest.fixture
def both(make_app: Callable[..., flask.Flask], caplog: pytest.LogCaptureFixture) -> Callable[[Predictor], Both]:
    caplog.set_level(logging.INFO, "service")

    def make(predictor: Predictor) -> Both:
        whole, plain = (make_app(predictor, max_body_bytes=20_000, max_rows=50) for _ in range(2))
        return Both(whole, plain, caplog)

    return make


DOCUMENTS: list[Any] = [
    *({form: [EXAMPLE]} for form in ("dataframe_records", "instances", "inputs")),
    {"inputs": EXAMPLE}, {"inputs": {}}, {"inputs": []}, {"instances": [[]]}, {"instances": [{}]}, {"instances": None},
    {"inputs": {"amount": [1, 2], "shop": ["north"]}}, {"inputs": {"amount": [], "shop": []}}, {"instances": 3}, 3, [],
    {"inputs": {"amount": [1, 2], "shop": ["north", "south"]}},
    {"inputs": {"amount": [5], "shop": ["north"], "x": [1]}},
    {"dataframe_split": {"columns": ["shop", "amount"], "data": [["north", 3], ["south", 4]], "index": [0, 1]}},
    {"dataframe_split": {"columns": ["shop", "amount"], "data": [["north", 3]], "index": ["a"]}},
    {"dataframe_split": {"columns": ["shop", "amount"], "data": [["north", 3]], "index": None}},
    {"dataframe_split": {"columns": None, "data": [[*EXAMPLE.values()]]}},
    {"dataframe_split": {"columns": [], "data": [[], []]}},
    {"dataframe_split": {"data": [[*EXAMPLE.values()]], "other": 1}},
    {"dataframe_split": {"columns": ["shop", "amount", "what"], "data": [["north", 3, 4]]}},
    {"dataframe_split": {"columns": ["shop", "amount", "shop"], "data": [["north", 3, "north"]]}},
    {"dataframe_split": {"columns": ["shop", "amount"], "data": [["north", 3], ["south"]]}},
    {"dataframe_split": {"columns": ["shop", "amount"], "data": []}},
    {"dataframe_split": {"columns": ["shop"], "data": [["north"]]}},
    {"dataframe_records": [EXAMPLE], "params": {"a": 1}}, {"dataframe_records": EXAMPLE}, {"dataframe_records": [[1]]},
    {"dataframe_records": [EXAMPLE], "inputs": [EXAMPLE]}, {"dataframe_records": [EXAMPLE, {"amount": 1}]},
    {"instances": [EXAMPLE, [*EXAMPLE.values()]]}, {"instances": [[*EXAMPLE.values()], EXAMPLE]},
    {"instances": [EXAMPLE], "signature_name": "serving_default"},
    {"instances": [{"amount": 1, "shop": "north"}] * 51}, {"instances": [[*EXAMPLE.values()]] * 51},
    {"instances": [EXAMPLE | {"amount": -1}, EXAMPLE, EXAMPLE | {"shop": None}]},
    {"instances": [EXAMPLE | {"note": 'a "late" \\ refund', "colour": "grün"}]},
    v2([EXAMPLE, EXAMPLE]), v2([EXAMPLE], 2), v2([EXAMPLE], id="7"), v2([EXAMPLE], id=7), v2([EXAMPLE], id="\ud800"),
    v2([EXAMPLE], outputs=[{"name": "prediction"}]), v2([EXAMPLE], outputs=[{"name": "what"}]),
    v2([EXAMPLE], outputs=3),
    v2([EXAMPLE], parameters={"binary_data_output": False, "content_type": "pd"}), v2([EXAMPLE] * 51), {"inputs": []},
    v2([EXAMPLE], parameters={"binary_data_output": True}), v2([EXAMPLE], more=1), v2([EXAMPLE], more="a"),
]  # fmt: skip
"""Documents of every protocol, right and wrong; each is sent to every route."""
TENSORS: list[dict[str, Any]] = [
    {"shape": [2]}, {"shape": [1, 1]}, {"shape": [1, 1], "data": [[1]]}, {"shape": [1], "data": [[1]]},
    {"shape": [1.0]},
    {"shape": [1, 1], "data": [[1], [2]]}, {"shape": [1, 1], "data": [[1, 2]]}, {"shape": [1, 1], "data": [[1], 2]},
    {"shape": ["1"]}, {"shape": []}, {"shape": [1, {"a": 1}]}, {"shape": 1}, {"data": []}, {"data": None},
    {"data": [None]},
    {"data": ["1"]}, {"data": [True]}, {"data": [1e300]}, {"data": [10**400]}, {"data": [2**64]}, {"data": {"a": 1}},
    {"datatype": "BYTES"}, {"datatype": "FP32"}, {"datatype": "FP17"}, {"datatype": 3}, {"name": "shop"},
    {"name": "what"},
    {"parameters": {}}, {"parameters": {"content_type": "np"}}, {"parameters": {"shared_memory_region": "a"}},
    {"parameters": {"binary_data_size": 8}}, {"parameters": 3}, {"parameters": None}, {"more": [1, "a"]},
]  # fmt: skip
"""What replaces parts of the tensor `amount`."""


def tensors() -> list[Any]:
    found = []
    for changed in TENSORS:
        document = v2([{"amount": 1, "shop": "north"}])
        document["inputs"][0] |= changed
        found.append(document)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_documents_get_the_same_answers(
    both: Callable[[Predictor], Both], predictors: dict[str, Predictor], kind: str
) -> None:
    applications = both(predictors[kind])
    name = predictors[kind].bundle.name
    for document in [*DOCUMENTS, *tensors()]:
        for path in ("/invocations", f"/v1/models/{name}:predict", f"/v2/models/{name}/infer"):
            applications.ask(path, json.dumps(document).encode())
    applications.check_counts()


@pytest.mark.parametrize("form", FORMS)
def test_any_rows_get_the_same_answers(both: Callable[[Predictor], Both], predictor: Predictor, form: str) -> None:
    applications = both(predictor)

    @settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.lists(rows(), min_size=1, max_size=4))
    def alike(given: list[Any]) -> None:
        for path in path_of(form, predictor.bundle.name):
            applications.ask(path, json.dumps(FORMS[form](given)).encode())

    alike()
    applications.check_counts()


@pytest.mark.parametrize("form", FORMS)
def test_any_bytes_get_the_same_answers(both: Callable[[Predictor], Both], predictor: Predictor, form: str) -> None:
    applications = both(predictor)
    body = json.dumps(FORMS[form]([EXAMPLE, {"amount": 10.5, "shop": "south"}])).encode()

    @settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.integers(0, len(body)), st.sampled_from([0, 0, 1, 2]), st.sampled_from(PIECES))
    def alike(place: int, removed: int, piece: bytes) -> None:
        for path in path_of(form, predictor.bundle.name):
            applications.ask(path, body[:place] + piece + body[place + removed :])

    alike()
    applications.check_counts()


@pytest.mark.parametrize("form", FORMS)
def test_no_part_of_a_document_can_be_there_twice(
    both: Callable[[Predictor], Both], predictor: Predictor, form: str
) -> None:
    """A decoder keeps the last of two equal keys; which is a mistake that the caller must hear of."""
    applications = both(predictor)
    body = json.dumps(FORMS[form]([EXAMPLE, EXAMPLE])).encode()
    doubled = 0
    for place in [place for place in range(len(body)) if body.startswith(b'": ', place)]:
        start = body.rindex(b'"', 0, place)
        key = body[start : place + 2]
        for value in (b"null", b"{}"):
            for path in path_of(form, predictor.bundle.name):
                status, _, answer, _ = applications.ask(path, body[:start] + key + value + b", " + body[start:])
                assert status[:3] == "400", (key, value)
                assert b"twice" in answer
                doubled += 1
    assert doubled


@pytest.mark.parametrize("form", FORMS)
def test_usual_documents_are_decoded_by_type(
    make_app: Callable[..., flask.Flask], monkeypatch: pytest.MonkeyPatch, predictor: Predictor, form: str
) -> None:
    def careful(*_: object, **__: object) -> Any:
        raise AssertionError("the careful decoder was asked")

    for module in ("invocations", "kserve", "open_inference"):
        monkeypatch.setattr(f"service.routes.{module}.parse_json", careful)
    client = make_app().test_client()
    for given_rows in ([EXAMPLE], [EXAMPLE, EXAMPLE | {"visits": None}]):
        for path in path_of(form, predictor.bundle.name):
            assert client.post(path, json=FORMS[form](given_rows)).status_code == 200
    for more in ({"id": "7"}, {"outputs": [{"name": "prediction"}]}, {"parameters": {"content_type": "pd"}}):
        assert client.post(path_of("tensors", predictor.bundle.name)[0], json=v2([EXAMPLE], **more)).status_code == 200


@pytest.fixture(scope="module")
def coded(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """A bundle whose training file has numbers as categories, and truth values and texts as numbers."""

    def changed(feature: Feature) -> Feature:
        match feature.name:
            case "shop":
                return feature.model_copy(update={"categories": ("1", "2"), "forms": ("number",), "example": "1"})
            case "visits":
                return feature.model_copy(update={"forms": ("boolean", "number", "text")})
            case _:
                return feature

    parts = make_parts()
    parts = replace(
        parts, schema=parts.schema.model_copy(update={"features": tuple(map(changed, parts.schema.features))})
    )
    path = tmp_path_factory.mktemp("coded") / "bundle"
    write_bundle(path, parts)
    return Predictor.load(path)


@pytest.mark.parametrize("form", FORMS)
def test_numbers_may_be_categories(both: Callable[[Predictor], Both], coded: Predictor, form: str) -> None:
    applications = both(coded)
    for values in ([1, 2], [1.0, 2.0], ["1", 2], [1, None], [True, 1], [10**400, 1], [3, 1.5]):
        for visits in ([3, 4], [True, 0.5], ["3", False], [None, "x"], [-0.0, 10**400]):
            given_rows = [EXAMPLE | {"shop": shop, "visits": visit} for shop, visit in zip(values, visits, strict=True)]
            for path in path_of(form, coded.bundle.name):
                applications.ask(path, json.dumps(FORMS[form](given_rows)).encode())
    applications.check_counts()


def test_a_column_of_one_row_is_predicted_as_a_row(make_app: Callable[..., flask.Flask], predictor: Predictor) -> None:
    """numpy's values, as the binary form has them, too."""
    path = f"/v2/models/{predictor.bundle.name}/infer"
    columns: dict[str, tuple[str, Column]] = {
        "amount": ("FP32", np.array([120.5], np.float32)),
        "visits": ("INT16", np.array([3], np.int16)),
        "member": ("BOOL", np.array([True])),
    }
    inputs: list[dict[str, Any]] = [{"name": "shop", "datatype": "BYTES", "shape": [1], "data": ["north"]}]
    content = b""
    for name, (datatype, values) in columns.items():
        part = np.asarray(values).tobytes()
        inputs.append({"name": name, "datatype": datatype, "shape": [1], "parameters": {"binary_data_size": len(part)}})
        content += part
    head = json.dumps({"inputs": inputs}).encode()
    answer = make_app().test_client().post(
        path, input_stream=io.BytesIO(head + content), content_length=len(head + content),
        headers={"Inference-Header-Content-Length": str(len(head))},
    )  # fmt: skip
    (own,) = predictor.predict([{"amount": 120.5, "visits": 3, "member": True, "shop": "north"}]).answers
    assert answer.get_json()["outputs"][1]["data"] == list((own.probabilities or {}).values())
