"""The answer of /explain as JSON Schema, for the OpenAPI document."""

from typing import Any, get_args

from ml.schema import Schema
from service.explanation.exact import Scale

MAX_ROWS = 100
"""Rows per request: an explanation takes about a hundred times as long as a prediction."""


def explanations(schema: Schema, prediction: dict[str, Any]) -> dict[str, Any]:
    """The schema of an answer; `prediction`: that of a prediction, which each explanation contains."""
    number = {"type": "number"}
    row = {
        "type": "object",
        "required": [*prediction["required"], "base", "value", "contributions"],
        "properties": {
            **prediction["properties"],
            **({"label": {"enum": list(schema.classes)}} if schema.classes else {}),
            "base": {**number, "description": "the mean over the background rows"},
            "value": {**number, "description": "base + the sum of the contributions"},
            "contributions": {
                "type": "object",
                "description": "by feature, the largest first",
                "properties": {feature.name: number for feature in schema.features},
            },
        },
    }
    return {
        "type": "object",
        "required": ["model", "scale", "exact", "background_rows", "explanations"],
        "properties": {
            "model": {"type": "object"},
            "scale": {"enum": list(get_args(Scale))},
            "exact": {"type": "boolean"},
            "background_rows": {"type": "integer"},
            "explanations": {"type": "array", "items": row},
        },
    }
