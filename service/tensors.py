"""Tensors of the Open Inference Protocol: feature values in, predictions out, as JSON and in Triton's binary form."""

import struct
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
from msgspec import UNSET
from numpy.typing import NDArray

from ml.schema import Feature, FeatureType, Label, Schema
from service.errors import ApiError
from service.protocols import Datatype, InputParameters, InputTensor, OutputTensor, RequestedOutput
from service.usual import Column

HEADER_LENGTH = "Inference-Header-Content-Length"
"""The header with the number of bytes of the JSON part; the binary part follows."""
DATATYPES: dict[FeatureType, Datatype] = {
    "numeric": "FP64",
    "boolean": "BOOL",
    "datetime": "BYTES",
    "categorical": "BYTES",
    "text": "BYTES",
}
"""The datatype of each type of feature, as the metadata name it."""
LABELS: dict[Label, Datatype] = {"text": "BYTES", "integer": "INT64", "number": "FP64", "boolean": "BOOL"}
DTYPES = {
    "BOOL": "?", "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8", "INT8": "i1", "INT16": "<i2",
    "INT32": "<i4", "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8", "BF16": "<u2",
}  # fmt: skip
"""numpy's type of each datatype in the binary form; BYTES has a form of its own."""
NUMBERS = frozenset(DTYPES) - {"BOOL"}
ACCEPTED = {
    "numeric": NUMBERS | {"BOOL"},
    "boolean": NUMBERS | {"BOOL", "BYTES"},
    "datetime": NUMBERS | {"BYTES"},
    "categorical": NUMBERS | {"BOOL", "BYTES"},
    "text": {"BYTES"},
}
"""The datatypes in which a feature's values can be sent; whether a value fits is decided as in the other protocols."""
LENGTH = struct.Struct("<I")
"""What is before each text in the binary form: its number of bytes."""


def accepted(feature: Feature) -> list[str]:
    """The datatypes in which the feature's values can be sent, its own first."""
    return _accepted(feature.type, as_text="text" in feature.forms)


@cache
def _accepted(kind: FeatureType, *, as_text: bool) -> list[str]:
    every = ACCEPTED[kind] | ({"BYTES"} if as_text else set())
    return [DATATYPES[kind], *sorted(every - {DATATYPES[kind]})]


def read_columns(
    tensors: Sequence[InputTensor], binary: bytes, schema: Schema, decoded: Sequence[Column] | None = None
) -> dict[str, Column]:
    """The values of each feature, all of the same length; `binary` holds those of tensors without `data`, in order.

    `decoded`: the values of all tensors, where they were decoded already; what is in `data` then doesn't matter.

    A 422 that names the tensor when a tensor isn't a feature's, or doesn't fit its shape, or the others' length.
    """
    features = {feature.name: feature for feature in schema.features}
    columns: dict[str, Column] = {}
    rest = memoryview(binary)
    for place, tensor in enumerate(tensors):
        feature = features.get(tensor.name)
        if feature is None:
            raise _wrong(place, f"{tensor.name[:50]!r} is not a feature of this model")
        if tensor.name in columns:
            raise _wrong(place, f"there is already a tensor for {tensor.name}")
        if tensor.datatype not in accepted(feature):
            raise _wrong(place, f"{tensor.name} must have the datatype {DATATYPES[feature.type]}")
        if tensor.parameters.shared_memory_region is not UNSET:
            raise _wrong(place, "shared memory isn't supported: send the values in the body")
        size = tensor.parameters.binary_data_size
        if (tensor.data is UNSET) == (size is UNSET):
            raise _wrong(place, "send either data, or the parameter binary_data_size and the values after the JSON")
        if tensor.data is not UNSET:
            values: Column = _flat(place, tensor.data, tensor.shape) if decoded is None else decoded[place]
        elif size is not UNSET:
            if size > len(rest):
                raise _wrong(place, f"binary_data_size is {size}, but {len(rest)} bytes are left")
            values = _from_binary(place, tensor.datatype, rest[:size])
            rest = rest[size:]
        if tensor.shape not in ([len(values)], [len(values), 1]):
            raise _wrong(place, f"shape must be [{len(values)}], one value per row")
        columns[tensor.name] = values
    if len(rest):
        raise ApiError(422, "wrong_tensor", f"{len(rest)} bytes after the last tensor belong to none")
    lengths = {len(values) for values in columns.values()}
    if len(lengths) != 1:
        raise ApiError(422, "wrong_tensor", f"tensors have different numbers of rows: {sorted(lengths)[:5]}")
    return columns


def _wrong(place: int, message: str) -> ApiError:
    return ApiError(422, "wrong_tensor", f"inputs.{place}: {message}")


def _flat(place: int, data: list[Any], shape: list[int]) -> list[Any]:
    """The values by row; those of shape [rows, 1] may be nested."""
    if list not in set(map(type, data)):
        return data
    if len(shape) != 2 or not all(isinstance(value, list) and len(value) == 1 for value in data):
        raise _wrong(place, "data must be a flat list, or with the shape [rows, 1] a list of lists of one value")
    return [value for (value,) in data]


def _from_binary(place: int, datatype: str, content: memoryview) -> Column:
    if datatype == "BYTES":
        try:
            return list(_texts(content))
        except UnicodeDecodeError:
            raise _wrong(place, "a text is not UTF-8") from None
        except struct.error:
            raise _wrong(place, "each text must come after its length, four bytes, little-endian") from None
    dtype = np.dtype(DTYPES[datatype])
    if len(content) % dtype.itemsize:
        raise _wrong(place, f"binary_data_size must be a multiple of {dtype.itemsize} for {datatype}")
    found: NDArray[Any] = np.frombuffer(content, dtype)
    if datatype == "BF16":  # the upper half of a float32
        found = (found.astype(np.uint32) << 16).view(np.float32)
    elif datatype == "BOOL":
        found = np.frombuffer(content, np.uint8) != 0
    return found


def _texts(content: memoryview) -> Iterator[str]:
    place = 0
    while place < len(content):
        (length,) = LENGTH.unpack_from(content, place)
        place += LENGTH.size
        if length > len(content) - place:
            raise struct.error
        yield str(content[place : place + length], "utf-8")
        place += length


def outputs_of(schema: Schema) -> dict[str, tuple[Datatype, list[int]]]:
    """The datatype and shape of each output by name; -1 stands for the number of rows."""
    found: dict[str, tuple[Datatype, list[int]]] = {
        "prediction": (LABELS[schema.labels] if schema.classes else "FP64", [-1])
    }
    if schema.classes:
        found["probabilities"] = ("FP64", [-1, len(schema.classes)])
    return found


def wanted_outputs(asked: Sequence[RequestedOutput], schema: Schema) -> list[RequestedOutput]:
    """The outputs that a request asks for, by default all; a 422 for one that the model doesn't have."""
    known = outputs_of(schema)
    for output in asked:
        if output.name not in known:
            raise ApiError(
                422, "no_such_output", f"{output.name[:50]!r} is not an output: ask for {' or '.join(known)}"
            )
        if output.parameters.shared_memory_region is not UNSET:
            raise ApiError(422, "no_such_output", "shared memory isn't supported: leave out shared_memory_region")
        if output.parameters.classification and output.name != "probabilities":
            raise ApiError(422, "no_such_output", "classification is possible only for the output probabilities")
    if len({output.name for output in asked}) != len(asked):
        raise ApiError(422, "no_such_output", "outputs contains a name twice")
    return list(asked) or [RequestedOutput(name) for name in known]


def write_output(
    output: RequestedOutput, answers: Sequence[Any], probabilities: NDArray[np.float64], schema: Schema, *, binary: bool
) -> tuple[OutputTensor, bytes]:
    """An output and, if it is wanted in binary form, its bytes.

    `answers`: a value per row. `probabilities`: shape (rows, classes).
    """
    datatype, shape = outputs_of(schema)[output.name]
    shape = [len(answers), *shape[1:]]
    data: list[Any] = list(answers) if output.name == "prediction" else probabilities.ravel().tolist()
    if best := min(output.parameters.classification, len(schema.classes)):
        datatype, shape = "BYTES", [len(answers), best]
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, :best]
        data = [f"{row[c]:f}:{c}:{schema.classes[c]}" for row, cs in zip(probabilities, order, strict=True) for c in cs]
    if output.parameters.binary_data is not UNSET:
        binary = output.parameters.binary_data
    if not binary:
        return OutputTensor(output.name, datatype, shape, data), b""
    if datatype == "BYTES":
        texts = [str(value).encode() for value in data]
        content = b"".join(part for text in texts for part in (LENGTH.pack(len(text)), text))
    else:
        content = np.array(data, DTYPES[datatype]).tobytes()
    parameters = InputParameters(binary_data_size=len(content))
    return OutputTensor(output.name, datatype, shape, parameters=parameters), content
