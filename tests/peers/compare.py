"""`make test-peers`: the same rows asked of the service, `mlflow models serve` and MLServer; all answers must be equal.

KServe's client asks the service, too. MLServer and KServe have environments of their own under .atlas/peers.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ml.bundle import write_bundle
from ml.tracking import _log_model
from tests.bundles import EXAMPLE, Kind, make_parts

REPOSITORY = Path(__file__).parents[2]
HOME = REPOSITORY / ".atlas/peers"
PATIENCE = 180
"""Seconds until a server must answer."""
ROWS = [
    EXAMPLE,
    EXAMPLE | {"amount": 490.0, "colour": "blue", "member": False, "note": "thanks"},
    EXAMPLE | {"amount": 7.25, "visits": 9.0, "shop": "south", "bought": "2024-06-30T00:00:00"},
]
KSERVE = """
import asyncio, json, sys
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

async def main(base, name, rows):
    first = InferenceRESTClient(RESTConfig(protocol="v1"))
    second = InferenceRESTClient(RESTConfig(protocol="v2"))
    told = await first.infer(base, {"instances": rows}, model_name=name)
    kinds = {str: "BYTES", bool: "BOOL"}
    inputs = [
        InferInput(key, [len(rows)], kinds.get(type(value), "FP64"), [row[key] for row in rows])
        for key, value in rows[0].items()
    ]
    answer = await second.infer(base, InferRequest(name, inputs), model_name=name)
    ready = [await client.is_model_ready(base, name) for client in (first, second)]
    outputs = {output.name: output.as_numpy().tolist() for output in answer.outputs}
    print(json.dumps({"first": told["predictions"], "second": outputs, "ready": ready}))

asyncio.run(main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3])))
"""


def environment(name: str) -> Path:
    """The Python of the peer's environment, which is made if it isn't there."""
    wanted = (REPOSITORY / f"tests/peers/{name}.txt").read_text()
    folder, stamp = HOME / name, HOME / name / "installed.txt"
    python = folder / "bin/python"
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"== environment of {name}", flush=True)
        uv = str(Path(sys.executable).with_name("uv"))
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)], check=True)
        requirements = str(REPOSITORY / f"tests/peers/{name}.txt")
        subprocess.run([uv, "pip", "install", "--quiet", "--python", str(python), "-r", requirements], check=True)
        stamp.write_text(wanted)
    return python


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def server(command: list[str], ready: str, **settings: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A server process, which answers at the address `ready`; stopped at the end."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, cwd=REPOSITORY, env=os.environ | settings, stdout=log, stderr=log, start_new_session=True
        )
        try:
            end = time.monotonic() + PATIENCE
            while not answers(ready):
                if process.poll() is not None or time.monotonic() > end:
                    log.seek(0)
                    raise SystemExit(f"{command[0]} doesn't answer at {ready}:\n{log.read()[-3000:].decode()}")
                time.sleep(0.2)  # peers tell nobody when they are ready: they are asked
            yield process
        finally:
            os.killpg(process.pid, 15)
            process.wait(30)


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def post(address: str, document: Any) -> Any:
    request = urllib.request.Request(address, json.dumps(document).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        raise SystemExit(f"{address} answers {error.code}: {error.read()[-2000:].decode()}") from None


def tensors(rows: list[dict[str, Any]], **parameters: str) -> dict[str, Any]:
    """The rows for /v2/…/infer."""
    kinds = {str: "BYTES", bool: "BOOL"}
    inputs = [
        {
            "name": name,
            "datatype": kinds.get(type(value), "FP64"),
            "shape": [len(rows)],
            "data": [row[name] for row in rows],
            # Without this, MLServer hands bytes to the model.
            **({"parameters": {"content_type": "str"}} if isinstance(value, str) else {}),
        }
        for name, value in EXAMPLE.items()
    ]
    return {"inputs": inputs, **({"parameters": parameters} if parameters else {})}


def make_models(folder: Path, kind: Kind) -> tuple[Path, Path]:
    """A bundle, and the same as the MLflow model that the pipeline registers."""
    import mlflow

    parts = make_parts(kind)
    # Labels are whole numbers, because MLServer can't answer a column of texts (KeyError: 'O').
    classes = tuple(str(place) for place, _ in enumerate(parts.schema.classes))
    parts = replace(parts, schema=parts.schema.model_copy(update={"labels": "integer", "classes": classes}))
    write_bundle(folder / "bundle", parts)
    log = SimpleNamespace(pyfunc=mlflow.pyfunc, log_artifacts=lambda made, name: shutil.copytree(made, folder / name))
    _log_model(log, folder / "bundle", parts, logged_model=False)
    return folder / "bundle", folder / "model"


def compare(kind: Kind, folder: Path) -> list[str]:
    """What differs between the peers for a bundle of this kind."""
    bundle, model = make_models(folder, kind)
    name, base = f"small-{kind}", "http://127.0.0.1"
    own, mlflow_port, mlserver_port = free_port(), free_port(), free_port()
    mlserver, kserve = environment("mlserver"), environment("kserve")
    settings = {"name": name, "implementation": "mlserver_mlflow.MLflowRuntime", "parameters": {"uri": str(model)}}
    (folder / "model-settings.json").write_text(json.dumps(settings))
    ports = {"http_port": mlserver_port, "grpc_port": free_port(), "metrics_port": free_port(), "parallel_workers": 0}
    (folder / "settings.json").write_text(json.dumps({"host": "127.0.0.1", **ports}))
    python = sys.executable
    serve = [python, "-m", "mlflow", "models", "serve", "-m", str(model), "--env-manager", "local", "-w", "1"]
    with ExitStack() as running:
        for command, ready, variables in (
            ([python, "-m", "service"], f"{base}:{own}/ping", {"MODEL_URI": str(bundle), "PORT": str(own)}),
            ([*serve, "-p", str(mlflow_port)], f"{base}:{mlflow_port}/ping", {}),
            (
                [str(mlserver.with_name("mlserver")), "start", str(folder)],
                f"{base}:{mlserver_port}/v2/models/{name}/ready",
                {"PYTHONPATH": str(REPOSITORY)},
            ),
        ):
            running.enter_context(server(command, ready, **variables))
        found: dict[str, Any] = {}
        documents = {
            "dataframe_records": {"dataframe_records": ROWS},
            "dataframe_split": {"dataframe_split": {"columns": [*EXAMPLE], "data": [[*row.values()] for row in ROWS]}},
            "inputs": {"inputs": {key: [row[key] for row in ROWS] for key in EXAMPLE}},
        }
        for form, document in documents.items():
            found[f"service, {form}"] = post(f"{base}:{own}/invocations", document)["predictions"]
            found[f"mlflow, {form}"] = post(f"{base}:{mlflow_port}/invocations", document)["predictions"]
        answer = post(f"{base}:{mlserver_port}/v2/models/{name}/infer", tensors(ROWS, content_type="pd"))
        columns = {output["name"]: output["data"] for output in answer["outputs"]}
        found["MLServer"] = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        told = json.loads(
            subprocess.run(
                [str(kserve), "-c", KSERVE, f"{base}:{own}", name, json.dumps(ROWS)],
                check=True, capture_output=True, text=True,
            ).stdout
        )  # fmt: skip
    found["KServe's client, V1"] = told["first"]
    wanted = found["service, dataframe_records"]
    labels, probabilities = told["second"]["prediction"], told["second"].get("probabilities", [])
    if labels != [row["prediction"] for row in wanted] or told["ready"] != [True] * 2:
        found["KServe's client, V2"] = told
    if probabilities and probabilities != [[row[key] for key in row if key != "prediction"] for row in wanted]:
        found["KServe's client, V2"] = told
    return [f"{kind}: {peer} answers {answer}, not {wanted}" for peer, answer in found.items() if answer != wanted]


def main() -> int:
    """Compare for each kind of target; 1 when an answer differs."""
    differences = []
    for kind in ("binary", "multiclass", "regression"):
        with tempfile.TemporaryDirectory() as folder:
            found = compare(kind, Path(folder))
            print(f"{kind}: {'equal answers' if not found else f'{len(found)} differ'}", flush=True)
            differences += found
    print("\n".join(differences))
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
