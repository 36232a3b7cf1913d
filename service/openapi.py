"""The OpenAPI document: routes with the types of their documents (protocols.py), and rows from the model's schema."""

import csv
import io
from collections.abc import Mapping
from typing import Any

import msgspec

from service import protocols
from service.access.guard import OPEN
from service.explanation.document import MAX_ROWS, explanations
from service.predictor import Predictor
from service.row_schema import JsonSchema, row_schemas
from service.settings import Settings
from service.tensors import DATATYPES, HEADER_LENGTH, accepted, outputs_of

JSON, CSV, BINARY = "application/json", "text/csv", "application/octet-stream"
NDJSON, TEXT = "application/x-ndjson", "text/plain"
TYPES = (
    protocols.Rows, protocols.Predictions, protocols.Error, protocols.Invocation, protocols.Scores,
    protocols.MlflowError, protocols.Instances, protocols.InferRequest, protocols.InferResponse, protocols.Refused,
)  # fmt: skip


def document(predictor: Predictor, settings: Settings) -> dict[str, Any]:
    """OpenAPI 3.1 for every route that a program calls."""
    schema, bundle = predictor.schema, predictor.bundle
    v1, v2 = f"/v1/models/{bundle.name}", f"/v2/models/{bundle.name}"
    example = predictor.example()
    described = {
        "openapi": "3.1.0",
        "info": {
            "title": bundle.name,
            "version": bundle.version[:12],
            "description": f"Predicts `{schema.target}`"
            + (f", {schema.horizon} before the event." if schema.horizon else "."),
        },
        "paths": {
            "/predict": _post("Predictions for rows", "Rows", "Predictions", "Error", {"rows": [example]}),
            "/predict/lines": _lines(),
            "/explain": _post("Contributions of the features to predictions", "RowsToExplain", "Explanations", "Error"),
            "/invocations": _invocations(example),
            "/ping": _get("The model can predict", "MlflowError", TEXT, "string"),
            "/health": _get("The model can predict", "MlflowError", TEXT, "string"),
            "/version": _get("The version of MLflow whose protocol this is", "MlflowError", TEXT, "string"),
            f"{v1}:predict": _post(
                "KServe's first protocol", "Instances", "Scores", "Refused", {"instances": [example]}
            ),
            "/v1/models": _get("The models", "Refused"),
            v1: _get("The model can predict", "Refused"),
            **_model(v2),
            **_model(f"{v2}/versions/{bundle.version}"),
            "/v2": _get("Server metadata", "Refused"),
            "/v2/models/stats": _get("Statistics", "Refused"),
            "/v2/repository/index": {"post": _get("The models", "Refused", kind="array")["get"]},
            "/v2/health/live": _get("The process answers", "Refused"),
            "/v2/health/ready": _get("The model can predict", "Refused"),
            "/health/live": _get("The process answers", "Error"),
            "/health/ready": _get("The model can predict", "Error"),
        },
        "components": {"schemas": _schemas(predictor, settings)},
    }
    if settings.api_keys_file is not None:
        _ask_for_keys(described)
    return described


def _ask_for_keys(described: dict[str, Any]) -> None:
    """Add what the guard in front of the application does: every route that isn't a probe needs an API key."""
    described["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    described["security"] = [{"bearer": []}, {"header": []}]
    for path, operations in described["paths"].items():
        for operation in operations.values():
            if path in OPEN:
                operation["security"] = []
                continue
            error = operation["responses"]["503"]["content"]
            retry = {"Retry-After": {"description": "seconds", "schema": {"type": "integer"}}}
            operation["responses"] |= {
                "401": {"description": "no API key that is valid", "content": error},
                "429": {"description": "the API key's limit is used up", "content": error, "headers": retry},
            }


def _schemas(predictor: Predictor, settings: Settings) -> dict[str, JsonSchema]:
    """The protocols' types, with what this model and these settings add to them."""
    schema = predictor.schema
    _, found = msgspec.json.schema_components(TYPES, ref_template="#/components/schemas/{name}")
    found |= row_schemas(predictor.inputs, len(schema.features))
    most = {"maxItems": settings.max_rows}
    found["Rows"]["properties"]["rows"] |= most
    found["Instances"]["properties"]["instances"] |= most
    found["Split"]["properties"]["data"] |= most
    forms = found["Invocation"]["properties"]
    forms["dataframe_records"] |= most
    for form in ("instances", "inputs"):
        forms[form]["anyOf"][0] |= most
    found["Invocation"]["oneOf"] = [{"required": [form]} for form in forms]
    rows = {"type": "array", "items": {"$ref": "#/components/schemas/Row"}, "minItems": 1}
    found["RowsToExplain"] = found["Rows"] | {
        "title": "RowsToExplain",
        "properties": {"rows": rows | {"maxItems": min(MAX_ROWS, settings.max_rows)}},
    }
    prediction = found.pop("Prediction")
    found["Predictions"]["properties"]["predictions"]["items"] = prediction
    prediction["properties"]["prediction"] = _outcome(predictor)
    if schema.classes:
        share = {"type": "number", "minimum": 0, "maximum": 1}
        prediction["properties"]["probabilities"]["properties"] = dict.fromkeys(schema.classes, share)
    found["Explanations"] = explanations(schema, prediction)
    found["InputTensor"]["oneOf"] = [
        {
            "properties": {
                "name": {"const": feature.name},
                "datatype": {"enum": accepted(feature), "examples": [DATATYPES[feature.type]]},
            }
        }
        for feature in schema.features
    ]
    found["RequestedOutput"]["properties"]["name"] = {"enum": [*outputs_of(schema)]}
    return found


def _outcome(predictor: Predictor) -> JsonSchema:
    schema = predictor.schema
    if not schema.classes:
        return {"type": "number"}
    labels = {"text": "string", "integer": "integer", "number": "number", "boolean": "boolean"}
    return {"type": labels[schema.labels], "enum": list(schema.answers())}


def _content(name: str) -> dict[str, Any]:
    return {"content": {JSON: {"schema": {"$ref": f"#/components/schemas/{name}"}}}}


def _get(summary: str, error: str, content: str = JSON, kind: str = "object") -> dict[str, Any]:
    """A route that reads no body, and answers content of this type (in JSON Schema: `kind`) or `error`."""
    answer = {"content": {content: {"schema": {"type": kind}}}}
    responses = {
        "200": {"description": "the answer", **answer},
        "503": {"description": "the model is not loaded yet", **_content(error)},
    }
    return {"get": {"summary": summary, "responses": responses}}


def _model(path: str) -> dict[str, Any]:
    """The Open Inference Protocol's routes of a model, which are below this path."""
    return {
        f"{path}/infer": _infer(),
        path: _get("Model metadata", "Refused"),
        f"{path}/ready": _get("The model can predict", "Refused"),
        f"{path}/config": _get("Model configuration", "Refused"),
        f"{path}/stats": _get("Statistics", "Refused"),
    }


def _infer() -> dict[str, Any]:
    """Tensors as JSON; or as JSON and the tensors' bytes after it, of which OpenAPI can only say that it is binary."""
    made = _post("Open Inference Protocol", "InferRequest", "InferResponse", "Refused")
    length = {
        "description": "bytes of the JSON part of the body; a binary part follows. Without the header, all is JSON",
        "schema": {"type": "integer", "minimum": 0},
    }
    made["post"]["parameters"] = [{"name": HEADER_LENGTH, "in": "header", **length}]
    made["post"]["requestBody"]["content"][BINARY] = {"schema": {"type": "string", "format": "binary"}}
    made["post"]["responses"]["200"]["content"][BINARY] = {}
    made["post"]["responses"]["200"]["headers"] = {HEADER_LENGTH: length}
    return made


def _invocations(example: Mapping[str, Any]) -> dict[str, Any]:
    """MLflow's JSON forms, or CSV, of which OpenAPI can only say that it is text."""
    made = _post("MLflow's scoring protocol", "Invocation", "Scores", "MlflowError", {"instances": [example]})
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([example.keys(), example.values()])
    text = {"type": "string", "description": "a header of features' names, and a row a line"}
    made["post"]["requestBody"]["content"][CSV] = {"schema": text, "example": table.getvalue()}
    return made


def _lines() -> dict[str, Any]:
    """Newline-delimited JSON, of which OpenAPI can only say that it is text."""
    text = {"content": {NDJSON: {"schema": {"type": "string", "pattern": r"\S"}}}}
    made = _post("Predictions for a row a line", "Row", "Predictions", "Error")
    made["post"]["requestBody"] = {"required": True, **text}
    made["post"]["responses"]["200"] = {"description": "a prediction or an error a line", **text}
    return made


def _post(summary: str, request: str, answer: str, error: str, example: Any = None) -> dict[str, Any]:
    """A route that reads the document `request` and answers `answer` or `error`."""
    errors = {
        "400": "the body can't be read",
        "413": "too large a body",
        "415": "a content type, charset or content encoding that isn't read here",
        "422": "the document or some rows are invalid, or there are too many rows",
        "503": "the model is not loaded yet, or too many requests wait",
    }
    body = _content(request)
    if example is not None:
        body["content"][JSON]["example"] = example
    responses = {"200": {"description": "the answer", **_content(answer)}}
    responses |= {status: {"description": why, **_content(error)} for status, why in errors.items()}
    return {"post": {"summary": summary, "requestBody": {"required": True, **body}, "responses": responses}}
