"""A row as JSON Schema, from the model's schema: what it allows is predicted, and what it doesn't allow is refused.

Some texts that are accepted for convenience aren't in it, such as a category with blanks around it.
"""

import re
from collections.abc import Iterable
from typing import Any

from ml.schema import Feature, Schema
from ml.values import FALSE, TRUE, is_numeric, number
from service.inputs import MAX_NUMBER, MAX_TEXT

JsonSchema = dict[str, Any]

_31, _30 = "(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])", "(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
_MONTHS_AND_DAYS = f"(?:{_31}|{_30}|02-(?:0[1-9]|1[0-9]|2[0-8]))"
_DATE = f"(?:[12][0-9]{{3}}-{_MONTHS_AND_DAYS}|(?:19|20)(?:0[48]|[2468][048]|[13579][26])-02-29)"
_CLOCK = "[T ](?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:[.][0-9]{1,6})?)?"
_OFFSET = "(?:Z|[+-](?:0[0-9]|1[0-3]):[0-5][0-9])"
_NUMBER = "[+-]?[0-9]{1,30}(?:[.][0-9]{1,30})?"
_BLANK = "[ \\t\\r\\n]*"


def row_schemas(schema: Schema, features: int | None = None) -> dict[str, JsonSchema]:
    """Row: values by name. RowValues: as a list, those of the first `features`, by default of all."""
    properties = {feature.name: property_of(feature, schema) for feature in schema.features}
    required = [feature.name for feature in schema.features if feature.required]
    listed = [*properties.values()][:features]
    return {
        "Row": {"type": "object", "properties": properties, "required": required},
        "RowValues": {
            "type": "array",
            "prefixItems": listed,
            "minItems": len(listed),
            "maxItems": len(listed),
        },
    }


def property_of(feature: Feature, schema: Schema) -> JsonSchema:
    """The values of a feature; null and spellings of a missing value only if none is required."""
    kinds, patterns, found = _of_type(feature)
    if not feature.required:
        kinds = [*kinds, *(["string"] if "string" not in kinds else []), "null"]
        if patterns is not None:
            patterns = [*patterns, *map(re.escape, sorted(schema.spellings(feature))), ""]
    elif "string" in kinds and patterns is None and "enum" not in found:
        found["pattern"] = "[^\\s]"
        found["not"] = {"enum": sorted(schema.spellings(feature))}
    if patterns is not None and "string" in kinds:
        found["pattern"] = f"^{_BLANK}(?:{'|'.join(patterns)}){_BLANK}$"
    found = {"type": kinds[0] if len(kinds) == 1 else kinds, **found}
    notes = [feature.description] if feature.description else []
    if feature.type == "datetime":
        zone = f" of {feature.timezone}" if feature.timezone else " with offset" if feature.utc else " without offset"
        notes.append(f"a time{zone}: ISO 8601{f', or {feature.format}' if feature.format else ''}")
    if notes:
        found["description"] = "; ".join(notes)
    if feature.example is not None:
        found["examples"] = [feature.example]
    return found


def _of_type(feature: Feature) -> tuple[list[str], list[str] | None, JsonSchema]:
    """JSON's types of a value, the patterns of its texts (None: any text), and what else holds."""
    match feature.type:
        case "numeric":
            largest = max(MAX_NUMBER, abs(feature.low or 0), abs(feature.high or 0))
            low = -largest if feature.minimum is None else feature.minimum
            high = largest if feature.maximum is None else feature.maximum
            kinds = ["number", *(["boolean"] if "boolean" in feature.forms else [])]
            kinds += ["string"] if "text" in feature.forms else []
            patterns = [_NUMBER] if "text" in feature.forms else []
            return kinds, patterns, {"minimum": low, "maximum": high}
        case "boolean":
            words = [_any_case(word) for word in sorted(TRUE | FALSE)]
            return ["boolean", "number", "string"], words, {"minimum": 0, "maximum": 1, "multipleOf": 1}
        case "datetime":
            offset = f"{_OFFSET}?" if feature.timezone else _OFFSET if feature.utc else ""
            numeric = feature.format is not None and is_numeric(feature.format)
            patterns = [f"{_DATE}{_CLOCK}{offset}"]
            return ["string", *(["number"] if numeric else [])], None if feature.format else patterns, {}
        case "categorical":
            return _category(feature)
        case _:
            return ["string"], None, {"maxLength": MAX_TEXT}


def _category(feature: Feature) -> tuple[list[str], list[str] | None, JsonSchema]:
    written = _written(feature)
    kinds = ["string"]
    if "number" in feature.forms or any(number(text) is not None for text in feature.categories):
        kinds.append("number")
    if any(text.lower() in ("true", "false") for text in feature.categories):
        kinds.append("boolean")
    found: JsonSchema = {"maxLength": MAX_TEXT}
    if feature.unknown == "refuse":
        found["enum"] = [*written, *([] if feature.required else [None, ""])]
    return kinds, None, found


def _written(feature: Feature) -> Iterable[str | float | bool]:
    """The categories as JSON writes them."""
    written: list[str | float | bool] = list(feature.categories)
    if "number" in feature.forms:
        written += [value for text in feature.categories if (value := number(text)) is not None]
    if "boolean" in feature.forms:
        written += [text == "true" for text in feature.categories if text in ("true", "false")]
    return written


def _any_case(word: str) -> str:
    return "".join(f"[{sign}{sign.upper()}]" if sign.isalpha() else sign for sign in word)
