"""What all prediction routes have in common: find the predictor, read JSON, limit rows, count."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import flask
import numpy as np

from service.bodies import check_type, parse_json, read_body
from service.documents import Documents
from service.errors import ApiError, invalid_rows
from service.predictor import Answer, Answers, InvalidRowsError, NonFinite, Predictor
from service.state import state
from service.usual import Column


def predictor() -> Predictor:
    """The loaded predictor; a 503 while no model is loaded."""
    found = state().predictor
    if found is None:
        raise ApiError(503, "not_ready", "the model is not loaded yet: wait until /health/ready answers 200")
    return found


def documents() -> Documents:
    """The predictor's documents, while a predictor is loaded."""
    found = state().documents
    assert found is not None  # noqa: S101 - there is one for each predictor
    return found


def scores(answers: Answers) -> flask.Response:
    """The answer of MLflow's scoring protocol, and of KServe's first protocol."""
    return flask.Response(documents().tables.scores(answers), content_type="application/json")


def read_json(*, bare_nan: bool) -> Any:
    """The request's JSON document; NaN and Infinity are a 400 unless `bare_nan`."""
    check_type("application/json")
    return parse_json(read_body(), bare_nan=bare_nan)


def read_rows() -> Any:
    """What is under "rows" in the request's document, which contains nothing else; a 422 otherwise."""
    document = read_json(bare_nan=False)
    if not isinstance(document, dict) or set(document) != {"rows"}:
        raise ApiError(422, "no_rows", 'send {"rows": [{feature: value, …}, …]} and nothing else')
    return document["rows"]


def check_model(name: str) -> None:
    """A 404 unless the service has the model of that name; a 503 while no model is loaded."""
    bundle = predictor().bundle
    if name != bundle.name:
        raise ApiError(404, "no_such_model", f"this service has the model {bundle.name}")


def warnings_of(answer: Answer) -> list[dict[str, Any]]:
    """A row's warnings as an answer contains them."""
    return [{"field": each.field, "code": each.code, "message": each.message} for each in answer.warnings]


def answer(rows: Any, non_finite: NonFinite) -> tuple[Predictor, Answers]:
    """The answers for these rows, counted; a 4xx when they aren't a list of objects, are too many, or invalid."""
    loaded = predictor()
    if not isinstance(rows, list):
        raise ApiError(422, "no_rows", "send at least one row")
    _check_length(len(rows))
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise ApiError(422, "not_an_object", f"row {number} is not an object of feature names and values")
    return loaded, predict_and_count(loaded, cast("Sequence[Mapping[str, Any]]", rows), non_finite)


def answer_columns(columns: Mapping[str, Column], non_finite: NonFinite) -> tuple[Predictor, Answers]:
    """As `answer`, for values by feature, all columns of the same length; features that are left out are missing."""
    loaded = predictor()
    length = len(next(iter(columns.values()), ()))
    _check_length(length)
    blank = [None] * length
    given = [columns.get(feature.name, blank) for feature in loaded.inputs.features]
    if length == 1:
        row = [column.item(0) if isinstance(column, np.ndarray) else column[0] for column in given]
        return loaded, counted(loaded, lambda: loaded.predict_row(row, non_finite))
    return loaded, counted(loaded, lambda: loaded.predict_columns(given, non_finite))


def predict_and_count(loaded: Predictor, rows: Sequence[Mapping[str, Any]], non_finite: NonFinite) -> Answers:
    """Predict and count."""
    return counted(loaded, lambda: loaded.predict(rows, non_finite))


def _check_length(rows: int) -> None:
    limit = state().settings.max_rows
    if not rows:
        raise ApiError(422, "no_rows", "send at least one row")
    if rows > limit:
        raise ApiError(422, "too_many_rows", f"the request has {rows} rows, but the limit is {limit}")


def counted(loaded: Predictor, predict: Callable[[], Answers]) -> Answers:
    """The answers of `predict`, counted; a 422 when a row is invalid."""
    try:
        answers = predict()
    except InvalidRowsError as error:
        state().metrics.refused(error)
        raise invalid_rows(error) from None
    state().metrics.answered(loaded, answers)
    return answers
