"""What a run in MLflow shows beside its model: the parameters under keys that MLflow allows, and the card's plots."""

import hashlib
import json
import re
from typing import Any

from ml.card import Card
from ml.params import Params

LONGEST_VALUE = 500
"""Characters of a parameter's value."""
LONGEST_NAME = 120
"""Characters of a name within a key: a key may have 250, and has at most one name of a column or a class."""
LONGEST_LABEL = 40
"""Characters of a column's name beside a bar."""


def flat_params(params: Params) -> dict[str, str]:
    """All parameters, as `data.features.age.type`; each name in a key as `key_name` has it."""
    flat = _flatten(params.model_dump(mode="json"))
    return {key: _spell(value)[:LONGEST_VALUE] for key, value in flat.items()}


def key_name(name: str) -> str:
    """The name of a column or a class as a part of a key of MLflow: `sepal length _cm_ ad5c5394`.

    MLflow allows letters, digits, `_`, `-`, `.`, `:` and blanks; a slash is a folder to some of its stores. A name
    with another character, or a long one, also has the first digits of its SHA-256, so that two names stay two keys.
    """
    allowed = re.sub(r"[^\w.\-: ]", "_", name)[:LONGEST_NAME]
    if allowed == name:
        return name
    return f"{allowed} {hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()[:8]}"


def _flatten(document: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in document.items():
        key = prefix + key_name(name)
        if isinstance(value, dict) and value:
            flat |= _flatten(value, f"{key}.")
        else:
            flat[key] = value
    return flat


def _spell(value: Any) -> str:
    """A parameter as params.yaml spells it: true and null, where Python has True and None."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def draw(card: Card) -> dict[str, Any]:
    """The card's curves as matplotlib figures."""
    from matplotlib.figure import Figure

    axes = {
        "roc": ("false positive rate", "true positive rate"),
        "precision_recall": ("recall", "precision"),
        "calibration": ("predicted probability", "observed share"),
        "residuals": ("predicted", "actual minus predicted"),
    }
    drawn = {}
    for name, points in card.curves.items():
        figure = Figure(figsize=(5, 4), layout="constrained")
        axis = figure.subplots()
        x, y = zip(*points, strict=True)
        axis.plot(x, y, "." if name == "residuals" else "-" if name != "calibration" else "o-")
        axis.set(xlabel=axes[name][0], ylabel=axes[name][1], title=name.replace("_", " "))
        drawn[name] = figure
    if card.importance:
        top = list(card.importance.items())[:20][::-1]
        figure = Figure(figsize=(6, 6), layout="constrained")
        axis = figure.subplots()
        # By place, because names that are shortened may be equal.
        axis.barh(range(len(top)), [loss for _, loss in top])
        axis.set_yticks(range(len(top)), [_label(name) for name, _ in top], parse_math=False)
        axis.set(xlabel="loss when shuffled", title="importance")
        drawn["importance"] = figure
    return drawn


def _label(name: str) -> str:
    """A column's name in one short line."""
    line = " ".join(name.split())
    return line if len(line) <= LONGEST_LABEL else f"{line[: LONGEST_LABEL - 1]}…"
