"""The views of the default data: what is known of weather, delays, aircraft and timetable when a flight is predicted.

ml/features/flights.py makes their rows.
"""

from collections.abc import Mapping

from ml.features.views import DAY, HOUR, MINUTE, View, Views

TIMEZONE = "America/New_York"
WEATHER = (
    "temperature", "dew_point", "humidity", "wind_direction", "wind_speed", "wind_gust", "precipitation", "pressure",
    "visibility",
)  # fmt: skip
AROUND_ORIGIN, AROUND_CARRIER = 30 * MINUTE, 60 * MINUTE
WINDOWS: Mapping[str, int] = {"origin": 2 * HOUR, "carrier": 3 * HOUR, "dest": 6 * HOUR, "": HOUR}
"""By key, how long before a prediction a flight was scheduled at most to count; no key: all of New York."""
LANDINGS_WINDOW = 6 * HOUR


def views(horizon: int) -> Views:
    """The views for predictions that are made `horizon` microseconds before the scheduled departure."""
    return Views(
        time="scheduled_departure",
        timezone=TIMEZONE,
        horizon=horizon,
        max_lag=10 * MINUTE,
        views=(
            _plain("weather", ("origin",), 6 * HOUR, *WEATHER, "pressure_change"),
            _so_far("origin_delays", "origin", WINDOWS["origin"], "origin_delay", "origin_waiting"),
            _so_far("carrier_delays", "carrier", WINDOWS["carrier"], "carrier_delay", "carrier_waiting"),
            _so_far("dest_delays", "dest", WINDOWS["dest"], "dest_delay"),
            _so_far("city_delays", "", WINDOWS[""], "city_delay"),
            View(
                name="landings",
                keys=("dest",),
                ttl=LANDINGS_WINDOW,
                values=("count", "total"),
                transform="mean",
                features=("arrivals_delay",),
            ),
            View(
                name="aircraft",
                keys=("tailnum",),
                ttl=DAY,
                values=("scheduled", "departed", "landed", "minutes"),
                transform="previous_flight",
                features=("aircraft_delay", "aircraft_slack"),
            ),
            View(
                name="register",
                keys=("tailnum",),
                ttl=None,
                values=("year", "seats"),
                transform="age",
                features=("aircraft_age", "aircraft_seats"),
            ),
            View(
                name="timetable",
                keys=("carrier", "origin", "dest"),
                at="event",
                ttl=7 * DAY,
                values=("distance", "minutes", "shift"),
                transform="timetable",
                features=("distance", "scheduled_minutes", "scheduled_arrival_hour"),
            ),
            _plain("origin_congestion", ("origin",), 2 * AROUND_ORIGIN, "origin_departures", event=True),
            _plain("carrier_congestion", ("origin", "carrier"), 2 * AROUND_CARRIER, "carrier_departures", event=True),
            _plain("calendar", (), DAY + HOUR, "holiday_distance", event=True),
        ),
    )


def _so_far(name: str, key: str, window: int, *features: str) -> View:
    """Mean delay so far, and share still waiting, of the flights scheduled in the window before a prediction."""
    return View(
        name=name,
        keys=(key,) if key else (),
        ttl=window,
        values=("count", "waiting", "ended", "begun"),
        transform="mean_so_far",
        features=features,
    )


def _plain(name: str, keys: tuple[str, ...], ttl: int | None, *features: str, event: bool = False) -> View:
    at = "event" if event else "known"
    return View(name=name, keys=keys, at=at, ttl=ttl, values=features, features=features)
