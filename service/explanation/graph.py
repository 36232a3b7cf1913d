"""Reads the additive parts of a compiled model from its ONNX graph: tree ensembles and linear functions.

The package onnx is as large as the rest of the image. Its messages are few, and protobuf, which ONNX Runtime needs
anyway, reads them from this description (onnx.proto; field numbers never change).
"""

from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

Link = Literal["NONE", "LOGISTIC", "SOFTMAX"]
"""From the sum to the scores."""


class NotAdditiveError(Exception):
    """The model isn't a weighted sum of trees and linear functions that is known here."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """The matrix's columns that a part reads, and what is done to them before."""

    columns: NDArray[np.int64]
    fill: NDArray[np.float32] | None = None
    """The number that stands for NaN, by column."""
    offset: NDArray[np.float32] | None = None
    scale: NDArray[np.float32] | None = None

    def of(self, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
        """The part's inputs, shape (n, columns)."""
        found = matrix[:, self.columns]
        if self.fill is not None:
            found = np.where(np.isnan(found), self.fill, found)
        if self.offset is not None and self.scale is not None:
            found = (found - self.offset) * self.scale
        return np.ascontiguousarray(found)


@dataclass(frozen=True, slots=True)
class Trees:
    """A sum of trees; nodes are numbered over all trees."""

    inputs: Inputs
    roots: NDArray[np.int64]
    feature: NDArray[np.int64]
    """Of `inputs`, by node."""
    threshold: NDArray[np.float32]
    missing_true: NDArray[np.bool_]
    children: NDArray[np.int64]
    """(node for values up to the threshold, node for others), or (-1, -1) for a leaf; shape (nodes, 2)."""
    weights: NDArray[np.float64]
    """What a leaf adds, shape (nodes, outputs)."""
    base: NDArray[np.float64]
    link: Link


@dataclass(frozen=True, slots=True)
class Linear:
    """A linear function, with a row of coefficients for each output."""

    inputs: Inputs
    coefficients: NDArray[np.float64]
    base: NDArray[np.float64]
    link: Link


Part = Trees | Linear


def parts_of(model: bytes, width: int) -> list[tuple[float, Part]]:
    """The parts of the graph with their weights: its last output is the weighted sum of their scores.

    `width`: the number of the matrix's columns. Raises NotAdditiveError for anything else.
    """
    graph = _message().FromString(model).graph
    constants = {tensor.name: _array(tensor) for tensor in graph.initializer}
    known: dict[str, Inputs | list[tuple[float, Part]]] = {graph.input[0].name: Inputs(np.arange(width))}
    for node in graph.node:
        source = known.get(node.input[0])
        attributes = {attribute.name: attribute for attribute in node.attribute}
        if isinstance(source, Inputs):
            found: Any = _from_inputs(node, attributes, source, constants)
        elif source is not None:
            found = _from_parts(node, source, known, constants)
        else:
            continue  # such as the label, which is decided outside the graph
        if found is not None:
            known[node.output[-1] if isinstance(found, list) else node.output[0]] = found
    result = known.get(graph.output[-1].name)
    if not isinstance(result, list):
        raise NotAdditiveError("the graph's output is no sum of trees and linear functions")
    return result


def _from_inputs(node: Any, given: dict[str, Any], source: Inputs, constants: dict[str, NDArray[Any]]) -> Any:
    match node.op_type:
        case "Imputer":
            return replace(source, fill=np.array(given["imputed_value_floats"].floats, dtype=np.float32))
        case "Scaler":
            offset, scale = (np.array(given[name].floats, dtype=np.float32) for name in ("offset", "scale"))
            return replace(source, offset=offset, scale=scale)
        case "ArrayFeatureExtractor" if source.fill is None and source.scale is None:
            return Inputs(source.columns[constants[node.input[1]].astype(np.int64).ravel()])
        case "TreeEnsembleClassifier" | "TreeEnsembleRegressor":
            return [(1.0, _trees(given, source))]
        case "LinearClassifier" | "LinearRegressor":
            return [(1.0, _linear(given, source))]
    raise NotAdditiveError(f"its step {node.op_type} is unknown here")


def _from_parts(
    node: Any, source: list[tuple[float, Part]], known: dict[str, Any], constants: dict[str, NDArray[Any]]
) -> Any:
    match node.op_type:
        case "Mul" if node.input[1] in constants:
            factor = float(constants[node.input[1]].item())
            return [(factor * weight, part) for weight, part in source]
        case "Sum":
            return [pair for name in node.input for pair in known[name]]
        case "Flatten" | "Reshape" | "Identity" | "Cast":
            return source
        case "Normalizer" if all(part.link == "SOFTMAX" for _, part in source):
            return source  # probabilities sum to 1 already
        case "ArgMax":
            return None
    raise NotAdditiveError(f"its step {node.op_type} is unknown here")


def _trees(given: dict[str, Any], inputs: Inputs) -> Trees:
    kind = "class" if "class_ids" in given else "target"
    if set(given["nodes_modes"].strings) > {b"BRANCH_LEQ", b"LEAF"} or "aggregate_function" in given:
        raise NotAdditiveError("its trees have splits of another kind")
    trees, ids = (np.array(given[f"nodes_{name}ids"].ints) for name in ("tree", "node"))
    stride = int(ids.max()) + 1
    place = np.full((int(trees.max()) + 1) * stride, -1)
    place[trees * stride + ids] = np.arange(len(trees))
    leaf = np.array([mode == b"LEAF" for mode in given["nodes_modes"].strings])
    children = np.stack(
        [place[trees * stride + np.array(given[f"nodes_{side}nodeids"].ints)] for side in ("true", "false")], axis=1
    )
    children[leaf] = -1
    outputs = np.array(given[f"{kind}_ids"].ints)
    weights = np.zeros((len(trees), int(outputs.max()) + 1))
    leaves = place[np.array(given[f"{kind}_treeids"].ints) * stride + np.array(given[f"{kind}_nodeids"].ints)]
    np.add.at(weights, (leaves, outputs), np.array(given[f"{kind}_weights"].floats))
    missing = given.get("nodes_missing_value_tracks_true")
    return Trees(
        inputs=inputs,
        roots=np.flatnonzero(np.r_[True, trees[1:] != trees[:-1]]),
        feature=np.array(given["nodes_featureids"].ints),
        threshold=np.array(given["nodes_values"].floats, dtype=np.float32),
        missing_true=np.zeros(len(trees), dtype=bool) if missing is None else np.array(missing.ints, dtype=bool),
        children=children,
        weights=weights,
        base=np.array(given["base_values"].floats) if "base_values" in given else np.zeros(weights.shape[1]),
        link=_link(given),
    )


def _linear(given: dict[str, Any], inputs: Inputs) -> Linear:
    base = np.array(given["intercepts"].floats) if "intercepts" in given else np.zeros(1)
    coefficients = np.array(given["coefficients"].floats).reshape(len(base), -1)
    return Linear(inputs, coefficients, base, _link(given))


def _link(given: dict[str, Any]) -> Link:
    name = given["post_transform"].s.decode() if "post_transform" in given else "NONE"
    if name not in ("NONE", "LOGISTIC", "SOFTMAX"):
        raise NotAdditiveError(f"its scores are made by {name}, which is unknown here")
    return cast("Link", name)


def _array(tensor: Any) -> NDArray[Any]:
    kinds = {1: (np.float32, tensor.float_data), 6: (np.int32, tensor.int32_data), 7: (np.int64, tensor.int64_data)}
    if tensor.data_type not in kinds:
        return np.zeros(0)
    dtype, data = kinds[tensor.data_type]
    return np.frombuffer(tensor.raw_data, dtype=dtype) if tensor.raw_data else np.array(data, dtype=dtype)


_FIELDS: dict[str, dict[str, tuple[int, str]]] = {
    "Tensor": {
        "dims": (1, "int64*"), "data_type": (2, "int32"), "float_data": (4, "float*"), "int32_data": (5, "int32*"),
        "int64_data": (7, "int64*"), "name": (8, "string"), "raw_data": (9, "bytes"),
    },
    "Attribute": {
        "name": (1, "string"), "f": (2, "float"), "i": (3, "int64"), "s": (4, "bytes"),
        "floats": (7, "float*"), "ints": (8, "int64*"), "strings": (9, "bytes*"),
    },
    "Value": {"name": (1, "string")},
    "Node": {
        "input": (1, "string*"), "output": (2, "string*"), "op_type": (4, "string"), "attribute": (5, "Attribute*"),
    },
    "Graph": {"node": (1, "Node*"), "initializer": (5, "Tensor*"), "input": (11, "Value*"), "output": (12, "Value*")},
    "Model": {"graph": (7, "Graph")},
}  # fmt: skip
"""Field numbers and types; * is repeated."""


@cache
def _message() -> Any:
    """The class of a model's message."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # 5 % of a start; only this needs it

    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="atlas_onnx.proto", package="atlas_onnx", syntax="proto2")
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for label, (number, kind) in fields.items():
            repeated, plain = kind.endswith("*"), kind.removesuffix("*")
            made = message.field.add(name=label, number=number)
            made.label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
            if plain in _FIELDS:
                made.MergeFrom(field(type=field.TYPE_MESSAGE, type_name=f".atlas_onnx.{plain}"))
            else:
                made.type = getattr(field, f"TYPE_{plain.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("atlas_onnx.Model"))
