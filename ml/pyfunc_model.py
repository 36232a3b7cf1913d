"""The bundle as an MLflow model: `mlflow.pyfunc.load_model("models:/NAME@champion")` gives the service's answers.

MLflow runs this file to make the model ("models from code"); nothing else imports it.
"""

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd

from ml.bundle import Bundle, load_bundle
from ml.tables import to_columns


class BundleModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc, name-defined]  # MLflow has no types
    """Rows as a request would write them -> `prediction`, and a `probability:LABEL` column per class."""

    bundle: Bundle

    def load_context(self, context: Any) -> None:
        """Called by MLflow with the artifacts' folder."""
        self.bundle = load_bundle(Path(context.artifacts["bundle"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:  # noqa: ARG002
        """One row of answers per row of `model_input`."""
        scores = self.bundle.scores(to_columns(model_input, self.bundle.schema))
        answers = pd.DataFrame({"prediction": self.bundle.decide(scores)})
        for place, label in enumerate(self.bundle.schema.classes):
            answers[f"probability:{label}"] = scores[:, place]
        return answers


mlflow.models.set_model(BundleModel())
