"""/v2: the Open Inference Protocol, so that KServe and Triton clients work unchanged."""

from typing import Any

import flask

from ml.schema import Feature, Schema
from service.errors import ApiError
from service.routes.shared import answer, predictor, read_json
from service.state import state

blueprint = flask.Blueprint("open_inference", __name__, url_prefix="/v2")

DATATYPES = {"numeric": "FP64", "boolean": "BOOL", "datetime": "BYTES", "categorical": "BYTES", "text": "BYTES"}
"""The datatype of each type of feature, as the metadata name it."""
LABELS = {"text": "BYTES", "integer": "INT64", "number": "FP64", "boolean": "BOOL"}
NUMBERS = frozenset({"FP64", "FP32", "FP16", "INT64", "INT32", "INT16", "INT8", "UINT64", "UINT32", "UINT16", "UINT8"})

ACCEPTED = {
    "numeric": NUMBERS | {"BOOL"},
    "boolean": NUMBERS | {"BOOL", "BYTES"},
    "datetime": NUMBERS | {"BYTES"},
    "categorical": NUMBERS | {"BOOL", "BYTES"},
    "text": {"BYTES"},
}
"""The datatypes in which a feature's values can be sent; whether a value fits is decided as in the other protocols."""


@blueprint.get("")
def server() -> dict[str, Any]:
    """Server metadata."""
    return {"name": "atlas", "version": "2", "extensions": []}


@blueprint.get("/health/live")
def live() -> dict[str, bool]:
    """The process answers."""
    return {"live": True}


@blueprint.get("/health/ready")
def ready() -> dict[str, bool]:
    """The model can predict; 503 otherwise."""
    predictor()
    return {"ready": True}


@blueprint.get("/models/<name>")
@blueprint.get("/models/<name>/versions/<version>")
def model(name: str, version: str | None = None) -> dict[str, Any]:
    """Model metadata: one tensor of shape [rows] per feature."""
    _check(name, version)
    schema = predictor().schema
    outputs = [{"name": "prediction", "datatype": _prediction_type(schema), "shape": [-1]}]
    if schema.classes:
        outputs.append({"name": "probabilities", "datatype": "FP64", "shape": [-1, len(schema.classes)]})
    return {
        "name": name,
        "versions": [predictor().bundle.version],
        "platform": "atlas",
        "inputs": [
            {"name": feature.name, "datatype": DATATYPES[feature.type], "shape": [-1]} for feature in schema.features
        ],
        "outputs": outputs,
    }


@blueprint.get("/models/<name>/ready")
@blueprint.get("/models/<name>/versions/<version>/ready")
def model_ready(name: str, version: str | None = None) -> dict[str, Any]:
    """The model of that name can predict."""
    _check(name, version)
    return {"name": name, "ready": True}


@blueprint.post("/models/<name>/infer")
@blueprint.post("/models/<name>/versions/<version>/infer")
def infer(name: str, version: str | None = None) -> dict[str, Any]:
    """One tensor per feature in, `prediction` and `probabilities` out; NaN means missing."""
    _check(name, version)
    document = read_json(bare_nan=True)
    tensors = document.get("inputs") if isinstance(document, dict) else None
    if not isinstance(tensors, list) or not tensors:
        raise ApiError(422, "no_rows", "send inputs: one tensor per feature")
    columns: dict[str, list[Any]] = {}
    features = {feature.name: feature for feature in predictor().schema.features}
    for place, tensor in enumerate(tensors):
        feature, values = _tensor(place, tensor, features)
        if feature.name in columns:
            raise ApiError(422, "wrong_tensor", f"inputs.{place}: there is already a tensor for {feature.name}")
        columns[feature.name] = values
    lengths = {len(values) for values in columns.values()}
    if len(lengths) != 1:
        raise ApiError(422, "wrong_tensor", f"tensors have different numbers of rows: {sorted(lengths)[:5]}")
    length = lengths.pop()
    limit = state().settings.max_rows
    if length > limit:
        raise ApiError(413, "too_many_rows", f"the request has {length} rows, but the limit is {limit}")
    rows = [{key: values[row] for key, values in columns.items()} for row in range(length)]
    loaded, answers = answer(rows, "missing")
    classes = loaded.schema.classes
    outputs: list[dict[str, Any]] = [
        {
            "name": "prediction",
            "datatype": _prediction_type(loaded.schema),
            "shape": [length],
            "data": [one.prediction for one in answers.answers],
        }
    ]
    if classes:
        flat = [p for one in answers.answers for p in (one.probabilities or {}).values()]
        outputs.append({"name": "probabilities", "datatype": "FP64", "shape": [length, len(classes)], "data": flat})
    response = {"model_name": name, "model_version": loaded.bundle.version, "outputs": outputs}
    return response | ({"id": document["id"]} if isinstance(document.get("id"), str) else {})


def _tensor(place: int, tensor: Any, features: dict[str, Feature]) -> tuple[Feature, list[Any]]:
    """The feature that a tensor belongs to, and its values by row."""
    if (
        not isinstance(tensor, dict)
        or not isinstance(tensor.get("name"), str)
        or not isinstance(tensor.get("data"), list)
    ):
        raise ApiError(422, "wrong_tensor", f"inputs.{place} must be an object with name, shape, datatype and data")
    feature = features.get(tensor["name"])
    if feature is None:
        raise ApiError(422, "wrong_tensor", f"inputs.{place}: {tensor['name'][:50]!r} is not a feature of this model")
    data, datatype, shape = tensor["data"], tensor.get("datatype"), tensor.get("shape")
    if shape not in ([len(data)], [len(data), 1]):
        raise ApiError(422, "wrong_tensor", f"inputs.{place}: shape must be [{len(data)}], one value per row")
    accepted = ACCEPTED[feature.type] | ({"BYTES"} if "text" in feature.forms else set())
    if not isinstance(datatype, str) or datatype not in accepted:
        expected = DATATYPES[feature.type]
        raise ApiError(422, "wrong_tensor", f"inputs.{place}: {feature.name} must have the datatype {expected}")
    if shape == [len(data), 1] and data and isinstance(data[0], list):
        raise ApiError(422, "wrong_tensor", f"inputs.{place}: data must be a flat list")
    return feature, data


def _prediction_type(schema: Schema) -> str:
    return LABELS[schema.labels] if schema.classes else "FP64"


def _check(name: str, version: str | None) -> None:
    bundle = predictor().bundle
    if name != bundle.name:
        raise ApiError(404, "no_such_model", f"this service has the model {bundle.name}")
    if version not in (None, bundle.version):
        raise ApiError(404, "no_such_version", f"this service has version {bundle.version}")
