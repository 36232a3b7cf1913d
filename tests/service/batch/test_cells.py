"""The numbers in the cells of a text file: as JSON would have them, or the text as it is."""

import pytest

from ml.data_params import CsvParams
from ml.schema import Feature, Schema
from service.batch.cells import converters

AMOUNT = Feature(name="amount", type="numeric", low=0, high=1, example=1, missing=("-999", "0.0"))


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("1", 1), ("-1", -1), ("+1", 1), ("0012", 12), (" 1 ", 1), ("1\n", 1),
        ("9" * 18, 10**18 - 1), ("9" * 19, 10**19 - 1),
        ("1" + "0" * 20, 1e20), ("1.", 1.0), ("1.5", 1.5), (".5", 0.5), ("1e5", 1e5), ("-0.0", -0.0), ("-0", 0),
        ("9" * 299 + ".9", 1e299), ("9" * 400, "9" * 400), ("1" * 400 + ".5", "1" * 400 + ".5"), ("1_0", "1_0"),
        ("-999", None), ("0.0", None), ("", None), ("x", "x"), ("nan", "nan"), ("٣", "٣"),
    ],
)  # fmt: skip
def test_a_cell_becomes_a_number_or_stays_text(cell: str, value: object) -> None:
    schema = Schema(target="late", task="regression", features=(AMOUNT,))
    found = converters(schema, [{"amount": "1.5"}], CsvParams())["amount"](cell)
    assert type(found) is type(value)
    assert str(found) == str(value)
