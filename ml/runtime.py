"""Runs the bundle's model, as a function from matrix to scores: ONNX Runtime, or the pickled scikit-learn estimator.

A row's scores must be bitwise the same alone and in any batch. Otherwise a row near the threshold could get another
label because of other rows in the request. Libraries don't guarantee this: the order in which a matrix product adds
float32 numbers depends on the number of rows, and with two threads ONNX Runtime adds the trees of a large batch in
another order. So every call has the same shape and a single thread:

- ONNX Runtime is called once per row, on a single thread. Each call takes about 4 µs in addition to the
  model's own work.
- A call of scikit-learn takes milliseconds. Trees get blocks of BLOCK rows, and the last block is filled up with zeros:
  the trees' results are added separately for each row, in the order of the trees. An estimator with a linear member is
  called once per row, because in a matrix product even the position of a row in the block changes the order of its sum.
"""

import pickle
import threading
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ml.schema import Task

Runtime = Literal["onnx", "sklearn"]
Scores = NDArray[np.float64]
"""Probabilities, shape (n, classes), rows summing to 1; or predicted numbers, shape (n,), for a regression."""

BLOCK = 64
"""Number of rows in each call of scikit-learn's trees."""


class BundleError(Exception):
    """A bundle that is missing, damaged, or unusable here; the message says why and what to do."""


def compile_model(runtime: Runtime, model: bytes, task: Task) -> Callable[[NDArray[np.float32]], Scores]:
    """The model's file as a function from the matrix, shape (n, k), to scores; safe to call from several threads.

    Raises BundleError when the file can't be loaded, or the library that it needs isn't installed.
    """
    run = _onnx_model(model) if runtime == "onnx" else _pickled_model(model, task)

    def scores(matrix: NDArray[np.float32]) -> Scores:
        # C order, because numpy's order of additions depends on the memory layout.
        output = np.ascontiguousarray(run(matrix), dtype=np.float64)
        return output.reshape(-1) if task == "regression" else output

    return scores


def _onnx_model(model: bytes) -> Callable[[NDArray[np.float32]], NDArray[Any]]:
    import onnxruntime  # takes 0.3 s, which callers that only read documents avoid

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise BundleError(f"the compiled model can't be loaded ({error}): run `dvc repro`") from None
    source, sinks = session.get_inputs()[0].name, [session.get_outputs()[-1].name]

    def run(matrix: NDArray[np.float32]) -> NDArray[Any]:
        # At least one call, so that the runtime itself handles an empty matrix.
        starts = range(max(len(matrix), 1))
        return np.concatenate([session.run(sinks, {source: matrix[row : row + 1]})[0] for row in starts])

    return run


def _pickled_model(model: bytes, task: Task) -> Callable[[NDArray[np.float32]], NDArray[Any]]:
    try:
        # The file's hash was verified with the manifest. A bundle is code, and is trusted like the image.
        estimator = pickle.loads(model)  # noqa: S301
    except ModuleNotFoundError as error:
        raise BundleError(
            f"this bundle's model doesn't compile (runtime: sklearn) and needs {error.name}, "
            "which isn't installed here: use the image target `full`"
        ) from None
    # Both are dependencies of scikit-learn.
    import joblib
    from threadpoolctl import ThreadpoolController

    method = estimator.predict if task == "regression" else estimator.predict_proba
    block = 1 if _is_linear(estimator) else BLOCK
    pools, one_at_a_time = ThreadpoolController(), threading.Lock()

    def run(matrix: NDArray[np.float32]) -> NDArray[Any]:
        rows, width = matrix.shape
        padded = np.zeros((-(-max(rows, 1) // block) * block, width), dtype=np.float32)
        padded[:rows] = matrix
        # Forests add their trees in the order in which threads finish, and BLAS distributes rows over its threads. The
        # limit applies to the whole process, so two calls must not set and reset it at the same time.
        with one_at_a_time, pools.limit(limits=1), joblib.parallel_config(backend="sequential"):
            blocks = [method(padded[start : start + block]) for start in range(0, len(padded), block)]
        return np.concatenate(blocks)[:rows]

    return run


def _is_linear(estimator: Any) -> bool:
    """Whether the estimator, or any member of a pipeline or an average, is linear."""
    members = [step for _, step in getattr(estimator, "steps", ())]
    if hasattr(estimator, "named_estimators_"):  # an average; a forest's own trees can't be linear
        members += list(estimator.estimators_)
    return hasattr(estimator, "coef_") or any(map(_is_linear, members))
