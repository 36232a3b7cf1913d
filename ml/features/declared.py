"""The views that params.yaml asks for."""

import pandas as pd

from ml.data_params import DataParams
from ml.features import flight_views
from ml.features.views import Views


def horizon_of(data: DataParams) -> int:
    """How long before the event a prediction is made, in microseconds."""
    return 0 if data.horizon is None else int(pd.Timedelta(data.horizon) / pd.Timedelta("1us"))


def views_of(data: DataParams) -> Views | None:
    """The views of the table; None if it has none."""
    return flight_views.views(horizon_of(data)) if data.source == "flights" else None
