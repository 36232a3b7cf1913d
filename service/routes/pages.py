"""Pages for people: the form with the model card, the API's documentation, and the OpenAPI document."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import flask
import flask_swagger_ui
from werkzeug.exceptions import NotFound

from ml.features.views import DAY, HOUR, MINUTE, SECOND
from service import logs
from service.form import form_of
from service.inputs import rounded
from service.openapi import document
from service.routes.shared import predictor
from service.state import state

blueprint = flask.Blueprint("pages", __name__)

SWAGGER = Path(flask_swagger_ui.__file__).parent / "dist"
UNITS = ((DAY, "day"), (HOUR, "hour"), (MINUTE, "minute"))
SWAGGER_FILES = ("swagger-ui.css", "swagger-ui-bundle.js")


@blueprint.get("/")
def index() -> str:
    """The form, generated from the schema and filled with an example; the model card with its figures and plots.

    While keys are needed and the request has none: a form for the key, which says nothing of the model.
    """
    if not _is_known():
        return flask.render_template("sign_in.html")
    loaded = predictor()
    form = form_of(loaded)
    return flask.render_template(
        "index.html",
        bundle=loaded.bundle,
        schema=loaded.schema,
        card=loaded.bundle.parts.card,
        threshold=loaded.bundle.parts.decision.threshold,
        fitted_through=loaded.bundle.parts.reference.fitted_through,
        form=form,
        timetable=form.timetable,
        plots=[_plot(name, points) for name, points in loaded.bundle.parts.card.curves.items() if points],
        importance=_bars(loaded.bundle.parts.card.importance),
        views=views.views if (views := loaded.bundle.parts.views) is not None else (),
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


@blueprint.app_template_filter("duration")
def show_duration(microseconds: int | None) -> str:
    """A whole number of days, hours or minutes; None: without an end."""
    if microseconds is None:
        return "always"
    size, unit = next(((size, unit) for size, unit in UNITS if microseconds % size == 0), (SECOND, "second"))
    return f"{microseconds // size} {unit}{'' if microseconds == size else 's'}"


@blueprint.app_template_filter("percent")
def show_percent(share: float) -> str:
    """A share of 1 in per cent, with a digit after the decimal point."""
    return f"{100 * share:.1f} %"


@blueprint.app_template_filter("date")
def show_date(moment: str) -> str:
    """The day of an ISO 8601 time."""
    return datetime.fromisoformat(moment).replace(tzinfo=UTC).strftime("%-d %b %Y")
