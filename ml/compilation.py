"""Compiles the fitted estimator for serving: an ONNX graph if it gives the same predictions, else a pickle."""

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
    """ONNX bytes if their results on `matrix` differ from scikit-learn's by at most `tolerance`; else a pickle.

    `unit`: the unit of the differences, see `parity_unit`.
    """
    try:
        graph = to_onnx(model, schema, matrix.shape[1])
        run = compile_model("onnx", graph, schema.task)
        difference = float(np.abs(run(matrix) - model.scores(matrix, schema)).max()) / unit
    except Exception as error:  # converters raise many kinds of errors; the pickle can still be served
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
    """1 for probabilities; for a regression the target's standard deviation, so that the target's unit doesn't matter.

    The compiled model computes in float32 (seven digits): values around 1e6 have an error of 0.06. This is large if the
    target's standard deviation is 1, and negligible if it is 1e5.
    """
    return (float(target.std()) or 1.0) if schema.task == "regression" else 1.0


def to_onnx(model: Model, schema: Schema, width: int) -> bytes:
    """The estimator as an ONNX graph with float32 input; the same estimator always gives the same bytes."""
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    classifies = schema.task != "regression"
    options = {id(model.estimator): {"zipmap": False}} if classifies else None
    inputs = [("features", FloatTensorType([None, width]))]
    with warnings.catch_warnings():
        # If warnings are errors, the converter's deprecation warnings become misleading errors of protobuf.
        warnings.simplefilter("ignore")
        converted = convert_sklearn(model.estimator, "atlas", inputs, options=options, target_opset=17)
    return cast("bytes", converted.SerializeToString())
