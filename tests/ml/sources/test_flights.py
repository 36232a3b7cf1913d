"""A row contains only what was known at its prediction time."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from ml.sources.flight_columns import DESCRIPTIONS
from ml.sources.flights import Tables, build, load, read
from ml.sources.flights import _with_times as with_times

HORIZON = pd.Timedelta("2h")


@pytest.fixture(scope="module")
def tables() -> Tables:
    """Ten days of February, with the storm of the 8th in them."""
    everything = load()
    flights = everything.flights
    days = flights[(flights["month"] == 2) & flights["day"].between(4, 13)]
    weather = everything.weather
    return replace(everything, flights=days, weather=weather[weather["month"] == 2])


@pytest.fixture(scope="module")
def table(tables: Tables) -> pd.DataFrame:
    return build(tables, HORIZON).set_index("flight_id")


def known_until(tables: Tables, moment: pd.Timestamp) -> Tables:
    """The tables as known at this moment (UTC): later events are corrupted, so that any use of them is detected."""
    flights = with_times(tables.flights, tables.airports)
    not_left = ~(flights["departed"] <= moment)
    not_landed = ~(flights["landed"] <= moment)
    flights.loc[not_left, "dep_delay"] = np.nan  # nobody knows yet when, or whether, it will leave
    flights.loc[not_landed, "arr_delay"] = 100_000.0  # so late that it can't have landed by then
    later = pd.to_datetime(tables.weather["time_hour"], utc=True).dt.tz_localize(None) + pd.Timedelta("51min") > moment
    weather = tables.weather.copy()
    measured = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]
    weather.loc[later, measured] = -999.0
    return replace(tables, flights=flights[tables.flights.columns], weather=weather)


@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.parametrize("moment", ["2013-02-06 17:05", "2013-02-08 20:31", "2013-02-09 11:00", "2013-02-11 22:47"])
def test_what_happens_after_the_prediction_changes_nothing(tables: Tables, table: pd.DataFrame, moment: str) -> None:
    now = pd.Timestamp(moment)
    scheduled = with_times(tables.flights, tables.airports)["scheduled"].to_numpy()
    then = build(known_until(tables, now), HORIZON).set_index("flight_id")
    # Only rows with a prediction time at this moment or shortly before. For earlier prediction times, departures
    # between the prediction time and this moment aren't corrupted, so their use wouldn't be detected.
    due = (scheduled - HORIZON <= now) & (scheduled - HORIZON > now - pd.Timedelta("1min"))
    if not due.any():
        due = (scheduled - HORIZON <= now) & (scheduled - HORIZON > now - pd.Timedelta("10min"))
    names = table.index[due]
    assert len(names) > 0
    features = list(DESCRIPTIONS)
    pd.testing.assert_frame_equal(then.loc[names, features], table.loc[names, features])


@pytest.mark.slow
@pytest.mark.slow
def test_the_clock_test_catches_a_later_event(tables: Tables) -> None:
    """If known events are corrupted, rows change; so the test above can fail."""
    now = pd.Timestamp("2013-02-08 20:31")
    whole = build(tables, HORIZON).set_index("flight_id")
    earlier = build(known_until(tables, now - pd.Timedelta("2h")), HORIZON).set_index("flight_id")
    scheduled = with_times(tables.flights, tables.airports)["scheduled"].to_numpy()
    due = (scheduled - HORIZON <= now) & (scheduled - HORIZON > now - pd.Timedelta("10min"))
    changed = (earlier.loc[due, "city_delay"] != whole.loc[due, "city_delay"]) & whole.loc[due, "city_delay"].notna()
    assert changed.any()
    assert (earlier.loc[due, "temperature"] == -999.0).any()


def test_a_shorter_horizon_knows_more(tables: Tables, table: pd.DataFrame) -> None:
    closer = build(tables, pd.Timedelta("30min")).set_index("flight_id")
    late = table["late"].astype(float)
    assert closer["origin_delay"].corr(late) > table["origin_delay"].corr(late) + 0.01


def test_weather_is_never_newer_than_the_prediction(tables: Tables) -> None:
    """Set each observation's temperature to its time, to see how old the used observation is."""
    observed = pd.to_datetime(tables.weather["time_hour"], utc=True).dt.tz_localize(None)
    start = observed.min()
    stamped = tables.weather.assign(temp=(observed - start).dt.total_seconds() / 60)
    table = build(replace(tables, weather=stamped), HORIZON)
    scheduled = with_times(tables.flights, tables.airports)["scheduled"]
    predicted = (scheduled - HORIZON - start).dt.total_seconds() / 60
    age = predicted - table["temperature"]
    assert age.min() >= 51
    assert age.median() <= 51 + 60


def test_a_waiting_flight_counts_with_its_waiting_time(tables: Tables) -> None:
    """Two flights from the same origin: the first left 10 minutes late, the second should have left an hour ago."""
    made = pd.concat([tables.flights.iloc[[0]]] * 3, ignore_index=True).assign(
        day=4,
        origin="JFK",
        dest="LAX",
        arr_delay=[12.0, np.nan, np.nan],
        sched_arr_time=2000,
        minute=0,
        tailnum=["N1", "N2", "N3"],
    )
    made["hour"] = [9, 9, 12]
    made["dep_delay"] = [10.0, np.nan, 0.0]
    made["time_hour"] = [f"2013-02-04T{hour + 5:02d}:00:00Z" for hour in made["hour"]]
    asked = build(replace(tables, flights=made), HORIZON).iloc[-1]
    assert asked["origin_delay"] == pytest.approx((10 + 60) / 2)
    assert asked["origin_waiting"] == pytest.approx(0.5)


@pytest.mark.slow
@pytest.mark.slow
def test_the_whole_year_is_there_once(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = read(HORIZON)
    assert len(whole) == 336_776
    assert whole["flight_id"].is_unique
    assert int(whole["late"].isna().sum()) == 9_430
    assert set(DESCRIPTIONS) == set(whole.columns) - {"flight_id", "late"}


def test_a_missing_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(FileNotFoundError, match="run `make setup`"):
        load()
