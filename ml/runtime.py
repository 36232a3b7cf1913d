"""Runs the bundle's model, as a function from matrix to scores: ONNX Runtime, or the pickled scikit-learn estimator.

A row's scores must be bitwise the same alone and in any batch. Otherwise a row near the threshold could get another
label because of other rows in the request. Libraries don't guarantee this: the order in which a matrix product adds
float32 numbers depends on the number of rows, and with two threads ONNX Runtime adds the trees of a large batch in
another order. So:

- ONNX Runtime has a single thread. It gets a whole batch if all operators of the graph are known to treat each row for
  itself, as trees do: then it needs half the time, because it takes each tree through many rows while the tree is in
  the cache. Any other graph is called once per row.
- A call of scikit-learn takes milliseconds. Trees get blocks of BLOCK rows, and the last block is filled up with zeros:
  the trees' results are added separately for each row, in the order of the trees. An estimator with a linear member is
  called once per row, because in a matrix product even the position of a row in the block changes the order of its sum.
"""

import importlib.util
import pickle
import threading
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ml.schema import Task

Runtime = Literal["onnx", "sklearn"]
Scores = NDArray[np.float64]
"""Probabilities, shape (n, classes), rows summing to 1; or predicted numbers, shape (n,), for a regression."""

ROW_BY_ROW = frozenset({
    "TreeEnsembleClassifier", "TreeEnsembleRegressor", "Add", "ArgMax", "ArrayFeatureExtractor", "Cast", "Concat",
    "Div", "Flatten", "Identity", "Imputer", "Mul", "Reshape", "Sub", "Sum",
})  # fmt: skip
"""Operators of ONNX that give a row's numbers the same bits in any batch on a single thread.

They add a row's trees in the order of the trees, or compute each number from one number of each input, as IEEE 754
rounds it. Matrix products aren't here, nor are means and functions such as Sigmoid, which the runtime computes with
vector instructions for most numbers and without for the last.
"""
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
    any_batch = operators(model) <= ROW_BY_ROW

    def run(matrix: NDArray[np.float32]) -> NDArray[Any]:
        if any_batch or len(matrix) == 1:
            return session.run(sinks, {source: matrix})[0]
        # At least one call, so that the runtime itself handles an empty matrix.
        starts = range(max(len(matrix), 1))
        return np.concatenate([session.run(sinks, {source: matrix[row : row + 1]})[0] for row in starts])

    return run


def operators(model: bytes) -> set[str]:
    """The operators of an ONNX graph; the package onnx could read it, but is as large as the rest of the image."""
    graphs = [field for number, field in _fields(memoryview(model)) if number == 7]  # ModelProto.graph
    nodes = [field for graph in graphs for number, field in _fields(graph) if number == 1]  # GraphProto.node
    return {bytes(field).decode() for node in nodes for number, field in _fields(node) if number == 4}  # op_type


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and bytes of each field of a protobuf message that has a length; fields that are numbers are skipped."""
    place = 0

    def varint() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = message[place]
            place += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    while place < len(message):
        key = varint()
        match key & 7:
            case 0:
                varint()
            case 2:
                length = varint()
                yield key >> 3, message[place : place + length]
                place += length
            case kind:
                place += {1: 8, 5: 4}[kind]


def _needs(package: str | None) -> BundleError:
    return BundleError(
        f"this bundle's model doesn't compile (runtime: sklearn) and needs {package}, "
        "which isn't installed here: use the image target `full`"
    )


def _pickled_model(model: bytes, task: Task) -> Callable[[NDArray[np.float32]], NDArray[Any]]:
    # Before anything is unpickled, because a pickle of another hand may run code and need no scikit-learn for it.
    if importlib.util.find_spec("sklearn") is None:
        raise _needs("sklearn")
    try:
        # The file's hash was verified with the manifest. A bundle is code, and is trusted like the image.
        estimator = pickle.loads(model)  # noqa: S301
    except ModuleNotFoundError as error:
        raise _needs(error.name) from None
    # Both are dependencies of scikit-learn.
    import joblib
    from threadpoolctl import ThreadpoolController

    method = estimator.predict if task == "regression" else estimator.predict_proba
    block = 1 if is_linear(estimator) else BLOCK
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


def is_linear(estimator: Any) -> bool:
    """Whether the estimator, or any member of a pipeline or an average, is linear."""
    members = [step for _, step in getattr(estimator, "steps", ())]
    if hasattr(estimator, "named_estimators_"):  # an average; a forest's own trees can't be linear
        members += list(estimator.estimators_)
    return hasattr(estimator, "coef_") or any(map(is_linear, members))
