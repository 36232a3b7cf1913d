"""Encoders give the same results as scikit-learn and pandas, and a row's encoding doesn't depend on other rows."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from ml.encoding import (
    CROSS,
    MISSING,
    DatetimeEncoder,
    Encoding,
    LookupEncoder,
    NumericEncoder,
    OneHotEncoder,
    TextEncoder,
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def texts(*values: str | None) -> np.ndarray:
    return np.array(values, dtype=object)


def test_numbers_pass_and_missing_stays_missing() -> None:
    encoded = NumericEncoder(column="x").transform({"x": np.array([1.5, np.nan])})
    np.testing.assert_array_equal(encoded, [[1.5], [np.nan]])


def test_an_unknown_category_is_all_zeros_and_missing_is_a_category() -> None:
    encoder = OneHotEncoder(columns=("c",), categories=("a", MISSING))
    np.testing.assert_array_equal(encoder.transform({"c": texts("a", None, "new")}), [[1, 0], [0, 1], [0, 0]])
    assert encoder.names() == ["c=a", "c=missing"]


def test_a_cross_looks_its_columns_up_together_and_falls_back_to_the_default() -> None:
    encoder = LookupEncoder(
        kind="target", columns=("from", "to"), outputs=("",), table={f"JFK{CROSS}LAX": (0.2,)}, default=(0.5,)
    )
    columns = {"from": texts("JFK", "JFK", None), "to": texts("LAX", "BOS", "LAX")}
    np.testing.assert_array_equal(encoder.transform(columns), [[0.2], [0.5], [0.5]])


def test_a_category_that_holds_the_separators_text_is_not_taken_for_a_cross() -> None:
    encoder = LookupEncoder(
        kind="target", columns=("a", "b"), outputs=("",), table={f"x{CROSS}y": (1.0,)}, default=(0.0,)
    )
    np.testing.assert_array_equal(encoder.transform({"a": texts("x/y"), "b": texts("")}), [[0.0]])


@settings(deadline=None)
@given(st.lists(st.integers(min_value=-(10**9), max_value=4 * 10**9), min_size=1, max_size=20))
def test_calendar_parts_are_those_of_pandas(seconds: list[int]) -> None:
    moments = pd.DatetimeIndex([EPOCH + timedelta(seconds=s) for s in seconds])
    encoder = DatetimeEncoder(
        column="t", parts=("year", "month", "day", "dayofweek", "dayofyear", "minute", "hour", "epoch_days")
    )
    expected = np.stack(
        [
            moments.year,
            moments.month,
            moments.day,
            moments.day_of_week,
            moments.day_of_year,
            moments.minute,
            moments.hour + moments.minute / 60 + moments.second / 3600,
            (moments.normalize() - EPOCH).days,
        ],
        axis=1,
    )
    np.testing.assert_allclose(encoder.transform({"t": np.array(seconds, dtype=float)}), expected, rtol=1e-12)


def test_waves_close_at_midnight_and_a_missing_time_has_no_parts() -> None:
    encoder = DatetimeEncoder(column="t", parts=("hour_sin", "hour_cos", "month"))
    midnight, six, missing = encoder.transform({"t": np.array([0.0, 6 * 3600.0, np.nan])})
    np.testing.assert_allclose(midnight, [0, 1, 1], atol=1e-12)
    np.testing.assert_allclose(six, [1, 0, 1], atol=1e-12)
    assert np.isnan(missing).all()


def test_text_gives_the_numbers_of_scikit_learns_vectorizer() -> None:
    documents = ["the cat sat", "The cat, the DOG; a bird!", "x", "naïve café cat"]
    vectorizer = TfidfVectorizer()
    expected = vectorizer.fit_transform(documents).toarray()
    vocabulary = {word: int(place) for word, place in vectorizer.vocabulary_.items()}
    encoder = TextEncoder(column="t", vocabulary=vocabulary, idf=tuple(map(float, vectorizer.idf_)))
    np.testing.assert_allclose(encoder.transform({"t": texts(*documents)}), expected, atol=1e-12)
    np.testing.assert_array_equal(encoder.transform({"t": texts(None)}), np.zeros((1, len(vocabulary))))


def test_a_rows_numbers_do_not_depend_on_its_neighbours_and_names_match_the_columns() -> None:
    encoding = Encoding(
        encoders=(
            NumericEncoder(column="x"),
            OneHotEncoder(columns=("c",), categories=("a", "b")),
            LookupEncoder(kind="frequency", columns=("c",), outputs=("",), table={"a": (0.7,)}, default=(0.0,)),
            DatetimeEncoder(column="t", parts=("hour", "dayofweek")),
            TextEncoder(column="w", vocabulary={"cat": 0, "dog": 1}, idf=(1.0, 2.0)),
        )
    )
    columns = {
        "x": np.array([1.0, np.nan, 3.0]),
        "c": texts("a", None, "z"),
        "t": np.array([0.0, 1e9, np.nan]),
        "w": texts("cat dog", None, "bird"),
    }
    matrix = encoding.transform(columns)
    assert matrix.dtype == np.float32
    assert matrix.shape == (3, len(encoding.names()))
    alone = [encoding.transform({name: values[i : i + 1] for name, values in columns.items()}) for i in range(3)]
    np.testing.assert_array_equal(np.concatenate(alone), matrix)


def test_an_encoding_survives_its_json() -> None:
    encoding = Encoding(
        encoders=(LookupEncoder(kind="target", columns=("c",), outputs=("",), table={"a": (1 / 3,)}, default=(0.1,)),)
    )
    assert Encoding.model_validate_json(encoding.model_dump_json()) == encoding
