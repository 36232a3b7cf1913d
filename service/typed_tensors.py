"""The JSON documents of the Open Inference Protocol as typed values: each tensor's values by the type of its feature.

Only `data` is decoded here, which is nearly all of a document; the rest is small and read carefully, so that
tensors.py gets the same request. A document that isn't usual is left to the careful decoder (routes/shared.py).
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from service.bodies import parse_json, read_as
from service.errors import ApiError
from service.protocols import InferRequest
from service.typed import QUOTE, UNDECODED, RowTypes, read_values
from service.usual import Column

_NESTED = re.compile(rb"[ \t\n\r]*\[[ \t\n\r]*\[")


class _Tensor(Struct):
    name: str
    shape: list[Any]
    datatype: str
    data: Raw
    parameters: Raw | UnsetType = UNSET


class _Request(Struct):
    inputs: list[_Tensor]
    id: Raw | UnsetType = UNSET
    outputs: Raw | UnsetType = UNSET
    parameters: Raw | UnsetType = UNSET


class Decoded(NamedTuple):
    """A request, and the values of its tensors; None if the request itself contains them."""

    request: InferRequest
    values: list[Column] | None


class Tensors:
    """Decodes the requests for a model; safe to call from several threads."""

    def __init__(self, types: RowTypes) -> None:
        self._types = types
        self._decode = msgspec.json.Decoder(_Request).decode
        self._flat = {name: msgspec.json.Decoder(types.column(name)).decode for name in types.names}
        self._nested = {name: msgspec.json.Decoder(types.column(name, nested=True)).decode for name in types.names}

    def read(self, body: bytes) -> Decoded | None:
        """A request all of whose values are in JSON; None if the careful decoder must decide."""
        try:
            found = self._decode(body)
            parts = [bytes(tensor.data) for tensor in found.inputs]
            values = [self._values(tensor, data) for tensor, data in zip(found.inputs, parts, strict=True)]
            rest = _Rest()
            document = rest.read(found, ("id", "outputs", "parameters"))
            document["inputs"] = [
                rest.read(tensor, ("parameters",))
                # The place of the values, which are checked here.
                | {"name": tensor.name, "shape": tensor.shape, "datatype": tensor.datatype, "data": [0]}
                for tensor in found.inputs
            ]
            request = read_as(document, InferRequest, "wrong_tensor")
        except (*UNDECODED, LookupError, ApiError):
            return None
        # Beside the values: `inputs`, and of each tensor four keys, its name and its datatype.
        strings = body.count(QUOTE) - sum(data.count(QUOTE) for data in parts) - rest.quotes
        if strings != 2 * (1 + 6 * len(parts) + rest.keys):
            return None
        return Decoded(request, values)

    def _values(self, tensor: _Tensor, data: bytes) -> Column:
        """A KeyError if the tensor isn't a feature's; an IndexError if it has no values, or some as lists."""
        if not _NESTED.match(data):
            found: Sequence[Any] = self._flat[tensor.name](data)
        elif len(tensor.shape) == 2:
            found = [value for (value,) in self._nested[tensor.name](data)]
        else:
            raise IndexError
        if not found:
            raise IndexError
        return read_values(self._types.kinds[tensor.name], found)


class _Rest:
    """Reads carefully what isn't a tensor's values."""

    def __init__(self) -> None:
        self.quotes = self.keys = 0
        self._known: dict[bytes, Any] = {}
        """What was read, by its bytes: tensors often have the same parameters."""

    def read(self, found: Struct, names: Sequence[str]) -> dict[str, Any]:
        """Those of these fields that are there."""
        read = {}
        for name in names:
            if (raw := getattr(found, name)) is not UNSET:
                text = bytes(raw)
                if text not in self._known:
                    self._known[text] = parse_json(text, bare_nan=True)
                read[name] = self._known[text]
                self.keys += 1
                self.quotes += text.count(QUOTE)
        return read
