"""The OpenAPI document, generated from the model's schema."""

from typing import Any, get_args

from ml.schema import Feature, Form
from ml.values import is_numeric, number
from service.explanation.document import explanations
from service.inputs import MAX_TEXT, WarningCode
from service.predictor import Predictor
from service.settings import Settings

JSON = "application/json"


def document(predictor: Predictor, settings: Settings) -> dict[str, Any]:
    """OpenAPI 3.1 for every route that a program calls."""
    schema = predictor.schema
    row = {
        "type": "object",
        "properties": {feature.name: _property(feature) for feature in schema.features},
        "required": [feature.name for feature in schema.features if feature.required],
    }
    outcome: dict[str, Any] = {"type": "number"}
    if schema.classes:
        labels = {"text": "string", "integer": "integer", "number": "number", "boolean": "boolean"}
        outcome = {"type": labels[schema.labels], "enum": list(schema.answers())}
    prediction: dict[str, Any] = {
        "type": "object",
        "required": ["prediction", "warnings"],
        "properties": {
            "prediction": outcome,
            "warnings": {"type": "array", "items": {"$ref": "#/components/schemas/Warning"}},
        },
    }
    if schema.classes:
        prediction["properties"]["probabilities"] = {
            "type": "object",
            "properties": {label: {"type": "number", "minimum": 0, "maximum": 1} for label in schema.classes},
        }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": predictor.bundle.name,
            "version": predictor.bundle.version[:12],
            "description": f"Predicts `{schema.target}`"
            + (f", {schema.horizon} before the event." if schema.horizon else "."),
        },
        "paths": {
            "/predict": {
                "post": _operation(
                    "Predictions for rows",
                    {"$ref": "#/components/schemas/Predictions"},
                    {
                        "required": True,
                        "content": {
                            JSON: {
                                "schema": {"$ref": "#/components/schemas/Rows"},
                                "example": {"rows": [predictor.example()]},
                            }
                        },
                    },
                )
            },
            "/explain": {
                "post": _operation(
                    "Contributions of the features to predictions",
                    {"$ref": "#/components/schemas/Explanations"},
                    {"required": True, "content": {JSON: {"schema": {"$ref": "#/components/schemas/Rows"}}}},
                )
            },
            "/invocations": {
                "post": _operation(
                    "MLflow's scoring protocol",
                    {"type": "object"},
                    {"required": True, "content": {JSON: {"schema": _invocations()}}},
                )
            },
            f"/v2/models/{predictor.bundle.name}/infer": {
                "post": _operation(
                    "Open Inference Protocol",
                    {"type": "object"},
                    {"required": True, "content": {JSON: {"schema": _infer()}}},
                )
            },
            f"/v2/models/{predictor.bundle.name}": {"get": _operation("Model metadata", {"type": "object"})},
            "/v2": {"get": _operation("Server metadata", {"type": "object"})},
            "/v2/health/live": {"get": _operation("The process answers", {"type": "object"})},
            "/v2/health/ready": {"get": _operation("The model can predict", {"type": "object"})},
            "/health/live": {"get": _operation("The process answers", {"type": "object"})},
            "/health/ready": {"get": _operation("The model can predict", {"type": "object"})},
        },
        "components": {
            "schemas": {
                "Row": row,
                "Rows": {
                    "type": "object",
                    "required": ["rows"],
                    "additionalProperties": False,
                    "properties": {
                        "rows": {
                            "type": "array",
                            "minItems": 1,
                            "maxItems": settings.max_rows,
                            "items": {"$ref": "#/components/schemas/Row"},
                        }
                    },
                },
                "Predictions": {
                    "type": "object",
                    "required": ["model", "predictions"],
                    "properties": {
                        "model": {
                            "type": "object",
                            "required": ["name", "version"],
                            "properties": {"name": {"type": "string"}, "version": {"type": "string"}},
                        },
                        "predictions": {"type": "array", "items": prediction},
                    },
                },
                "Explanations": explanations(schema, prediction),
                "Warning": {
                    "type": "object",
                    "required": ["field", "code", "message"],
                    "properties": {
                        "field": {"type": ["string", "null"]},
                        "code": {"enum": list(get_args(WarningCode))},
                        "message": {"type": "string"},
                    },
                },
                "Error": _error(),
            }
        },
    }


def _property(feature: Feature) -> dict[str, Any]:
    """A feature as JSON Schema; null means missing, if a value isn't required."""
    kinds = {"numeric": ["number"], "boolean": ["boolean"]}.get(feature.type, ["string"])
    if feature.type in ("numeric", "categorical"):
        names: dict[Form, str] = {"boolean": "boolean", "number": "number", "text": "string"}
        kinds += [names[form] for form in feature.forms if names[form] not in kinds]
    if feature.type == "datetime" and feature.format is not None and is_numeric(feature.format):
        kinds += ["number"]
    if not feature.required:
        kinds += ["null"]
    found: dict[str, Any] = {"type": kinds[0] if len(kinds) == 1 else kinds}
    notes = [feature.description] if feature.description else []
    if feature.type == "datetime":
        zone = f" of {feature.timezone}" if feature.timezone else " with offset" if feature.utc else " without offset"
        notes.append(f"a time{zone}: ISO 8601{f', or {feature.format}' if feature.format else ''}")
    if notes:
        found["description"] = "; ".join(notes)
    if feature.minimum is not None:
        found["minimum"] = feature.minimum
    if feature.maximum is not None:
        found["maximum"] = feature.maximum
    if feature.type == "datetime" and feature.utc and feature.format is None:
        found["format"] = "date-time"
    if feature.type == "categorical" and feature.unknown == "refuse":
        found["enum"] = [*_written(feature), *([] if feature.required else [None])]
    if feature.type in ("categorical", "text"):
        found["maxLength"] = MAX_TEXT
    if feature.example is not None:
        found["examples"] = [feature.example]
    return found


def _written(feature: Feature) -> list[str | float | bool]:
    """The categories as JSON writes them."""
    written: list[str | float | bool] = list(feature.categories)
    if "number" in feature.forms:
        written += [value for text in feature.categories if (value := number(text)) is not None]
    if "boolean" in feature.forms:
        written += [text == "true" for text in feature.categories if text in ("true", "false")]
    return written


def _operation(summary: str, answer: dict[str, Any], body: dict[str, Any] | None = None) -> dict[str, Any]:
    error = {"content": {JSON: {"schema": {"$ref": "#/components/schemas/Error"}}}}
    responses: dict[str, Any] = {"200": {"description": "the answer", "content": {JSON: {"schema": answer}}}}
    if body is not None:
        responses |= {
            "400": {"description": "not JSON", **error},
            "413": {"description": "too many rows, or too large a body", **error},
            "415": {"description": "not application/json", **error},
            "422": {"description": "some rows are invalid; the reason for each is listed", **error},
        }
    responses["503"] = {"description": "the model is not loaded yet", **error}
    return {"summary": summary, "responses": responses} | ({} if body is None else {"requestBody": body})


def _error() -> dict[str, Any]:
    problem = {
        "type": "object",
        "required": ["row", "field", "code", "message"],
        "properties": {
            "row": {"type": "integer"},
            "field": {"type": ["string", "null"]},
            "code": {"type": "string"},
            "message": {"type": "string"},
        },
    }
    inner = {
        "type": "object",
        "required": ["code", "message", "problems"],
        "properties": {
            "code": {"type": "string"},
            "message": {"type": "string"},
            "problems": {"type": "array", "items": problem},
        },
    }
    return {
        "type": "object",
        "required": ["error", "request_id"],
        "properties": {"error": inner, "request_id": {"type": "string"}},
    }


def _invocations() -> dict[str, Any]:
    split = {
        "type": "object",
        "required": ["columns", "data"],
        "properties": {"columns": {"type": "array", "items": {"type": "string"}}, "data": {"type": "array"}},
    }
    return {
        "type": "object",
        "properties": {
            "dataframe_split": split,
            "dataframe_records": {"type": "array", "items": {"type": "object"}},
            "instances": {"type": "array", "items": {"type": "object"}},
            "inputs": {"type": "object"},
        },
    }


def _infer() -> dict[str, Any]:
    tensor = {
        "type": "object",
        "required": ["name", "shape", "datatype", "data"],
        "properties": {
            "name": {"type": "string"},
            "shape": {"type": "array", "items": {"type": "integer"}},
            "datatype": {"type": "string"},
            "data": {"type": "array"},
        },
    }
    return {
        "type": "object",
        "required": ["inputs"],
        "properties": {"id": {"type": "string"}, "inputs": {"type": "array", "items": tensor}},
    }
