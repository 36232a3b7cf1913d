"""Compiles the fitted estimator for serving: an ONNX graph if it gives the same predictions, else a pickle."""

import logging
import pickle
import warnings
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ml.card import Parity
from ml.edge_rows import edge_rows
from ml.estimators import Model
from ml.runtime import Runtime, compile_model
from ml.schema import Schema


def compile_estimator(
    model: Model, schema: Schema, matrix: NDArray[np.float32], unit: float, tolerance: float, log: logging.Logger
) -> tuple[Runtime, bytes, Parity | None]:
    """ONNX bytes if their results differ from scikit-learn's by at most `tolerance`; else a pickle.

    They are compared on `matrix` and on rows at the edges (ml/edge_rows.py). `unit`: the unit of the differences, see
    `parity_unit`; for a prediction further from the mean, its distance.
    """
    try:
        graph = to_onnx(model, schema, matrix.shape[1])
        run = compile_model("onnx", graph, schema.task)
        edges = edge_rows(model.estimator, model.encoding, matrix)
        rows = np.concatenate([matrix, edges])
        with np.errstate(all="ignore"):  # numbers near float32's limits overflow in both
            expected = model.scores(rows, schema)
            apart = np.abs(run(rows) - expected)
            # A number of float32 has seven digits, so one that is many units from the others is less exact than they.
            apart /= np.maximum(unit, np.abs(expected - expected[: len(matrix)].mean()))
        # Not a number, where scikit-learn gives a number, is a difference as well.
        difference = float(np.nan_to_num(apart, nan=np.inf).max())
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
    return (
        "onnx",
        graph,
        Parity(rows=len(matrix), edge_rows=len(edges), largest_difference=difference, tolerance=tolerance),
    )


def parity_unit(target: NDArray[np.float64], schema: Schema) -> float:
    """1 for probabilities; for a regression the target's standard deviation, so that the target's unit doesn't matter.

    The compiled model computes in float32 (seven digits): values around 1e6 have an error of 0.06. This is large if the
    target's standard deviation is 1, and negligible if it is 1e5.
    """
    return (float(target.std()) or 1.0) if schema.task == "regression" else 1.0


def round_thresholds_down(estimator: Any) -> None:
    """Give boosted trees thresholds of float32, without a change of any prediction for float32 features.

    A threshold between two neighbouring numbers of float32 is not in float32. The converter rounds it to the nearest,
    which may be the larger neighbour, and this number would then go to the other side (sklearn-onnx issue 1192).
    """
    members = [estimator]
    while members:
        member = members.pop()
        members += [step for _, step in getattr(member, "steps", ())]
        if hasattr(member, "named_estimators_"):  # an average; the converter rounds a forest's trees itself
            members += list(member.estimators_)
        for tree in (tree for trees in getattr(member, "_predictors", ()) for tree in trees):
            exact = tree.nodes["num_threshold"]
            with np.errstate(over="ignore"):
                nearest = exact.astype(np.float32)
            above = nearest > exact
            nearest[above] = np.nextafter(nearest[above], np.float32(-np.inf))
            tree.nodes["num_threshold"] = nearest


def to_onnx(model: Model, schema: Schema, width: int) -> bytes:
    """The estimator as an ONNX graph with float32 input; the same estimator always gives the same bytes."""
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    round_thresholds_down(model.estimator)
    options = None if schema.task == "regression" else {id(model.estimator): {"zipmap": False}}
    inputs = [("features", FloatTensorType([None, width]))]
    with warnings.catch_warnings():
        # If warnings are errors, the converter's deprecation warnings become misleading errors of protobuf.
        warnings.simplefilter("ignore")
        converted = convert_sklearn(model.estimator, "atlas", inputs, options=options, target_opset=17)
    return cast("bytes", converted.SerializeToString())
