"""The Flask application: settings and a predictor in, a WSGI application out."""

import hashlib
import logging
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any
from wsgiref.types import WSGIApplication

import flask
import msgspec
from werkzeug.exceptions import HTTPException

from ml.features.stores import open_store
from service import logs
from service.access.guard import Guard
from service.access.keys import KeyFile, usual_limit
from service.access.limits import Buckets
from service.access.proxies import Forwarded
from service.direct import Direct
from service.documents import Documents
from service.errors import ApiError
from service.explanation.explainer import Explainer
from service.filling import FillingPredictor
from service.lookup import Lookup
from service.metrics import METHODS, ModelMetrics
from service.predictor import Predictor
from service.routes import explain, health, invocations, kserve, lines, open_inference, pages, predict
from service.settings import Settings
from service.state import State, set_state

LOG = logging.getLogger("service")

HEADERS = {
    # Pages load nothing from other servers, run no inline scripts, and can't be shown in a frame.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def create_app(settings: Settings, predictor: Predictor | None, keys: KeyFile | None = None) -> flask.Flask:
    """The application. Without a predictor it is alive but not ready: prediction routes answer 503.

    `keys`: those of `settings.api_keys_file` if a process has read them already. Raises KeysError when they can't be
    read.
    """
    app = flask.Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    app.json.sort_keys = False  # type: ignore[attr-defined]  # the default provider has it
    app.before_request(_begin)
    app.url_defaults(_name_by_content(Path(__file__).parent / "static"))
    metrics = ModelMetrics(app)
    if predictor is not None:
        predictor = with_features(predictor, settings, metrics)
    shared = State(
        settings,
        predictor,
        metrics,
        documents=None if predictor is None else Documents(predictor),
        explainer=None if predictor is None else Explainer(predictor),
    )
    set_state(app, shared)
    if predictor is not None:
        metrics.loaded(predictor, _seconds(predictor.bundle.parts.reference.fitted_through))
    app.after_request(_finish)
    app.register_error_handler(ApiError, _answer_api_error)
    app.register_error_handler(413, _answer_too_large)
    app.register_error_handler(HTTPException, _answer_http_error)
    app.register_error_handler(Exception, _answer_unexpected)
    for module in (health, predict, lines, explain, invocations, kserve, open_inference, pages):
        app.register_blueprint(module.blueprint)
    application: WSGIApplication = Direct(app.wsgi_app, lambda: shared, HEADERS)
    if keys is None and settings.api_keys_file is not None:
        keys = KeyFile(settings.api_keys_file, usual_limit(settings))
    if keys is not None or settings.metrics_networks:
        folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        buckets = Buckets(Path(folder) if folder else None)
        routes = {rule.rule for rule in app.url_map.iter_rules()}
        guard = Guard(application, keys, settings.metrics_networks, buckets, metrics, routes, pages.assets(), HEADERS)
        app.extensions["atlas.knows"] = guard.knows
        application = guard
    if settings.trusted_proxies:
        application = Forwarded(application, settings.trusted_proxies)
    app.wsgi_app = application  # type: ignore[method-assign, assignment]  # Flask's way
    return app


def with_features(predictor: Predictor, settings: Settings, metrics: ModelMetrics) -> Predictor:
    """The predictor, with the feature store of the settings if its bundle has views."""
    views = predictor.bundle.parts.views
    if settings.feature_store is None or views is None:
        return predictor
    store = open_store(settings.feature_store, views)
    layout = next((each.format for each in predictor.schema.features if each.name == views.time), None)
    deadline = settings.feature_store_timeout
    lookup = Lookup(views, predictor.names, store, deadline=deadline, layout=layout, watch=metrics.lags)
    return FillingPredictor(predictor.bundle, lookup)


def _name_by_content(folder: Path) -> Callable[[str, dict[str, Any]], None]:
    """Adds ?v=HASH to the addresses of static files.

    In an image all files have the same modification time, so an ETag wouldn't change when the content changes.
    """
    versions = {file.name: hashlib.sha256(file.read_bytes()).hexdigest()[:12] for file in folder.iterdir()}

    def add(endpoint: str, values: dict[str, Any]) -> None:
        if endpoint == "static" and values.get("filename") in versions:
            values["v"] = versions[values["filename"]]

    return add


def _begin() -> None:
    flask.g.begun = time.perf_counter()
    flask.g.request_id = logs.request_id(flask.request.headers.get("X-Request-ID"))
    if flask.request.method not in METHODS or flask.request.path == "/metrics":
        # The method is a label: invented methods would create an unlimited number of time series.
        flask.request.prom_do_not_track = True  # type: ignore[attr-defined]


def _finish(response: flask.Response) -> flask.Response:
    response.headers["X-Request-ID"] = flask.g.request_id
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    rule = flask.request.url_rule
    logs.log_request(
        flask.request.environ,
        None if rule is None else rule.rule,
        response.status_code,
        time.perf_counter() - flask.g.begun,
        flask.g.request_id,
    )
    return response


def _answer(error: ApiError) -> tuple[dict[str, Any], int]:
    return msgspec.to_builtins(error.body(flask.request.path, flask.g.request_id)), error.status


def _answer_api_error(error: ApiError) -> tuple[dict[str, Any], int]:
    return _answer(error)


def _answer_too_large(_: HTTPException) -> tuple[dict[str, Any], int]:
    limit = flask.current_app.config["MAX_CONTENT_LENGTH"]
    return _answer(
        ApiError(413, "body_too_large", f"the body has more than {limit} bytes: send fewer rows per request")
    )


def _answer_http_error(error: HTTPException) -> flask.typing.ResponseReturnValue:
    status = error.code or 500
    if status < 400:
        return error.get_response()
    code = HTTPStatus(status).phrase.lower().replace(" ", "_")
    message = error.description or HTTPStatus(status).phrase
    body, _ = _answer(ApiError(status, code, message))
    # A 405 response must name the allowed methods.
    headers = {name: value for name, value in error.get_headers() if name == "Allow"}
    return body, status, headers


def _answer_unexpected(error: Exception) -> tuple[dict[str, Any], int]:
    LOG.exception("unexpected error", exc_info=error)
    return _answer(ApiError(500, "internal_error", "unexpected error; the log contains it under this request id"))


def _seconds(moment: str | None) -> float | None:
    if moment is None:
        return None
    return datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp()
