"""Files as people have them: read as they mean it, or refused in one line that names the param that settles it."""

import decimal
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml.data_params import DataParams
from ml.sources import table
from ml.sources.reading import Read, SourceError
from ml.sources.written_numbers import written


def read(path: Path, content: str | bytes | None = None, **params: Any) -> Read:
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    given = {"source": "table", "uri": str(path), "target": "y", "task": "binary"} | params
    return table.read(DataParams.model_validate(given))


def columns(found: Read) -> dict[str, list[Any]]:
    """Values by column; None where missing."""
    return {
        name: [None if pd.isna(value) else value for value in found.table[name]]
        for name in map(str, found.table.columns)
    }


@pytest.mark.parametrize(
    ("content", "expected", "assumed"),
    [
        ("a,y\n1,2.5\n3,4\n", {"a": [1, 3], "y": [2.5, 4.0]}, ""),
        ("a;b;y\n1,5;x, z;1\n2,25;w;0\n", {"a": [1.5, 2.25], "b": ["x, z", "w"], "y": [1, 0]}, "semicolon"),
        ("a|y\n1|2\n", {"a": [1], "y": [2]}, "vertical bar"),
        ("a\ty\n1\t2\n", {"a": [1], "y": [2]}, "tab"),
        ("a   y\n1   2\n30  4\n", {"a": [1, 30], "y": [2, 4]}, "runs of blanks"),
        ('"a" "y"\n"r 1" 1 2\n"r 2" 3 4\n', {"Unnamed: 0": ["r 1", "r 2"], "a": [1, 3], "y": [2, 4]}, "the row's name"),
        ('a;y\n"1.234,50";1\n7,5;0\n', {"a": [1234.5, 7.5], "y": [1, 0]}, "1.234,50 is the number 1234.50"),
        ('a,y\n"1,234,567",1\n"2,000",0\n', {"a": [1234567, 2000], "y": [1, 0]}, "1,234,567 is the number 1234567"),
        ('a,y\n"1,234",1\n950,0\n', {"a": [1234, 950], "y": [1, 0]}, "data.csv.decimal: '.'"),
        ("a,y\n1'234.5,1\n12,0\n", {"a": [1234.5, 12.0], "y": [1, 0]}, "1'234.5"),
        ("a,y\n1 234,1\n950,0\n", {"a": [1234, 950], "y": [1, 0]}, "1 234"),
        ('a,y\n"$1,234.50",1\n($7),0\n', {"a": [1234.5, -7.0], "y": [1, 0]}, "$1,234.50 is the number 1234.50"),
        ("a,y\n5%,1\n7.5%,0\n", {"a": [5.0, 7.5], "y": [1, 0]}, "5% is the number 5"),
        ("a,y\n5 €,1\n€6,0\n", {"a": [5, 6], "y": [1, 0]}, "5 € is the number 5"),
        ("a,y\n$5,1\n€6,0\n", {"a": ["$5", "€6"], "y": [1, 0]}, "different signs ($, €)"),
        ("a,y\n\u22125.5,1\n+2,0\n", {"a": [-5.5, 2.0], "y": [1, 0]}, "is the number -5.5"),
        # In a file with decimal commas a point separates thousands; a group of digits never begins with 0.
        ("a;b;c\n1.234;3,5;1\n2.345;1,5;2\n", {"a": [1234, 2345], "b": [3.5, 1.5], "c": [1, 2]}, "1.234 is"),
        ("a;b\n0.123;3,5\n0.456;1,5\n", {"a": [0.123, 0.456], "b": [3.5, 1.5]}, "3,5 is"),
        # Not numbers.
        ("zip,y\n02116,1\n10001,0\n", {"zip": ["02116", "10001"], "y": [1, 0]}, ""),
        ("a,y\n555 123,1\n555 124,0\n", {"a": ["555 123", "555 124"], "y": [1, 0]}, ""),
        ("a,y\n10.0.0.1,1\n192.168.100.200,0\n", {"a": ["10.0.0.1", "192.168.100.200"], "y": [1, 0]}, ""),
        ("a,y\n01.02.2024,1\n12.05.2024,0\n", {"a": ["01.02.2024", "12.05.2024"], "y": [1, 0]}, ""),
        ("a,y\n?,1\n100,0\n", {"a": ["?", "100"], "y": [1, 0]}, ""),
        # Large numbers.
        ("a,y\n123456789012345678901,1\n2,0\n", {"a": [123456789012345678901.0, 2.0], "y": [1, 0]}, ""),
        ("a,y\n9007199254740993,1\n2,0\n", {"a": [9007199254740993, 2], "y": [1, 0]}, ""),
        ("a,y\n1e400,1\n2,0\n-1e400,1\n", {"a": [None, 2, None], "y": [1, 0, 1]}, "'a' has 2 infinite numbers"),
        (f"a,y\n{'9' * 400},1\n2,0\n1e-400,1\n", {"a": [None, 2, 0], "y": [1, 0, 1]}, "'a' has 1 infinite numbers"),
        ("a,y\n$1e400,1\n$2,0\n", {"a": [None, 2], "y": [1, 0]}, "'a' has 1 infinite numbers, which count as missing"),
        # Lines before the header, and headers.
        ("# by me\n# in May\na,y\n1,2\n", {"a": [1], "y": [2]}, "left out: 2, the first is '# by me'"),
        ("#a,y\n1,2\n", {"a": [1], "y": [2]}, ""),
        ("Sales of May\n\na,b,y\n1,2,3\n", {"a": [1], "b": [2], "y": [3]}, "'Sales of May'"),
        ("a,y\nr1,1,2\nr2,3,4\n", {"Unnamed: 0": ["r1", "r2"], "a": [1, 3], "y": [2, 4]}, "the row's name"),
        ("a,y\n1,2,\n3,4,\n", {"a": [1, 3], "y": [2, 4]}, ""),
        (",a\n0,5\n1,6\n", {"Unnamed: 0": [0, 1], "a": [5, 6]}, ""),
        (' a , "b, c"\n1, "x, z"\n', {"a": [1], "b, c": ["x, z"]}, ""),
        # Encodings.
        ("a,y\nä,1\n".encode("utf-8-sig"), {"a": ["ä"], "y": [1]}, ""),
        ("a,y\nä,1\nb,2\n".encode("utf-16"), {"a": ["ä", "b"], "y": [1, 2]}, ""),
        ("a,y\nä,1\nb,2\n".encode("utf-16-be"), {"a": ["ä", "b"], "y": [1, 2]}, ""),
        ("Straße,y\nLöwe 5 €,1\n".encode("cp1252"), {"Straße": ["Löwe 5 €"], "y": [1]}, "1252, as in 'Straße'"),
        # Missing values and booleans.
        ("a,y\n NaN,1\n2,0\n ,1\n", {"a": [None, 2.0, None], "y": [1, 0, 1]}, ""),
        ("a,y\nNA,1\nNO,0\nnull,1\n", {"a": ["NA", "NO", None], "y": [1, 0, 1]}, ""),
        ("a,y\n1,NA\n2,AF\n3,NaN\n4,\n", {"a": [1, 2, 3, 4], "y": ["NA", "AF", "NaN", None]}, ""),
        ("a,y\nTrue,1\nfalse,0\n,1\n", {"a": [True, False, None], "y": [1, 0, 1]}, ""),
    ],
)  # fmt: skip
def test_text_is_read_as_its_author_means_it(
    tmp_path: Path, content: str | bytes, expected: dict[str, list[Any]], assumed: str
) -> None:
    found = read(tmp_path / "t.csv", content)
    assert columns(found) == expected
    assert assumed in "; ".join(found.assumed)
    assert bool(assumed) == bool(found.assumed)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", 'a,y\n"1,234",1\n"2,950",0\n', "'a' has '1,234', which is 1234 with decimal points and 1.234 with"),
        ("t.csv", "a;b;c\n1.234;3,5;3.14\n2.345;1,5;2\n", "'a' has '1.234', which is 1.234 with decimal points and"),
        ("t.csv", "ЖЙЦЩ\nЖЙЛЩ\n".encode("cp1251"), "set data.csv.encoding in params.yaml, such as cp1251"),
        ("t.csv", "miasto\nBiałystok\n".encode("cp1250"), "set data.csv.encoding"),
        ("t.csv", "a;b,c\n1;2,3\n", "the delimiter may be comma (',') and semicolon (';'): set data.csv.delimiter"),
        ("t.csv", "Total\n7\n\n1,2,3\n4,5,6\n", "set data.csv.skiprows, and data.csv.names if there is no header"),
        ("t.csv", "a,y\n1,2\n3,4,5\n3,4\n", "line 3 has 3 fields where 2 are expected"),
        ("t.csv", "# x\na,y\n1,2\n3,4,5\n3,4\n", "line 4 has 3 fields where 2 are expected"),
        ("t.csv", "a,y,y\n1,2,3\n", "column names repeat: 'y' (2 times)"),
        ("t.csv", "a,b\n", "it contains no rows"),
        ("t.csv", "", "it contains no rows"),
        ("t.csv", "<!DOCTYPE html><html>", "a web page or XML, not a table"),
        ("t.csv", b"\x00\x00\x01\x02\x00\x00" * 9, "it is not text"),
        ("t.json", '{"a": 1}\n{"a": \n', "line 2 is not a JSON object"),
        ("t.json", '{"a": 1, "a": 2}\n', "the name 'a' occurs twice in one object"),
        ("t.json", "[1, 2]", "an array of objects, or an object a line"),
        ("t.json", '[{"a": "x"}, {"a": "y\\ud83d"}]', r"column 'a' has 'y\ud83d' in row 1, which has half of"),
        ("t.json", '[{"a": 5}, {"a": "\\ude00"}]', r"column 'a' has '\ude00' in row 1, which has half of a surrogate"),
        ("t.json", '[{"a": []}, {"a": ["\\ud83d"]}]', "in row 1, which has half of a surrogate"),
        ("t.json", '[{"a": {}}, {"a": {"\\ud83d": 1}}]', "in row 1, which has half of a surrogate"),
        ("t.json", '{"\\ud83d": 1}', r"the column's name '\ud83d' has half of a surrogate"),
        ("t.xlsx", b"PK", "an Excel file, which isn't read directly: save the sheet as CSV"),
        ("t.rds", b"", "run once in R"),
        ("t.bin", b"PK\x03\x04", "compressed or a spreadsheet"),
        ("t.parquet", b"PAR1", "can't be read as parquet"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_without_a_word_from_its_owner_is_refused_in_one_line(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    with pytest.raises(SourceError) as refused:
        read(tmp_path / name, content)
    assert message in str(refused.value)
    assert str(refused.value).startswith(str(tmp_path / name))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "csv", "expected"),
    [
        ('a,y\n"1,234",1\n"2,950",0\n', {"decimal": ".", "thousands": ","}, [1234, 2950]),
        ('a,y\n"1,234",1\n"2,950",0\n', {"decimal": ",", "thousands": "."}, [1.234, 2.95]),
        ("a;b\n1.234;3,5\n2.345;1,5\n", {"decimal": ","}, [1.234, 2.345]),
        ("a;b\n1.234;3\n2.345;1\n", {"decimal": ",", "thousands": "."}, [1234, 2345]),
        ("a;b,c\n1;2,3\n", {"delimiter": ";"}, [1]),
        ("Total\n7\n\na,b,c\n1,2,3\n", {"skiprows": 3}, [1]),
        ("1,2\n3,4\n", {"names": ["a", "y"]}, [1, 3]),
        ("a,b\n% note\n1,2 % odd\n", {"comment": "%"}, [1]),
        ("a,b\n\xbe,2\n".encode("latin-1"), {"encoding": "cp1250"}, ["ľ"]),
    ],
)
def test_params_settle_how_text_is_read(
    tmp_path: Path, content: str | bytes, csv: dict[str, Any], expected: list[Any]
) -> None:
    assert columns(read(tmp_path / "t.csv", content, csv=csv))["a"] == expected


def test_what_counts_as_missing_is_a_param_and_the_target_has_its_own(tmp_path: Path) -> None:
    file, text = tmp_path / "t.csv", "a,b,y\n-999,NA,NA\n2,NaN,x\n3,?,?\n"
    assert columns(read(file, text, missing=["NA", -999])) == {
        "a": [None, 2.0, 3.0], "b": [None, "NaN", "?"], "y": ["NA", "x", "?"],
    }  # fmt: skip
    features = {"b": {"missing": ["?"]}, "y": {"missing": ["?"]}}
    assert columns(read(file, text, features=features)) == {
        "a": [-999, 2, 3], "b": ["NA", None, None], "y": ["NA", "x", None],
    }  # fmt: skip
    numbers = tmp_path / "t.parquet"
    pd.DataFrame({"a": [-999, 2], "y": [-999, 1]}).to_parquet(numbers)
    assert columns(read(numbers, missing=["-999"])) == {"a": [None, 2], "y": [-999, 1]}


def test_a_text_in_json_lines_may_contain_other_ends_of_a_line(tmp_path: Path) -> None:
    found = read(tmp_path / "t.jsonl", '{"a": "one\u2028two\x85"}\r\n{"a": "three"}\n'.encode())
    assert columns(found) == {"a": ["one\u2028two\x85", "three"]}


def test_a_column_may_be_called_by_the_comment_sign(tmp_path: Path) -> None:
    assert columns(read(tmp_path / "t.csv", "#,name\n1,Abra\n2,Mew\n")) == {"#": [1, 2], "name": ["Abra", "Mew"]}


def test_a_text_with_thousands_of_blanks_is_soon_known_to_be_no_number() -> None:
    assert written(["5" + " " * 5000 + "rooms"]) is None  # a pattern of cubic time would take an hour


def test_a_declared_category_keeps_its_spelling(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    assert columns(read(file, "a,y\n5.0,1\n6.0,0\n", features={"a": {"type": "categorical"}}))["a"] == ["5.0", "6.0"]


@pytest.mark.parametrize("ending", ["jsonl", "json", "feather", "orc", "parquet", "dta", "csv.gz", "txt", ""])
def test_every_format_that_pandas_and_arrow_read_gives_the_same_table(tmp_path: Path, ending: str) -> None:
    original = pd.DataFrame({"a": [1.5, 2.5], "b": ["x", "z"], "y": [1, 0]})
    path = tmp_path / (f"t.{ending}" if ending else "table")
    match ending:
        case "jsonl":
            original.to_json(path, orient="records", lines=True)
        case "json":
            original.to_json(path, orient="records")
        case "dta":
            original.to_stata(path, write_index=False)
        case "csv.gz" | "txt":
            original.to_csv(path, index=False)
        case "":  # only the content tells
            original.to_feather(path)
        case _:
            getattr(original, f"to_{ending}")(path)
    assert columns(read(path)) == columns(Read(original))


def test_mixed_values_of_json_become_one_type(tmp_path: Path) -> None:
    lines = (
        '{"a": 54, "b": 1, "c": 1e20}\n{"a": "54", "b": true, "c": 12345678901234567890123}\n{"a": "n/a", "b": "x"}\n'
    )
    assert columns(read(tmp_path / "t.jsonl", lines)) == {
        "a": [54.0, 54.0, None],
        "b": ["1", "true", "x"],
        "c": [1e20, 12345678901234567890123.0, None],
    }


def test_parquets_own_types_become_plain_ones(tmp_path: Path) -> None:
    moment = datetime(2024, 1, 1)
    rows = pa.table({
        "decimal": pa.array([decimal.Decimal("1.50"), None], pa.decimal128(9, 2)),
        "dictionary": pa.array(["x", None]).dictionary_encode(),
        "zone": pa.array([moment, None], pa.timestamp("us", "Europe/Berlin")),
        "list": [[1], [2]],
        "struct": [{"a": 1}, None],
        "null": pa.nulls(2),
        "infinite": [np.inf, 1.0],
        "a.b": [1, 2],
        "größe": [1, 2],
    })  # fmt: skip
    pq.write_table(rows, tmp_path / "t.parquet")
    found = read(tmp_path / "t.parquet")
    assert columns(found)["decimal"] == [1.5, None]
    assert columns(found)["dictionary"] == ["x", None]
    assert columns(found)["infinite"] == [None, 1.0]
    assert found.assumed == ("column 'infinite' has 1 infinite numbers, which count as missing",)
    assert list(found.table) == rows.column_names
    found.table.to_parquet(tmp_path / "again.parquet")


def test_a_folder_of_parquet_files_is_one_table_with_its_partitions(tmp_path: Path) -> None:
    original = pd.DataFrame({"a": [1, 2, 3], "year": [2023, 2024, 2024], "kind": ["u", "v", "v"]})
    original.to_parquet(tmp_path / "sales", partition_cols=["year", "kind"])
    assert columns(read(tmp_path / "sales")) == columns(Read(original))
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="a folder without Parquet files"):
        read(tmp_path / "empty")


def test_a_named_index_is_a_column_and_repeated_names_are_refused(tmp_path: Path) -> None:
    pd.DataFrame({"a": [1]}, index=pd.Index([7], name="day")).to_parquet(tmp_path / "t.parquet")
    assert columns(read(tmp_path / "t.parquet")) == {"day": [7], "a": [1]}
    pq.write_table(pa.table([[1], [2]], names=["a", "a"]), tmp_path / "twice.parquet")
    with pytest.raises(SourceError, match=r"column names repeat: 'a'; give"):
        read(tmp_path / "twice.parquet")


def test_a_number_of_json_that_float64_cannot_hold_is_missing_and_said(tmp_path: Path) -> None:
    found = read(
        tmp_path / "t.json", f'[{{"a": {10**309}, "y": 1}}, {{"a": -{10**400}, "y": 0}}, {{"a": 0.5, "y": 1}}]'
    )
    assert columns(found) == {"a": [None, None, 0.5], "y": [1, 0, 1]}
    assert found.assumed == ("column 'a' has 2 infinite numbers, which count as missing",)
    whole = read(tmp_path / "t.json", f'[{{"a": {10**309}}}, {{"a": {10**308}}}]')
    assert columns(whole) == {"a": [None, 1e308]}
