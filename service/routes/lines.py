"""POST /predict/lines: newline-delimited JSON, a row a line in and an answer a line out, also for bad rows."""

import itertools
from collections.abc import Iterator
from typing import Any

import flask
import msgspec

from service.bodies import check_type, parse_json, read_body
from service.documents import features_of
from service.errors import ApiError, invalid_rows
from service.predictor import Answer, InvalidRowsError
from service.routes.shared import predictor, warnings_of
from service.state import state

blueprint = flask.Blueprint("lines", __name__)

TYPE = "application/x-ndjson"


@blueprint.post("/predict/lines")
def lines() -> flask.Response:
    """A row a line -> for each line, with its number, a prediction as /predict has it, or an error."""
    check_type(TYPE)
    predictor()  # a 503 while no model is loaded
    # Not splitlines: a text in JSON may contain U+2028 and other ends of a line.
    numbered = [(number, line) for number, line in enumerate(read_body().split(b"\n"), start=1) if line.strip()]
    if not numbered:
        raise ApiError(422, "no_rows", "send at least one line with a row")
    return flask.Response(flask.stream_with_context(_answered(iter(numbered))), content_type=TYPE)


def _answered(numbered: Iterator[tuple[int, bytes]]) -> Iterator[bytes]:
    """The answers in parts, so that memory holds few of them at a time."""
    encoder = msgspec.json.Encoder()
    while part := list(itertools.islice(numbered, state().settings.max_rows)):
        rows: dict[int, Any] = {}
        found: dict[int, dict[str, Any]] = {}
        for number, line in part:
            try:
                row = parse_json(line, bare_nan=False)
                if not isinstance(row, dict):
                    raise ApiError(422, "not_an_object", "the line is not an object of feature names and values")
                rows[number] = row
            except ApiError as error:
                found[number] = _refused(error)
        _predict(rows, found)
        yield encoder.encode_lines([{"line": number} | found[number] for number, _ in part])


def _predict(rows: dict[int, Any], found: dict[int, dict[str, Any]]) -> None:
    """Add to `found` the answer for each of the rows; both by line."""
    loaded, metrics = predictor(), state().metrics
    while rows:
        places = list(rows)
        try:
            answers = loaded.predict(list(rows.values()))
        except InvalidRowsError as error:
            metrics.refused(error)
            by_row: dict[int, list[Any]] = {}
            for problem in error.every:  # all at once: to parse the other rows again for each hundred takes minutes
                by_row.setdefault(problem.row, []).append(problem)
            for row, problems in by_row.items():
                found[places[row]] = _refused(invalid_rows(InvalidRowsError(problems)))
                del rows[places[row]]
            continue
        metrics.answered(loaded, answers)
        found |= dict(zip(places, map(_predicted, answers.answers), strict=True))
        for place, looked_up in zip(places, answers.found or (), strict=bool(answers.found)):
            found[place]["features"] = features_of(looked_up, loaded.names)
        return


def _predicted(answer: Answer) -> dict[str, Any]:
    probabilities = {} if answer.probabilities is None else {"probabilities": answer.probabilities}
    return {"prediction": answer.prediction, **probabilities, "warnings": warnings_of(answer)}


def _refused(error: ApiError) -> dict[str, Any]:
    problems = [{"field": p.field, "code": p.code, "message": p.message} for p in error.problems]
    return {"error": {"code": error.code, "message": error.message, "problems": problems}}
