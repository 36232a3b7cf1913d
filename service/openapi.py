"""The OpenAPI document, generated from the model's schema."""

from typing import Any

from ml.schema import Feature
from service.predictor import MAX_TEXT, Predictor
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
    outcome: dict[str, Any] = {"type": "string", "enum": list(schema.classes)} if schema.classes else {"type": "number"}
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
                "Warning": {
                    "type": "object",
                    "required": ["field", "code", "message"],
                    "properties": {
                        "field": {"type": "string"},
                        "code": {"enum": ["out_of_range", "unknown_category", "unknown_field"]},
                        "message": {"type": "string"},
                    },
                },
                "Error": _error(),
            }
        },
    }


def _property(feature: Feature) -> dict[str, Any]:
    """A feature as JSON Schema; null means missing, if a value isn't required."""
    kind = {"numeric": "number", "boolean": "boolean"}.get(feature.type, "string")
    found: dict[str, Any] = {"type": kind if feature.required else [kind, "null"]}
    if feature.description:
        found["description"] = feature.description
    if feature.minimum is not None:
        found["minimum"] = feature.minimum
    if feature.maximum is not None:
        found["maximum"] = feature.maximum
    if feature.type == "datetime" and feature.utc:
        found["format"] = "date-time"
    if feature.type == "categorical" and feature.unknown == "refuse":
        found["enum"] = [*feature.categories, *([] if feature.required else [None])]
    if feature.type in ("categorical", "text"):
        found["maxLength"] = MAX_TEXT
    if feature.example is not None:
        found["examples"] = [feature.example]
    return found


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
