"""The protocols' documents as types: the source of their parsing, of errors about them, and of the OpenAPI document.

Rows and their values aren't here: the model's schema describes them, and service/inputs.py reads them.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

Count = Annotated[int, Meta(ge=0, le=2**53)]
Datatype = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BF16",
    "BYTES",
]  # fmt: skip
"""The datatypes of the Open Inference Protocol, and Triton's BF16."""

# --- Open Inference Protocol ---


class InputParameters(Struct):
    """What a caller says of a tensor; unknown parameters are ignored, as the protocol allows."""

    binary_data_size: Count | UnsetType = UNSET
    """Bytes of the tensor in the binary part of the body."""
    shared_memory_region: str | UnsetType = UNSET


class InputTensor(Struct, kw_only=True):
    """A feature's values."""

    name: str
    shape: Annotated[list[Count], Meta(min_length=1, max_length=2)]
    """[rows], or [rows, 1]."""
    datatype: Datatype
    data: list[Any] | UnsetType
    parameters: InputParameters = msgspec.field(default_factory=InputParameters)


class BinaryInputTensor(InputTensor, kw_only=True):
    """A feature's values; without `data` they are in the binary part of the body."""

    data: list[Any] | UnsetType = UNSET


class OutputParameters(Struct):
    """How an output is wanted."""

    binary_data: bool | UnsetType = UNSET
    classification: Count = 0
    """Return the labels of this number of best classes, instead of all numbers."""
    shared_memory_region: str | UnsetType = UNSET


class RequestedOutput(Struct):
    """An output that is wanted."""

    name: str
    parameters: OutputParameters = msgspec.field(default_factory=OutputParameters)


class InferParameters(Struct):
    """What a caller says of a request."""

    binary_data_output: bool = False


class InferRequest(Struct, kw_only=True):
    """Tensors of equal length, one for each feature; without `outputs`, all outputs are wanted."""

    inputs: Annotated[Sequence[InputTensor], Meta(min_length=1)]
    id: str | None = None
    outputs: list[RequestedOutput] = []
    parameters: InferParameters = msgspec.field(default_factory=InferParameters)


class BinaryInferRequest(InferRequest, kw_only=True):
    """The JSON part of a body with a binary part."""

    inputs: Annotated[Sequence[BinaryInputTensor], Meta(min_length=1)]


class OutputTensor(Struct, omit_defaults=True):
    """An output; without `data` it is in the binary part of the body."""

    name: str
    datatype: Datatype
    shape: list[int]
    data: list[Any] | UnsetType = UNSET
    parameters: InputParameters | UnsetType = UNSET


class InferResponse(Struct, omit_defaults=True):
    """The answer to an InferRequest."""

    model_name: str
    model_version: str
    outputs: list[OutputTensor]
    id: str | None = None


# --- MLflow's scoring protocol, and KServe's first protocol ---

Table = list[dict[str, Any] | list[Any]] | dict[str, Any]
"""Rows as objects or as lists; or values by column; or a single row as an object."""


class Split(Struct, forbid_unknown_fields=True):
    """A table as pandas writes it with orient="split"; without `columns`, values are in the order of the features."""

    data: list[list[Any]]
    columns: list[str] | None = None
    index: list[Any] | None = None


class Invocation(Struct):
    """Exactly one of the forms; other keys, such as `params`, are ignored."""

    dataframe_split: Split | UnsetType = UNSET
    dataframe_records: list[dict[str, Any]] | UnsetType = UNSET
    instances: Table | UnsetType = UNSET
    inputs: Table | UnsetType = UNSET


class Instances(Struct):
    """Rows for KServe's first protocol."""

    instances: Annotated[list[dict[str, Any] | list[Any]], Meta(min_length=1)]


# --- errors ---


class Problem(Struct):
    """Why a value can't be used."""

    row: int
    field: str | None
    code: str
    message: str


class Reason(Struct):
    """What is wrong with a request."""

    code: str
    message: str
    problems: list[Problem]


class Error(Struct):
    """An error of Atlas's own routes."""

    error: Reason
    request_id: str


class MlflowError(Struct):
    """An error in MLflow's scoring protocol."""

    error_code: str
    message: str


class Refused(Struct):
    """An error, as in the Open Inference Protocol and in KServe's first protocol."""

    error: str
