"""What transforms make of a row, and what views refuse."""

import pytest
from pydantic import ValidationError

from ml.features import flight_views
from ml.features.views import DAY, HOUR, MINUTE, Moment, View
from tests.ml.features.conftest import HORIZON

EVENT = 100 * DAY
AT = Moment(known=EVENT - 2 * HOUR, event=EVENT, clock=EVENT - 5 * HOUR)
NOW = AT.known / MINUTE


def of(name: str) -> View:
    return next(view for view in flight_views.views(HORIZON).views if view.name == name)


def test_mean_delay_so_far_grows_with_waiting() -> None:
    values = (3.0, 1.0, 50.0, NOW - 40)
    assert of("origin_delays").features_of(values, AT) == pytest.approx(((50 + 40) / 3, 1 / 3))
    later = AT._replace(known=AT.known + 6 * MINUTE)
    assert of("origin_delays").features_of(values, later) == pytest.approx(((50 + 46) / 3, 1 / 3))
    assert of("origin_delays").features_of((0.0, 0.0, 0.0, 0.0), AT) == (None, None)


@pytest.mark.parametrize(
    ("departed", "landed", "delay", "slack"),
    [
        # It is scheduled three hours before the event, for an hour: the earliest return is 2.5 hours after it leaves.
        (None, None, 60.0, (180 - 60 - 60 - 60 - 90) / 60),
        (NOW - 50, None, 10.0, (180 - 10 - 60 - 60 - 90) / 60),
        (NOW - 50, NOW - 5, 10.0, (120 + 5 - 60 - 90) / 60),
        (NOW - 70, None, -10.0, (120 - 0 - 60 - 90) / 60),  # it should have landed ten minutes ago: it lands now
    ],
)
def test_the_aircrafts_previous_flight(
    departed: float | None, landed: float | None, delay: float, slack: float
) -> None:
    values = (NOW - 60, departed, landed, 60.0)
    assert of("aircraft").features_of(values, AT) == pytest.approx((delay, slack))


def test_a_flight_that_has_not_begun_has_no_delay() -> None:
    delay, slack = of("aircraft").features_of((NOW + 30, None, None, 30.0), AT)
    assert delay is None
    assert slack == pytest.approx((120 - 30 - 30 - 30 - 90) / 60)


def test_a_flight_of_the_day_before_says_nothing() -> None:
    assert of("aircraft").features_of((AT.event / MINUTE - 1441, 1.0, 2.0, 60.0), AT) == (None, None)


def test_age_and_arrival_are_by_the_local_clock() -> None:
    new_year = Moment(known=0, event=0, clock=365 * DAY - 1)
    assert of("register").features_of((1960.0, 100.0), new_year) == [10.0, 100.0]
    assert of("register").features_of((None, None), new_year) == [None, None]
    assert of("timetable").features_of((300.0, 90.0, 30.0), AT)[2] == pytest.approx(19.5)
    assert of("timetable").features_of((300.0, 90.0, -1200.0), AT)[2] == pytest.approx(23.0)


def test_a_view_without_a_known_transform_is_refused() -> None:
    with pytest.raises(ValidationError, match="no transform 'sum', only plain"):
        View(name="v", keys=(), ttl=None, values=("a",), transform="sum", features=("a",))
    with pytest.raises(ValidationError, match="the features are the values"):
        View(name="v", keys=(), ttl=None, values=("a",), features=("b",))


def test_the_fingerprint_changes_with_whatever_changes_rows() -> None:
    views = flight_views.views(HORIZON)
    assert views.fingerprint == flight_views.views(HORIZON).fingerprint
    assert views.fingerprint != flight_views.views(HOUR).fingerprint
    (first, *others) = views.views
    for change in ({"version": 2}, {"ttl": 5}, {"keys": ("dest",)}, {"name": "other"}):
        changed = views.model_copy(update={"views": (first.model_copy(update=change), *others)})
        assert changed.fingerprint != views.fingerprint
