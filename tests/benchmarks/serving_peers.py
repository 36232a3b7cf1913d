"""What serving.py compares Atlas with; it runs in the peers' environments, without Atlas's packages.

    python serving_peers.py FOLDER      fits a pipeline on FOLDER/rows.csv, for the peers that serve a model

The pipeline has the bundle's inputs and as many trees, as a user of scikit-learn would write it.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ.get("FOLDER", "."))
TREES = 300


def fit(folder: Path) -> None:
    """Fit, and save as each peer reads it."""
    import joblib
    import pandas as pd
    from sklearn.compose import make_column_selector, make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder

    rows = pd.read_csv(folder / "rows.csv")
    target = rows.pop("target")
    rows = rows.astype(dict.fromkeys(rows.select_dtypes("number").columns, "float64"))
    numbers = make_column_selector(dtype_include="number")
    texts = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    encoder = make_column_transformer(("passthrough", numbers), (texts, make_column_selector(dtype_exclude="number")))
    model = make_pipeline(encoder, HistGradientBoostingClassifier(max_iter=TREES, early_stopping=False))
    model.fit(rows, target)
    joblib.dump(model, folder / "model.joblib")
    compile_to_onnx(model, rows, folder)
    mlserver = {
        "name": "peer",
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {"uri": "model.joblib"},
    }
    (folder / "model-settings.json").write_text(json.dumps(mlserver))
    # BentoML finds a service by the name of a module's attribute.
    (folder / "bento.py").write_text("from serving_peers import bentoml_pandas\n\nPeer = bentoml_pandas()\n")
    try:
        import mlflow.sklearn
    except ImportError:
        return
    mlflow.sklearn.save_model(
        model,
        folder / "mlflow",
        serialization_format="cloudpickle",
        input_example=rows.head(1),
        pyfunc_predict_fn="predict_proba",
        pip_requirements=["scikit-learn"],
    )


def compile_to_onnx(model: Any, rows: Any, folder: Path) -> None:
    """Compile the pipeline for the peer that serves it without scikit-learn, in whose environment the compiler is."""
    try:
        from skl2onnx import to_onnx
        from skl2onnx.common.data_types import FloatTensorType, StringTensorType
    except ImportError:
        return
    types = [
        (name, FloatTensorType([None, 1]) if kind == "float64" else StringTensorType([None, 1]))
        for name, kind in rows.dtypes.items()
    ]
    compiled = to_onnx(model, initial_types=types, options={"zipmap": False})
    (folder / "model.onnx").write_bytes(compiled.SerializeToString())


def predictions(rows: list[dict[str, Any]], model: Any) -> dict[str, Any]:
    """The usual answer of a hand-written service."""
    import pandas as pd

    return {"predictions": [{"probabilities": row} for row in model.predict_proba(pd.DataFrame(rows)).tolist()]}


def bare() -> Any:
    """A Flask route that parses JSON and answers a constant."""
    import flask

    app = flask.Flask(__name__)

    @app.post("/predict")
    def predict() -> dict[str, Any]:
        flask.request.get_json()
        return {"predictions": [{"prediction": "late", "probabilities": {"late": 0.5, "on_time": 0.5}}]}

    return app


def flask_pandas() -> Any:
    """A Flask route over the pipeline."""
    import flask
    import joblib

    app = flask.Flask(__name__)
    model = joblib.load(FOLDER / "model.joblib")

    @app.post("/predict")
    def predict() -> dict[str, Any]:
        return predictions(flask.request.get_json()["rows"], model)

    return app


def flask_onnx() -> Any:
    """A Flask route over the compiled pipeline; its answers have float32's precision."""
    import flask
    import numpy as np
    import onnxruntime

    app = flask.Flask(__name__)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(FOLDER / "model.onnx", options)
    types = {each.name: object if "string" in each.type else np.float32 for each in session.get_inputs()}

    @app.post("/predict")
    def predict() -> dict[str, Any]:
        rows = flask.request.get_json()["rows"]
        columns = {name: np.array([[row[name]] for row in rows], kind) for name, kind in types.items()}
        (probabilities,) = session.run(["probabilities"], columns)
        return {"predictions": [{"probabilities": row} for row in probabilities.tolist()]}

    return app


def fastapi_pandas() -> Any:
    """A FastAPI route over the pipeline."""
    import fastapi
    import joblib

    app = fastapi.FastAPI()
    model = joblib.load(FOLDER / "model.joblib")

    @app.post("/predict")
    def predict(document: dict[str, Any]) -> dict[str, Any]:
        return predictions(document["rows"], model)

    return app


def bentoml_pandas() -> Any:
    """A BentoML service over the pipeline."""
    import bentoml
    import joblib

    class Peer:
        def __init__(self) -> None:
            self.model = joblib.load(FOLDER / "model.joblib")

        @bentoml.api  # type: ignore[untyped-decorator]
        def predict(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
            return predictions(rows, self.model)

    return bentoml.service(workers=int(os.environ.get("WORKERS", "1")))(Peer)


if __name__ == "__main__":
    fit(Path(sys.argv[1]))
