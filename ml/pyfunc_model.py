"""The bundle as an MLflow model: `mlflow.pyfunc.load_model("models:/NAME@champion")` gives the service's predictions.

MLflow runs this file to create the model ("models from code"); nothing else imports it.
"""

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd

from ml.bundle import Bundle, load_bundle
from ml.tables import to_columns


class BundleModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc, name-defined]  # MLflow has no types
    """Rows in the format of a request -> `prediction`, and a column `probability:LABEL` per class."""

    bundle: Bundle

    def load_context(self, context: Any) -> None:
        """Load the bundle; MLflow calls this with the artifacts' folder."""
        self.bundle = load_bundle(Path(context.artifacts["bundle"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:  # noqa: ARG002
        """A row of predictions for each row of `model_input`."""
        scores = self.bundle.scores(to_columns(model_input, self.bundle.schema))
        answers = pd.DataFrame({"prediction": self.bundle.answers(scores)})
        for place, label in enumerate(self.bundle.schema.classes):
            answers[f"probability:{label}"] = scores[:, place]
        return answers


mlflow.models.set_model(BundleModel())
