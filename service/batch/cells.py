"""Gives the cells of a text file, and the typed values of others, the form that they would have in a request.

Training decides by a whole column whether its texts are numbers; here the model's schema has decided it, and the first
rows tell how numbers are written.
"""

import datetime as dt
import decimal
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ml import values
from ml.data_params import CsvParams
from ml.schema import Feature, Schema
from ml.sources.reading import SourceError
from ml.sources.table import BOOLEANS
from ml.sources.written_numbers import PLAIN, WHOLE, AmbiguousNumberError, Decimal, Written, decide, rewrite, written

Rows = Sequence[Mapping[str, Any]]
Convert = Callable[[Any], Any]
"""From a value of the file to the value of a request."""
_PLAIN, _WHOLE = re.compile(PLAIN).match, re.compile(WHOLE).match
_USUAL = re.compile(r"[+-]?(?:([0-9]{1,18})|[0-9]{1,300}\.[0-9]{0,300})").fullmatch
"""Most numbers: whole, as the group, or with a decimal point; such a number is finite."""


def converters(schema: Schema, first: Rows, params: CsvParams) -> dict[str, Convert]:
    """By feature: how the cells of a text file become values. `first`: the first rows.

    Raises SourceError when a number among them can be read in two ways.
    """
    decimals = _decimals(schema, first, params)
    return {
        feature.name: _converter(feature, decimals.get(feature.name, params.decimal or "."))
        for feature in schema.features
    }


def plain(value: Any) -> Any:
    """A typed value as JSON would have it: a time as ISO 8601 text, a decimal as a number."""
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    return float(value) if isinstance(value, decimal.Decimal) else value


def _converter(feature: Feature, decimal_sign: Decimal) -> Convert:
    numeric, truths = feature.type == "numeric", "boolean" in feature.forms
    if not numeric and not (feature.type == "categorical" and {"number", "boolean"} & set(feature.forms)):
        return lambda cell: cell if cell.strip() else None
    missing = frozenset(map(values.clean, feature.missing))

    def convert(cell: str) -> Any:
        text = cell.strip()
        if not text or text in missing:
            return None
        if truths and text in BOOLEANS:
            return BOOLEANS[text]
        if not numeric and ("number" not in feature.forms or re.match(values.LEADING_ZERO, text)):
            return cell
        # What can't be read stays text, which the predictor reads as it reads a request's.
        number = _number(text, decimal_sign)
        return cell if number is None else number

    if not numeric or truths or decimal_sign == ",":
        return convert

    def quickly(cell: str) -> Any:
        usual = _USUAL(cell)
        if usual is None or cell in missing:
            return convert(cell)
        return int(cell) if usual[1] else float(cell)

    return quickly


def _number(text: str, decimal_sign: Decimal) -> float | int | None:
    if decimal_sign == "," or not _PLAIN(text):
        how = written([text])
        if how is None or decimal_sign not in how.fits:
            return None
        text = rewrite(text, decimal_sign)
    return int(text) if _WHOLE(text) and len(text) < 20 else values.number(text)


def _decimals(schema: Schema, first: Rows, params: CsvParams) -> dict[str, Decimal]:
    """The decimal sign of each column whose numbers aren't all as a computer writes them."""
    found: dict[str, Written] = {}
    unsettled: dict[str, list[str]] = {}
    for feature in schema.features:
        if feature.type != "numeric" and "number" not in feature.forms:
            continue
        missing = schema.spellings(feature)
        texts = sorted(
            {text for row in first if (text := str(row.get(feature.name) or "").strip()) and text not in missing}
        )
        if all(_PLAIN(text) for text in texts):
            unsettled[feature.name] = [text for text in texts if "." in text]
        elif how := written(texts):
            found[feature.name] = how
    if params.decimal == "," or any("," in how.fits for how in found.values()):
        # In a file with decimal commas, 1.234 may be 1234.
        found |= {name: how for name, texts in unsettled.items() if texts and (how := written(texts))}
    try:
        return decide(found, params)
    except AmbiguousNumberError as error:
        raise SourceError(str(error).replace("in params.yaml", "with --csv")) from None
