"""Pages for people: the form with the model card, the API's documentation, and the OpenAPI document."""

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import flask
import flask_swagger_ui
from werkzeug.exceptions import NotFound

from ml.schema import Feature
from service import logs
from service.inputs import rounded
from service.openapi import document
from service.predictor import InvalidRowsError, Predictor
from service.routes.shared import predictor
from service.state import state

blueprint = flask.Blueprint("pages", __name__)

SWAGGER = Path(flask_swagger_ui.__file__).parent / "dist"
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
SWAGGER_FILES = ("swagger-ui.css", "swagger-ui-bundle.js")
SELECT_LIMIT = 200
"""Up to this number of categories, the form has a drop-down list; with more, it suggests them during typing."""


@blueprint.get("/")
def index() -> str:
    """The form, generated from the schema and filled with an example; the model card with its figures and plots.

    While keys are needed and the request has none: a form for the key, which says nothing of the model.
    """
    if not _is_known():
        return flask.render_template("sign_in.html")
    loaded = predictor()
    example = loaded.example()
    fields = _fields(loaded, example)
    first, groups = _grouped([field for field in fields if not field["live"]], loaded.bundle.parts.card.importance)
    return flask.render_template(
        "index.html",
        bundle=loaded.bundle,
        schema=loaded.schema,
        card=loaded.bundle.parts.card,
        threshold=loaded.bundle.parts.decision.threshold,
        fitted_through=loaded.bundle.parts.reference.fitted_through,
        fields=first,
        groups=groups,
        live_fields=[field for field in fields if field["live"]],
        plots=[_plot(name, points) for name, points in loaded.bundle.parts.card.curves.items() if points],
        importance=_bars(loaded.bundle.parts.card.importance),
        examples=[
            {"label": label, "values": {field["name"]: field["value"] for field in _fields(loaded, row)}}
            for label, row in examples(loaded).items()
        ],
        keyed=state().settings.api_keys_file is not None,
        docs=state().settings.docs,
        metrics=not (state().settings.api_keys_file or state().settings.metrics_networks),
    )


@blueprint.get("/openapi.json")
def openapi() -> dict[str, Any]:
    """The OpenAPI document, generated from the schema."""
    _check_docs()
    return document(predictor(), state().settings)


@blueprint.get("/docs")
def docs() -> str:
    """Swagger UI."""
    _check_docs()
    if not _is_known():
        return flask.render_template("sign_in.html")
    return flask.render_template("docs.html")


@blueprint.get(f"/docs/<any({', '.join(map(repr, SWAGGER_FILES))}):name>")
def docs_asset(name: str) -> flask.Response:
    """Swagger UI's own files."""
    _check_docs()
    response = flask.send_from_directory(SWAGGER, name)
    response.headers["Cache-Control"] = "public, max-age=86400"
    return response


def assets() -> frozenset[str]:
    """The paths of the pages' files, which are the same for every model."""
    files = (Path(__file__).parents[1] / "static").iterdir()
    return frozenset({f"/static/{file.name}" for file in files} | {f"/docs/{name}" for name in SWAGGER_FILES})


def _is_known() -> bool:
    """Whether the request has a key, or needs none."""
    return state().settings.api_keys_file is None or logs.KEY in flask.request.environ


def _check_docs() -> None:
    """A 404 while DOCS is false."""
    if not state().settings.docs:
        raise NotFound


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
    features = enumerate(loaded.schema.features)
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
        "value": value,
    }


def _plot(name: str, points: tuple[tuple[float, float], ...]) -> dict[str, Any]:
    """A curve in the coordinates of a 100 by 100 drawing, the origin at the bottom left."""
    labels = {
        "roc": ("ROC", "false positive rate", "true positive rate", True),
        "precision_recall": ("Precision and recall", "recall", "precision", False),
        "calibration": ("Calibration", "predicted", "observed", True),
        "residuals": ("Residuals", "predicted", "actual minus predicted", False),
    }
    title, across, up, diagonal = labels[name]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    left, right, bottom, top = 0.0, 1.0, 0.0, 1.0
    if name == "residuals":
        left, right, bottom, top = min(xs), max(xs), min(ys), max(ys)
    width, height = (right - left) or 1.0, (top - bottom) or 1.0
    scaled = [(round((x - left) / width * 100, 2), round(100 - (y - bottom) / height * 100, 2)) for x, y in points]
    return {
        "title": title,
        "across": across,
        "up": up,
        "diagonal": diagonal,
        "points": scaled,
        "path": " ".join(f"{x},{y}" for x, y in scaled),
        "dots": name in ("residuals", "calibration"),
        "line": name != "residuals",
        "ticks": [f"{edge:.3g}" for edge in (left, right, bottom, top)],
    }


def _bars(importance: dict[str, float]) -> list[dict[str, Any]]:
    top = [(name, loss) for name, loss in importance.items() if loss > 0][:12]
    most = max((loss for _, loss in top), default=1.0)
    return [{"name": name, "loss": rounded(loss), "width": round(100 * loss / most, 1)} for name, loss in top]


@blueprint.app_template_filter("figure")
def show_figure(value: float | None) -> str:
    """Three digits after the decimal point; the confidence intervals justify no more."""
    return "n/a" if value is None else f"{value:.3f}" if abs(value) < 1000 else f"{value:,.0f}"


@blueprint.app_template_filter("words")
def show_words(name: str) -> str:
    """A column's name as people read it; the form shows the name itself when the pointer rests on it."""
    return name.replace("_", " ")


@blueprint.app_template_filter("percent")
def show_percent(share: float) -> str:
    """A share of 1 in per cent, with a digit after the decimal point."""
    return f"{100 * share:.1f} %"


@blueprint.app_template_filter("date")
def show_date(moment: str) -> str:
    """The day of an ISO 8601 time."""
    return datetime.fromisoformat(moment).replace(tzinfo=UTC).strftime("%-d %b %Y")
