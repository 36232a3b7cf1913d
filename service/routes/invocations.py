"""POST /invocations: MLflow's scoring protocol, so that its clients work unchanged."""

from collections.abc import Mapping
from typing import Any

import flask

from service.bodies import compress
from service.errors import ApiError
from service.routes.shared import answer, read_json

blueprint = flask.Blueprint("invocations", __name__)
blueprint.after_request(compress)

FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")


@blueprint.get("/ping")
def ping() -> tuple[str, int]:
    """MLflow's health check."""
    return "", 200


@blueprint.post("/invocations")
def invocations() -> dict[str, Any]:
    """Rows in any of MLflow's JSON forms -> {"predictions": [{prediction, probability:LABEL…}]}; NaN means missing."""
    document = read_json(bare_nan=True)
    given = [form for form in FORMS if isinstance(document, dict) and form in document]
    if len(given) != 1:
        raise ApiError(422, "no_rows", f"send an object with one of {', '.join(FORMS)}")
    _, answers = answer(_rows(given[0], document[given[0]]), "missing")
    predictions = []
    for one in answers.answers:
        row: dict[str, Any] = {"prediction": one.prediction}
        row |= {f"probability:{label}": p for label, p in (one.probabilities or {}).items()}
        predictions.append(row)
    return {"predictions": predictions}


def _rows(form: str, value: Any) -> Any:
    if form == "dataframe_split":
        if (
            not isinstance(value, dict)
            or not isinstance(value.get("columns"), list)
            or not isinstance(value.get("data"), list)
        ):
            raise ApiError(422, "no_rows", "dataframe_split must be an object with the lists columns and data")
        names = value["columns"]
        if not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
            raise ApiError(422, "no_rows", "dataframe_split.columns must be distinct names")
        for number, row in enumerate(value["data"]):
            if not isinstance(row, list) or len(row) != len(names):
                raise ApiError(
                    422, "not_a_row", f"row {number} of dataframe_split.data is not a list of {len(names)} values"
                )
        return [dict(zip(names, row, strict=True)) for row in value["data"]]
    if isinstance(value, dict):
        return _by_column(value)
    return value


def _by_column(columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    if not all(isinstance(values, list) for values in columns.values()):
        return [dict(columns)]  # one row, as MLflow's `inputs` allows
    lengths = {len(values) for values in columns.values()}
    if len(lengths) != 1:
        raise ApiError(422, "no_rows", f"columns have different lengths: {sorted(lengths)[:5]}")
    return [{name: values[row] for name, values in columns.items()} for row in range(lengths.pop())]
