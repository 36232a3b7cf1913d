"""The protocols' documents as types: the source of their parsing, of errors about them, and of the OpenAPI document.

Rows and their values aren't here: the model's schema describes them, and service/inputs.py reads them.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from service.feature_memory import Trouble
from service.inputs import WarningCode

Count = Annotated[int, Meta(ge=0, le=2**53)]
Shape = Annotated[list[Annotated[int, Meta(ge=1, le=2**53)]], Meta(min_length=1, max_length=2)]
"""[rows], or [rows, 1]."""
Row = Annotated[dict[str, Any], Meta(extra_json_schema={"$ref": "#/components/schemas/Row"})]
"""Values by feature."""
RowValues = Annotated[list[Any], Meta(extra_json_schema={"$ref": "#/components/schemas/RowValues"})]
"""Values in the order of the features."""
Datatype = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BF16",
    "BYTES",
]  # fmt: skip
"""The datatypes of the Open Inference Protocol, and Triton's BF16."""

# --- Atlas's own protocol ---


class Rows(Struct, forbid_unknown_fields=True):
    """Rows to predict."""

    rows: Annotated[list[Row], Meta(min_length=1)]


class Warned(Struct):
    """What is unusual about a row, which is predicted all the same."""

    field: str | None
    """None: the row as a whole."""
    code: WarningCode
    message: str


class Model(Struct):
    """The model that predicted."""

    name: str
    version: str


class LookedUp(Struct):
    """A value from the feature store."""

    value: float | str | bool
    age: Annotated[float, Meta(ge=0)] | None
    """Seconds between what it is based on and the time that it was looked up for; None: it doesn't age."""


class Features(Struct):
    """Where the values of a row came from."""

    sent: list[str]
    looked_up: dict[str, LookedUp]
    missing: list[str]
    trouble: Trouble | None
    """Why some could not be looked up."""


class Prediction(Struct):
    """The answer for a row."""

    prediction: Any
    warnings: list[Warned]
    probabilities: dict[str, Annotated[float, Meta(ge=0, le=1)]] | UnsetType = UNSET
    """By class; regressions have none."""
    features: Features | UnsetType = UNSET
    """Only if the service has a feature store."""


class Predictions(Struct):
    """The answers, in the order of the rows."""

    model: Model
    predictions: list[Prediction]


# --- Open Inference Protocol ---


class InputParameters(Struct):
    """What a caller says of a tensor; unknown parameters are ignored, as the protocol allows."""

    binary_data_size: Count | UnsetType = UNSET
    """Bytes of the tensor in the binary part of the body."""
    shared_memory_region: str | UnsetType = UNSET


class InputTensor(Struct, kw_only=True):
    """A feature's values."""

    name: str
    shape: Shape
    datatype: Datatype
    data: Annotated[list[Any], Meta(min_length=1)] | UnsetType
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

Table = Annotated[list[Row | RowValues], Meta(min_length=1)] | dict[str, Any]
"""Rows as objects or as lists; or values by column; or a single row as an object."""


class Split(Struct, forbid_unknown_fields=True):
    """A table as pandas writes it with orient="split"; without `columns`, values are in the order of the features."""

    data: Annotated[list[list[Any]], Meta(min_length=1)]
    columns: list[str] | None = None
    index: list[Any] | None = None


class Invocation(Struct):
    """Exactly one of the forms; other keys, such as `params`, are ignored."""

    dataframe_split: Split | UnsetType = UNSET
    dataframe_records: Annotated[list[Row], Meta(min_length=1)] | UnsetType = UNSET
    instances: Table | UnsetType = UNSET
    inputs: Table | UnsetType = UNSET


class Instances(Struct):
    """Rows for KServe's first protocol."""

    instances: Annotated[list[Row | RowValues], Meta(min_length=1)]


class Scores(Struct):
    """The answers, in the order of the rows: objects with `prediction`, and `probability:LABEL` for each class."""

    predictions: list[dict[str, Any]]


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
