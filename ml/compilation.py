"""The fitted estimator as a file that serving runs: an ONNX graph where that answers alike, else a pickle."""

import logging
import pickle
import warnings
from typing import cast

import numpy as np
from numpy.typing import NDArray

from ml.card import Parity
from ml.estimators import Model
from ml.runtime import Runtime, compile_model
from ml.schema import Schema


def compile_estimator(
    model: Model, schema: Schema, matrix: NDArray[np.float32], unit: float, tolerance: float, log: logging.Logger
) -> tuple[Runtime, bytes, Parity | None]:
    """ONNX bytes whose answers on `matrix` are scikit-learn's own within `tolerance`; else the pickled estimator.

    `unit`: what a difference in the answers is divided by, see `parity_unit`.
    """
    try:
        graph = to_onnx(model, schema, matrix.shape[1])
        run = compile_model("onnx", graph, schema.task)
        difference = float(np.abs(run(matrix) - model.scores(matrix, schema)).max()) / unit
    except Exception as error:  # converters fail in many ways; the fallback serves all the same
        log.warning("the model doesn't compile (%s): runtime sklearn", " ".join(str(error).split())[:300])
        return "sklearn", pickle.dumps(model.estimator), None
    if difference > tolerance:
        log.warning(
            "the compiled model differs by %.2g, more than model.parity_tolerance (%.2g): runtime sklearn",
            difference,
            tolerance,
        )
        return "sklearn", pickle.dumps(model.estimator), None
    return "onnx", graph, Parity(rows=len(matrix), largest_difference=difference, tolerance=tolerance)


def parity_unit(target: NDArray[np.float64], schema: Schema) -> float:
    """1 for probabilities; for a regression the target's standard deviation, whether in cents or in euros.

    The compiled model answers in float32, seven digits: around 1e6 it is 0.06 off, which is much where targets spread
    by 1 and nothing where they spread by 1e5.
    """
    return (float(target.std()) or 1.0) if schema.task == "regression" else 1.0


def to_onnx(model: Model, schema: Schema, width: int) -> bytes:
    """The estimator as an ONNX graph, float32 in; the same estimator gives the same bytes."""
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    classifies = schema.task != "regression"
    options = {id(model.estimator): {"zipmap": False}} if classifies else None
    inputs = [("features", FloatTensorType([None, width]))]
    with warnings.catch_warnings():
        # Where warnings are errors, the converter's deprecation warnings turn into wrong-value errors of protobuf.
        warnings.simplefilter("ignore")
        converted = convert_sklearn(model.estimator, "atlas", inputs, options=options, target_opset=17)
    return cast("bytes", converted.SerializeToString())
