"""POST /explain: what each feature contributes to a row's prediction."""

from typing import Any

import flask

from service.errors import ApiError
from service.explanation.document import MAX_ROWS
from service.routes.shared import answer, read_rows, warnings_of
from service.state import state

blueprint = flask.Blueprint("explain", __name__)


@blueprint.post("/explain")
def explain() -> dict[str, Any]:
    """{"rows": [{feature: value}]} -> for each row its prediction, a base value, and contributions by feature."""
    rows = read_rows()
    if isinstance(rows, list) and len(rows) > MAX_ROWS:
        message = f"the request has {len(rows)} rows, but at most {MAX_ROWS} are explained at a time"
        raise ApiError(422, "too_many_rows", message)
    loaded, answers = answer(rows, "error")
    explainer = state().explainer
    assert explainer is not None  # noqa: S101 - there is one for each predictor
    found = []
    whole = loaded.completed(rows, answers.found)
    for predicted, explained in zip(answers.answers, explainer.explain(whole, answers), strict=True):
        row: dict[str, Any] = {"prediction": predicted.prediction}
        if explained.label is not None:
            row |= {"probabilities": predicted.probabilities, "label": explained.label}
        row |= {"base": explained.base, "value": explained.value, "contributions": explained.contributions}
        row["warnings"] = warnings_of(predicted)
        found.append(row)
    return {
        "model": {"name": loaded.bundle.name, "version": loaded.bundle.version},
        "scale": explainer.scale,
        "exact": explainer.exact,
        "background_rows": explainer.background_rows,
        "explanations": found,
    }
