"""Small bundles whose answers a test can compute by hand."""

from typing import Any

from onnx import TensorProto, helper

from ml.bundle import Parts
from ml.card import Card, Distribution, Reference
from ml.decision import Decision
from ml.encoding import Encoding, NumericEncoder
from ml.schema import Feature, Schema


def logistic_graph(x: float, interaction: float) -> bytes:
    """P(yes) = 1 / (1 + exp(-(x * x0 + interaction * x0 * x1))), as a classifier's two columns."""
    number = TensorProto.FLOAT
    constants = [
        helper.make_tensor("weights", number, [1, 2], [x, interaction]),
        helper.make_tensor("axis", TensorProto.INT64, [1], [1]),
        *(helper.make_tensor(f"at{i}", TensorProto.INT64, [1], [i]) for i in range(3)),
    ]
    nodes = [
        helper.make_node("Slice", ["features", "at0", "at1", "axis"], ["x0"]),
        helper.make_node("Slice", ["features", "at1", "at2", "axis"], ["x1"]),
        helper.make_node("Mul", ["x0", "x1"], ["product"]),
        helper.make_node("Concat", ["x0", "product"], ["terms"], axis=1),
        helper.make_node("Mul", ["terms", "weights"], ["weighted"]),
        helper.make_node("ReduceSum", ["weighted", "axis"], ["logit"], keepdims=1),
        helper.make_node("Sigmoid", ["logit"], ["yes"]),
        helper.make_node("Neg", ["logit"], ["minus"]),
        helper.make_node("Sigmoid", ["minus"], ["no"]),
        helper.make_node("Concat", ["no", "yes"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "logistic",
        [helper.make_tensor_value_info("features", number, [None, 2])],
        [helper.make_tensor_value_info("probabilities", number, [None, 2])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def logistic_parts(x: float = 1.0, interaction: float = 0.0, **changes: Any) -> Parts:
    """A binary bundle on the features `x` and `member`; `changes` replace parts."""
    features = (
        Feature(name="x", type="numeric", required=True, minimum=-1000, maximum=1000, low=-3, high=3, example=0.5),
        Feature(name="member", type="boolean", example=True),
    )
    given: dict[str, Any] = {
        "name": "logistic",
        "runtime": "onnx",
        "model": logistic_graph(x, interaction),
        "schema": Schema(target="y", task="binary", classes=("no", "yes"), features=features),
        "encoding": Encoding(encoders=(NumericEncoder(column="x"), NumericEncoder(column="member"))),
        "decision": Decision(threshold=0.5),
        "reference": Reference(
            rows=2, features={}, scores=Distribution(missing=0), sample=({"x": 0.5, "member": True},)
        ),
        "card": Card(name="logistic", task="binary", target="y"),
    }
    return Parts(**given | changes)
