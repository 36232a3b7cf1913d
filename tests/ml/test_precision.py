"""Numbers that training can tell apart stay apart in float32; where float32 is enough, nothing changes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ml.encoding import NumericEncoder
from ml.precision import keeps_apart, merged, numeric_encoder

RNG = np.random.default_rng(3)


def encoded(numbers: np.ndarray) -> tuple[NumericEncoder, np.ndarray]:
    encoder = numeric_encoder("x", numbers)
    return encoder, encoder.transform({"x": numbers})[:, 0].astype(np.float32)


@pytest.mark.parametrize(
    "numbers",
    [
        np.arange(1000.0),
        np.array([np.nan, np.nan]),
        np.array([]),
        np.array([0.1, 0.2, np.nan]),
        RNG.random(50_000),
        RNG.lognormal(size=50_000) * 1e6,
        np.full(10, 2e9 + 1),
        np.array([1e-300, 1.0]),
        RNG.choice(np.arange(10_000, 10_200) / 10, 5000) - RNG.choice(np.arange(10_000, 10_200) / 10, 5000),
    ],
    ids=range(9),
)
def test_a_column_that_float32_keeps_apart_is_encoded_as_it_is(numbers: np.ndarray) -> None:
    assert numeric_encoder("x", numbers) == NumericEncoder(column="x")


@pytest.mark.parametrize(
    ("numbers", "kind"),
    [
        (2e9 + np.arange(60), "shift"),
        (1704067200 + 60.0 * np.arange(1000), "shift"),
        (4_500_000.0 + np.arange(300) / 100, "shift"),  # metres of a map projection, to the centimetre
        (1e15 + np.arange(2000), "shift"),
        (np.array([1e39, 2e39, 3e39]), "shift"),
        (np.concatenate([np.arange(60), 2e9 + np.arange(60)]), "knots"),
        (np.array([-1.7e308, 0.0, 1.0, 1.7e308]), "knots"),
        (np.concatenate([2e9 + np.arange(60), [1e18]]), "shift"),
    ],
    ids=range(8),
)
def test_large_numbers_with_small_differences_stay_apart_and_in_order(numbers: np.ndarray, kind: str) -> None:
    encoder, found = encoded(np.append(numbers, np.nan))
    assert bool(encoder.knots) == (kind == "knots")
    assert np.isnan(found[-1])
    assert (np.diff(found[:-1]) > 0).all()
    assert merged(encoder, numbers) == 0
    assert not keeps_apart(NumericEncoder(column="x"), numbers)
    # What training didn't see keeps its place in the order, and stays finite.
    middle = encoder.transform({"x": np.array([numbers[0], (numbers[0] / 2 + numbers[1] / 2), numbers[1]])})[:, 0]
    assert (np.diff(middle) > 0).all()
    assert np.isfinite(encoder.transform({"x": np.array([-1.7e308, 1.7e308])})).all() or kind == "shift"


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    arrays(
        np.float64,
        st.integers(1, 30),
        elements=st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53).map(float),
    )
)
def test_any_numbers_are_encoded_in_order_and_finite(numbers: np.ndarray) -> None:
    ordered = np.sort(numbers)
    _, found = encoded(ordered)
    assert np.isfinite(found).all()
    assert (np.diff(found) >= 0).all()
    if (ordered == np.round(ordered)).all() and np.abs(ordered).max() <= 2**53:
        assert len(set(found)) >= 0.95 * len(set(ordered))


def test_an_encoder_survives_its_json() -> None:
    for numbers in (2e9 + np.arange(60.0), np.concatenate([np.arange(60.0), 2e9 + np.arange(60.0)])):
        encoder = numeric_encoder("x", numbers)
        again = NumericEncoder.model_validate_json(encoder.model_dump_json())
        assert again == encoder
        np.testing.assert_array_equal(again.transform({"x": numbers}), encoder.transform({"x": numbers}))
