"""The page's form: its fields by the schema, and with what they are filled at first.

With a feature store it asks for what only a caller knows; what the service can look up starts empty.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from ml.features.views import Views
from ml.schema import Feature
from service.filling import FillingPredictor
from service.inputs import rounded
from service.predictor import InvalidRowsError, Predictor

FIRST = 8
"""Fields that a long form shows at once."""
GROUPS = {
    "numeric": "More numbers",
    "categorical": "More categories",
    "datetime": "More times",
    "boolean": "More yes or no",
    "text": "More texts",
}
"""The titles of the groups of other fields, by their type."""
SELECT_LIMIT = 200
"""Up to this number of categories, the form has a drop-down list; with more, it suggests them during typing."""


class Form(NamedTuple):
    """What the page's form contains; each field as `_field` makes it."""

    fields: list[dict[str, Any]]
    """Shown at once."""
    groups: list[dict[str, Any]]
    """Closed groups of others: their title and fields."""
    live: list[dict[str, Any]]
    """Known shortly before the event, and not looked up."""
    looked_up: list[dict[str, Any]]
    """Looked up when left empty; none without a feature store."""
    timetable: list[str]
    """The features that are looked up for the event's time."""
    examples: list[dict[str, Any]]
    """Rows to begin from: `label`, and `values` by field."""


def form_of(loaded: Predictor) -> Form:
    """The form for this model."""
    lookup = loaded.lookup if isinstance(loaded, FillingPredictor) else None
    found = _found(lookup.views) if lookup is not None else {}
    example = Predictor.example(loaded) | loaded.example()
    row = {name: value for name, value in example.items() if name not in found}
    fields = _fields(loaded, row)
    for field in fields:
        if lookup is not None and field["name"] in lookup.keys:
            field["hint"] = _hint_of_key(lookup.views, field["name"])
        if field["name"] in found:  # the service says what is missing when it isn't found
            field |= {"required": False, "empty": "look it up"}
    asked = [field for field in fields if field["name"] not in found]
    first, groups = _grouped([field for field in asked if not field["live"]], loaded.bundle.parts.card.importance)
    return Form(
        fields=first,
        groups=groups,
        live=[field for field in asked if field["live"]],
        looked_up=[field for field in fields if field["name"] in found],
        timetable=[name for name, known in found.items() if not known],
        # A row of the training sample has its label by all its values, of which the form would send only a part.
        examples=[]
        if lookup is not None
        else [
            {"label": label, "values": {field["name"]: field["value"] for field in _fields(loaded, row)}}
            for label, row in examples(loaded).items()
        ],
    )


def _found(views: Views) -> dict[str, bool]:
    """The features that can be looked up, and whether any view has them as what is known at a time."""
    found: dict[str, bool] = {}
    for view in views.views:
        for name in view.features:
            found[name] = found.get(name, False) or view.at == "known"
    return found


def _hint_of_key(views: Views, key: str) -> str:
    names = dict.fromkeys(name for view in views.views if key in view.keys for name in view.features)
    return f"optional, to look up {', '.join(names).replace('_', ' ')}"


def examples(loaded: Predictor) -> dict[str, dict[str, Any]]:
    """For each label that rows of the training sample get, the row that gets it with the highest probability.

    So the label stays, although the form's numbers are rounded. Empty for a regression.
    """
    best: dict[str, tuple[float, dict[str, Any]]] = {}
    for row in loaded.bundle.parts.reference.sample if loaded.schema.classes else ():
        with suppress(InvalidRowsError):
            (answer,) = loaded.predict([row]).answers
            label, probability = answer.label or "", (answer.probabilities or {})[answer.label or ""]
            if label not in best or probability > best[label][0]:
                best[label] = probability, dict(row)
    return {label: best[label][1] for label in loaded.schema.classes if label in best}


def _fields(loaded: Predictor, row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The input fields of the form, filled with this row."""
    features = enumerate(loaded.inputs.features)
    return [_field(feature, row.get(feature.name)) | {"id": f"field-{place}"} for place, feature in features]


def _grouped(
    fields: list[dict[str, Any]], importance: Mapping[str, float]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The fields that come first: required, or among the most important; and groups of the others by type.

    A form of few fields has no groups; in a longer one they are closed, because the example has filled their fields.
    """
    if len(fields) <= FIRST + FIRST // 2:
        return fields, []
    required = [field["name"] for field in fields if field["required"]]
    known = [name for name, _ in sorted(importance.items(), key=lambda entry: -entry[1])]
    names = dict.fromkeys((*known, *(field["name"] for field in fields)))
    among = {field["name"] for field in fields} - {*required}
    shown = {*required, *[name for name in names if name in among][: max(0, FIRST - len(required))]}
    rest = [field for field in fields if field["name"] not in shown]
    groups = [
        {"title": title, "fields": found}
        for kind, title in GROUPS.items()
        if (found := [field for field in rest if field["type"] == kind])
    ]
    return [field for field in fields if field["name"] in shown], groups


def _field(feature: Feature, value: Any) -> dict[str, Any]:
    """An input field of the form."""
    kind = {"numeric": "number", "datetime": "datetime-local", "boolean": "boolean", "text": "text"}.get(
        feature.type, "text"
    )
    if feature.type == "categorical" and feature.categories:
        kind = "select" if len(feature.categories) <= SELECT_LIMIT else "suggest"
    hint = feature.description
    if feature.type == "numeric" and feature.low is not None and feature.high is not None:
        hint += f"{' · ' if hint else ''}in training {rounded(feature.low)} to {rounded(feature.high)}"
    if feature.type == "datetime" and (zone := feature.timezone or ("UTC" if feature.utc else "")):
        hint += f"{' · ' if hint else ''}{zone}"
    if feature.type == "datetime" and isinstance(value, str):
        value = value.removesuffix("Z")
    if feature.type == "numeric" and isinstance(value, float):
        value = f"{value:.{4 if abs(value) < 1000 else 6 if abs(value) < 1e6 else 15}g}"
    return {
        "name": feature.name,
        "kind": kind,
        "type": feature.type,
        "utc": feature.utc,
        "required": feature.required,
        "live": feature.live,
        "minimum": feature.minimum,
        "maximum": feature.maximum,
        "step": "1" if feature.integer else "any",
        "categories": sorted(feature.categories)[:5000],
        "hint": hint,
        "empty": "unknown",
        "value": value,
    }
