"""The servers that serving.py compares: their pinned environments, their commands, and the documents they read."""

import csv
import json
import os
import random
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml.bundle import read_parts
from ml.schema import Feature

HERE = Path(__file__).parent
FOLDER = HERE.parents[1] / ".atlas/benchmarks/serving"
SCIKIT = ("scikit-learn==1.9.1", "pandas==3.1.1", "joblib==1.6.0")
TRAINING_ROWS = 20_000


@dataclass(frozen=True, slots=True)
class Server:
    """A way to serve; `{port}`, `{workers}` and `{bin}` stand in its command."""

    title: str
    packages: tuple[str, ...]
    command: str
    path: str = "/predict"
    document: str = "rows"
    """rows: {"rows": [{…}]}; split: MLflow's {"dataframe_split": …}; tensors: a tensor a column, for MLServer."""
    model: bool = True
    requirements: str = ""
    """A file of requirements, instead of `packages`; the server runs in the repository."""


GUNICORN = (
    "{bin}/gunicorn --workers {workers} --worker-class gthread --threads 4 --bind 127.0.0.1:{port} --log-level error"
)
SERVERS = {
    "bare": Server("bare Flask route, gunicorn gthread", ("flask==3.1.3", "gunicorn==26.2.0"),
                   GUNICORN + " serving_peers:bare()", model=False),
    "bare-granian": Server("bare Flask route, granian", ("flask==3.1.3", "granian==2.8.9"),
                           "{bin}/granian --workers {workers} --interface wsgi --port {port} --no-ws --log-level error "
                           "--factory serving_peers:bare",
                           model=False),
    "atlas": Server("Atlas", (), "{bin}/python -m service", requirements="requirements/service.txt"),
    "mlflow": Server("`mlflow models serve`", ("mlflow==3.17.2", *SCIKIT),
                     "{bin}/mlflow models serve -m mlflow --env-manager local --workers {workers} --port {port}",
                     path="/invocations", document="split"),
    "mlserver": Server("MLServer", ("mlserver==1.7.1", "mlserver-sklearn==1.7.1", *SCIKIT), "{bin}/mlserver start .",
                       path="/v2/models/peer/infer", document="tensors"),
    "bentoml": Server("BentoML", ("bentoml==1.4.40", *SCIKIT),
                      "{bin}/bentoml serve bento:Peer --host 127.0.0.1 --port {port}"),
    "fastapi": Server("FastAPI, pandas", ("fastapi==0.165.0", "uvicorn[standard]==0.54.0", *SCIKIT),
                      "{bin}/uvicorn --workers {workers} --factory serving_peers:fastapi_pandas --port {port} "
                      "--log-level error"),
    "flask": Server("Flask on gunicorn, pandas", ("flask==3.1.3", "gunicorn==26.2.0", *SCIKIT),
                    GUNICORN + " serving_peers:flask_pandas()"),
    "onnx": Server("Flask on granian, pipeline compiled to ONNX",
                   ("flask==3.1.3", "granian==2.8.9", "onnxruntime==1.32.0", "skl2onnx==1.20.0", "protobuf==6.33.6",
                    *SCIKIT),
                   "{bin}/granian --workers {workers} --interface wsgi --port {port} --no-ws --log-level error "
                   "--factory serving_peers:flask_onnx"),
}  # fmt: skip


def value_of(feature: Feature, draw: random.Random) -> Any:
    """A plausible value."""
    if feature.categories:
        return draw.choice(feature.categories)
    if feature.type == "numeric" and feature.low is not None and feature.high is not None:
        value = draw.uniform(feature.low, feature.high)
        return round(value) if feature.integer else round(value, 2)
    return feature.example


def rows_of(bundle: Path, number: int) -> list[dict[str, Any]]:
    """Rows of a request, with all inputs."""
    draw = random.Random(7)
    features = read_parts(bundle)[1].schema.features
    return [{feature.name: value_of(feature, draw) for feature in features} for _ in range(number)]


def body_of(server: Server, rows: list[dict[str, Any]]) -> bytes:
    """The request's document in the server's protocol."""
    if server.document == "split":
        columns = list(rows[0])
        return json.dumps(
            {"dataframe_split": {"columns": columns, "data": [[row[name] for name in columns] for row in rows]}}
        ).encode()
    if server.document == "tensors":
        inputs = [tensor(name, [row[name] for row in rows]) for name in rows[0]]
        wanted = [{"name": "predict_proba"}]
        return json.dumps({"parameters": {"content_type": "pd"}, "inputs": inputs, "outputs": wanted}).encode()
    return json.dumps({"rows": rows}).encode()


def tensor(name: str, values: list[Any]) -> dict[str, Any]:
    """A column as a tensor of numbers or texts."""
    kind: dict[str, Any] = {"datatype": "FP64"}
    if isinstance(values[0], str):
        kind = {"datatype": "BYTES", "parameters": {"content_type": "str"}}
    return {"name": name, "shape": [len(values)], "data": values, **kind}


def environment(name: str, server: Server, bundle: Path) -> Path:
    """The folder of the server's environment, made and with a fitted model if it isn't there."""
    folder = FOLDER / name
    python = folder / "environment/bin/python"
    if (folder / "made").exists():
        return folder
    uv = Path(sys.executable).with_name("uv")
    packages = ["--requirement", HERE.parents[1] / server.requirements] if server.requirements else server.packages
    subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, python.parents[1]], check=True)
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, *packages], check=True)
    shutil.copy(HERE / "serving_peers.py", folder)
    if server.model and not server.requirements:
        rows = rows_of(bundle, TRAINING_ROWS)
        with (folder / "rows.csv").open("w") as file:
            writer = csv.writer(file)
            writer.writerow([*rows[0], "target"])
            writer.writerows([*row.values(), random.Random(number).random() < 0.3] for number, row in enumerate(rows))
        alone = {**os.environ, "OMP_NUM_THREADS": "1"}  # on a busy machine, threads wait for each other
        subprocess.run([python, "serving_peers.py", "."], cwd=folder, env=alone, check=True, stdout=subprocess.DEVNULL)
    (folder / "made").touch()
    return folder


def installed(folder: Path) -> float:
    """MB of a server's packages, without Python itself and without bytecode, which a first start writes."""
    (packages,) = folder.glob("environment/lib/python*/site-packages")
    return sum(path.lstat().st_size for path in packages.rglob("*") if path.suffix != ".pyc") / 1e6
