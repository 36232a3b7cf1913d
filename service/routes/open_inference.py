"""/v2: the Open Inference Protocol with Triton's extensions, so that KServe and Triton clients work unchanged."""

import re
from typing import Any

import flask
import msgspec
import numpy as np

from service.bodies import check_type, compress, parse_json, read_as, read_body
from service.errors import ApiError
from service.protocols import BinaryInferRequest, InferRequest, InferResponse
from service.routes.shared import answer_columns, check_model, documents, predictor
from service.state import state
from service.statistics import model_statistics
from service.tensors import DATATYPES, HEADER_LENGTH, outputs_of, read_columns, wanted_outputs, write_output
from service.typed_tensors import Decoded
from service.usual import Column

blueprint = flask.Blueprint("open_inference", __name__, url_prefix="/v2")
blueprint.after_request(compress)

EXTENSIONS = ["binary_tensor_data", "classification", "model_configuration", "model_repository", "statistics"]


@blueprint.get("")
def server() -> dict[str, Any]:
    """Server metadata."""
    return {"name": "atlas", "version": "2", "extensions": EXTENSIONS}


@blueprint.get("/health/live")
def live() -> dict[str, bool]:
    """The process answers."""
    return {"live": True}


@blueprint.get("/health/ready")
def ready() -> dict[str, bool]:
    """The model can predict; 503 otherwise."""
    predictor()
    return {"ready": True}


@blueprint.post("/repository/index")
def index() -> flask.Response:
    """The models: this one."""
    bundle = predictor().bundle
    return flask.jsonify([{"name": bundle.name, "version": bundle.version, "state": "READY", "reason": ""}])


@blueprint.post("/repository/models/<name>/load")
@blueprint.post("/repository/models/<name>/unload")
def load(name: str) -> flask.Response:
    """Always refused: a caller can't choose the model."""
    _check(name, None)
    raise ApiError(400, "fixed_model", "callers can't load or unload models: MODEL_URI says which model is served")


@blueprint.get("/models/stats")
@blueprint.get("/models/<name>/stats")
@blueprint.get("/models/<name>/versions/<version>/stats")
def stats(name: str | None = None, version: str | None = None) -> dict[str, Any]:
    """Requests, rows and times of all workers since the start, in Triton's form."""
    bundle = predictor().bundle
    _check(name or bundle.name, version)
    text, _ = state().metrics.exposition(None)
    return {"model_stats": [{"name": bundle.name, "version": bundle.version, **model_statistics(text)}]}


@blueprint.get("/models/<name>")
@blueprint.get("/models/<name>/versions/<version>")
def model(name: str, version: str | None = None) -> dict[str, Any]:
    """Model metadata: one tensor of shape [rows] per feature."""
    _check(name, version)
    schema = predictor().schema
    return {
        "name": name,
        "versions": [predictor().bundle.version],
        "platform": "atlas",
        "inputs": [
            {"name": feature.name, "datatype": DATATYPES[feature.type], "shape": [-1]}
            for feature in predictor().inputs.features
        ],
        "outputs": [
            {"name": output, "datatype": datatype, "shape": shape}
            for output, (datatype, shape) in outputs_of(schema).items()
        ],
    }


@blueprint.get("/models/<name>/config")
@blueprint.get("/models/<name>/versions/<version>/config")
def config(name: str, version: str | None = None) -> dict[str, Any]:
    """The model's configuration in Triton's form: inputs and outputs, and the limit of rows."""
    described = model(name, version)
    tensors = {
        side: [
            {
                "name": tensor["name"],
                "data_type": f"TYPE_{'STRING' if tensor['datatype'] == 'BYTES' else tensor['datatype']}",
                "dims": tensor["shape"],
            }
            for tensor in described[f"{side}s"]
        ]
        for side in ("input", "output")
    }
    return {
        "name": name,
        "platform": described["platform"],
        "backend": "atlas",
        # 0: the dims include the number of rows, and a request is a batch.
        "max_batch_size": 0,
        **tensors,
        "parameters": {"max_rows": {"string_value": str(state().settings.max_rows)}},
    }


@blueprint.get("/models/<name>/ready")
@blueprint.get("/models/<name>/versions/<version>/ready")
def model_ready(name: str, version: str | None = None) -> dict[str, Any]:
    """The model of that name can predict."""
    _check(name, version)
    return {"name": name, "ready": True}


@blueprint.post("/models/<name>/infer")
@blueprint.post("/models/<name>/versions/<version>/infer")
def infer(name: str, version: str | None = None) -> flask.Response:
    """One tensor per feature in, `prediction` and `probabilities` out, as JSON or binary; NaN means missing."""
    _check(name, version)
    request, values, binary = _read()
    loaded = predictor()
    wanted = wanted_outputs(request.outputs, loaded.schema)
    columns = read_columns(request.inputs, binary, loaded.inputs, values)
    _, answers = answer_columns(columns, "missing")
    predictions = [answers.values[winner] for winner in answers.winners] if answers.values else answers.scores
    scores = np.array(answers.scores)
    written = [
        write_output(output, predictions, scores, loaded.schema, binary=request.parameters.binary_data_output)
        for output in wanted
    ]
    response = InferResponse(name, loaded.bundle.version, [tensor for tensor, _ in written], request.id)
    header, content = msgspec.json.encode(response), b"".join(part for _, part in written)
    if not any(tensor.parameters for tensor, _ in written):
        return flask.Response(header, content_type="application/json")
    found = flask.Response(header + content, content_type="application/octet-stream")
    found.headers[HEADER_LENGTH] = str(len(header))
    return found


def _read() -> tuple[InferRequest, list[Column] | None, bytes]:
    """The request, the values of its tensors if they were decoded already, and the binary part of its body."""
    # Triton's client names no type, or application/octet-stream, also for a body that is all JSON.
    check_type("application/json", "application/octet-stream", "")
    body = read_body()
    length = flask.request.headers.get(HEADER_LENGTH)
    size = len(body) if length is None else _size(length, len(body))
    typed = documents().tensors.read(body) if length is None else None
    if typed is None:
        document = parse_json(body[:size], bare_nan=True)
        typed = Decoded(read_as(document, InferRequest if length is None else BinaryInferRequest, "wrong_tensor"), None)
    request, values = typed
    try:
        (request.id or "").encode()
    except UnicodeEncodeError:
        raise ApiError(422, "wrong_id", "id contains half of a surrogate pair, which can't be sent back") from None
    return request, values, body[size:]


def _size(length: str, most: int) -> int:
    """The number of bytes that the caller's header names."""
    if not re.fullmatch(r"[0-9]{1,10}", length) or int(length) > most:
        raise ApiError(400, "wrong_length", f"{HEADER_LENGTH} must be a number up to {most}, the body's length")
    return int(length)


def _check(name: str, version: str | None) -> None:
    check_model(name)
    served = predictor().bundle.version
    if version not in (None, served):
        raise ApiError(404, "no_such_version", f"this service has version {served}")
