"""The views that params.yaml asks for."""

from ml.data_params import DataParams
from ml.features import flight_views
from ml.features.views import DAY, MICROSECOND, View, Views


def horizon_of(data: DataParams) -> int:
    """How long before the event a prediction is made, in microseconds."""
    return 0 if data.horizon is None else data.horizon // MICROSECOND


def views_of(data: DataParams) -> Views | None:
    """The views of the table; None if it has none."""
    if data.source == "flights":
        return flight_views.views(horizon_of(data))
    if not data.views or data.time is None:
        return None
    views = tuple(
        View(
            name=name,
            keys=view.keys,
            ttl=None if view.ttl is None else view.ttl // MICROSECOND,
            values=view.features,
            features=view.features,
        )
        for name, view in data.views.items()
    )
    # A row of a file counts until it expires, also if the materialiser is late: no event is missing as in sums.
    lag = max((view.ttl for view in views if view.ttl is not None), default=DAY)
    return Views(
        time=data.time,
        timezone=data.times(data.time)[1] or "UTC",
        horizon=horizon_of(data),
        max_lag=lag,
        views=views,
    )
