"""MLflow: the one module that talks to it."""

import json
import logging
import os
import subprocess
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from base64 import b64encode
from dataclasses import dataclass
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any, Literal

import yaml

from ml.bundle import Card, Parts
from ml.params import Params

STORE = Path(".atlas/mlflow")
TIMEOUT = 10
"""Seconds that a server may take to answer the probe."""
TOKEN = "CAPSTONE_TEST"  # noqa: S105 - the variable's name
"""Environment variable with the server's token, as DagsHub gives it: user name and password at once."""


class TrackingError(Exception):
    """A tracking server that can't be used; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Server:
    """A tracking server, as far as a probe tells."""

    uri: str
    explicit: bool
    """Named by MLFLOW_TRACKING_URI."""
    registry: bool
    """Has model registry endpoints."""


def tracking_uri() -> tuple[str, bool]:
    """The server's address, and whether the environment named it; otherwise SQLite in .atlas/mlflow."""
    named = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    return (named, True) if named else (f"sqlite:///{STORE.resolve()}/mlflow.db", False)


def use_token() -> None:
    """Let MLflow's client send the token as basic authentication, unless a user name was given already."""
    token = os.environ.get(TOKEN)
    if token and "MLFLOW_TRACKING_USERNAME" not in os.environ:
        os.environ["MLFLOW_TRACKING_USERNAME"] = token
        os.environ["MLFLOW_TRACKING_PASSWORD"] = token


def probe(log: logging.Logger) -> Server:
    """Ask the server whether it is there and has a registry; cheap, and without importing MLflow.

    Raises TrackingError when it doesn't answer or refuses the token.
    """
    uri, explicit = tracking_uri()
    if not uri.startswith(("http://", "https://")):
        return Server(uri, explicit, registry=True)
    try:
        _get(uri, "registered-models/search", max_results="1")
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            raise TrackingError(
                f"the MLflow server {uri} refuses the credentials ({error.code}): set {TOKEN}"
            ) from None
        if error.code in (404, 405, 501):
            log.warning("%s has no model registry: the run keeps the bundle as artifacts, without champion", uri)
            return Server(uri, explicit, registry=False)
        raise TrackingError(f"the MLflow server {uri} answers {error.code} {error.reason}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise TrackingError(f"the MLflow server {uri} can't be reached ({reason})") from None
    return Server(uri, explicit, registry=True)


def champion_version(server: Server, name: str) -> str | None:
    """The bundle version of the registry's champion over REST; None without one. Only for http(s) servers."""
    try:
        answer = _get(server.uri, "registered-models/alias", name=name, alias="champion")
    except urllib.error.HTTPError as error:
        if error.code in (400, 404):
            return None
        raise TrackingError(f"the MLflow server {server.uri} answers {error.code} {error.reason}") from None
    tags = {tag["key"]: tag["value"] for tag in answer.get("model_version", {}).get("tags", [])}
    return tags.get("bundle_version")


def _get(uri: str, path: str, **query: str) -> dict[str, Any]:
    user = os.environ.get("MLFLOW_TRACKING_USERNAME") or os.environ.get(TOKEN) or ""
    password = os.environ.get("MLFLOW_TRACKING_PASSWORD") or os.environ.get(TOKEN) or ""
    address = f"{uri.rstrip('/')}/api/2.0/mlflow/{path}?{urllib.parse.urlencode(query)}"
    request = urllib.request.Request(address)  # noqa: S310 - http(s) only, checked by the caller
    if user:
        request.add_header("Authorization", "Basic " + b64encode(f"{user}:{password}".encode()).decode())
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:  # noqa: S310
        answer: dict[str, Any] = json.load(response)
        return answer


def register(
    server: Server, bundle: Path, version: str, parts: Parts, alias: Literal["champion", "challenger"], params: Params
) -> str:
    """Log the run and, where there is a registry, the model version under its alias; returns the run's id.

    A model version of the same bundle is not made twice: it only gets the alias.
    Raises TrackingError when the server fails half-way; running again is safe.
    """
    use_token()
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    import mlflow
    from mlflow.exceptions import MlflowException

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    if not server.explicit:
        STORE.mkdir(parents=True, exist_ok=True)
    mlflow.set_tracking_uri(server.uri)
    mlflow.set_registry_uri(server.uri)
    client = mlflow.MlflowClient()
    try:
        if server.registry:
            existing = _existing(client, params.registry.model, version)
            if existing is not None:
                client.set_registered_model_alias(params.registry.model, alias, existing.version)
                return str(existing.run_id)
        _use_experiment(client, params.registry.experiment, server)
        with mlflow.start_run(run_name=version[:12]) as run:
            _log_run(mlflow, bundle, version, parts, params)
            if server.registry:
                _log_model(mlflow, bundle, parts)
                _add_version(client, run.info.run_id, params.registry.model, version, alias)
            else:
                mlflow.log_artifacts(str(bundle), "bundle")
            return str(run.info.run_id)
    except (MlflowException, OSError) as error:
        raise TrackingError(f"MLflow at {server.uri}: {' '.join(str(error).split())[:400]}") from error


def _use_experiment(client: Any, name: str, server: Server) -> None:
    import mlflow

    if client.get_experiment_by_name(name) is None:
        # A server keeps artifacts where it is told to; the local store keeps them beside its database.
        location = None if server.explicit else (STORE / "artifacts").resolve().as_uri()
        client.create_experiment(name, artifact_location=location)
    mlflow.set_experiment(name)


def _log_run(mlflow: Any, bundle: Path, version: str, parts: Parts, params: Params) -> None:
    flat = _flatten(params.model_dump(mode="json"))
    mlflow.log_params({key: str(value)[:500] for key, value in flat.items()})
    for prefix, metrics in (("test", parts.card.metrics), ("test_without_live", parts.card.without_live)):
        for name, figure in metrics.items():
            mlflow.log_metric(f"{prefix}.{name}", figure.value)
            if figure.low is not None and figure.high is not None:
                mlflow.log_metrics({f"{prefix}.{name}.low": figure.low, f"{prefix}.{name}.high": figure.high})
    mlflow.set_tags({"bundle_version": version, "git_commit": git_commit(), **data_versions()})
    if Path("reports/plots").is_dir():
        mlflow.log_artifacts("reports/plots", "plots")
    for name, figure in _draw(parts.card).items():
        mlflow.log_figure(figure, f"plots/{name}.png")
    mlflow.log_artifact(str(bundle / "card.json"))


def _log_model(mlflow: Any, bundle: Path, parts: Parts) -> None:
    import pandas as pd

    from ml.bundle import load_bundle
    from ml.tables import to_columns

    # Missing values would make MLflow infer a type per row: numbers are floats, all else is text.
    kinds = {feature.name: feature.type for feature in parts.schema.features}
    example = pd.DataFrame(list(parts.reference.sample[:5])).astype(
        {name: "float64" if kind in ("numeric", "boolean") else object for name, kind in kinds.items()}
    )
    loaded = load_bundle(bundle)
    answer = pd.DataFrame({"prediction": loaded.decide(loaded.scores(to_columns(example, parts.schema)))})
    needs = ["numpy", "pandas", "pydantic", "onnxruntime" if parts.runtime == "onnx" else "scikit-learn"]
    # The serving copy alone: `evaluated/` is the gate's business.
    with tempfile.TemporaryDirectory() as folder:
        serving = Path(folder, "bundle")
        serving.mkdir()
        for file in bundle.iterdir():
            if file.is_file():
                (serving / file.name).write_bytes(file.read_bytes())
        mlflow.pyfunc.log_model(
            name="model",
            python_model=str(Path(__file__).with_name("pyfunc_model.py")),
            artifacts={"bundle": str(serving)},
            code_paths=[str(Path(__file__).parent)],
            signature=mlflow.models.infer_signature(example, answer),
            input_example=example,
            pip_requirements=[f"{name}=={installed(name)}" for name in needs],
        )


def _existing(client: Any, name: str, version: str) -> Any | None:
    found = client.search_model_versions(f"name = '{name}'")
    return next((one for one in found if one.tags.get("bundle_version") == version), None)


def _add_version(client: Any, run_id: str, name: str, version: str, alias: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    logged = client.get_run(run_id).outputs.model_outputs[0]
    made = client.create_model_version(
        name, f"models:/{logged.model_id}", run_id, model_id=logged.model_id, tags={"bundle_version": version}
    )
    client.set_registered_model_alias(name, alias, made.version)


def git_commit() -> str:
    """The commit that the working tree is based on, with `-dirty` when it was changed since; `none` outside git."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--abbrev=40", "--dirty"], capture_output=True, text=True, check=False
    )
    return commit.stdout.strip() or "none"


def data_versions() -> dict[str, str]:
    """DVC's hashes of the raw and processed tables, from dvc.lock."""
    try:
        lock = yaml.safe_load(Path("dvc.lock").read_text())
    except FileNotFoundError:
        return {}
    outs = [out for stage in lock.get("stages", {}).values() for out in stage.get("outs", [])]
    wanted = {"data/raw/table.parquet": "data_version", "data/processed": "processed_version"}
    return {wanted[out["path"]]: str(out["md5"]) for out in outs if out["path"] in wanted}


def _flatten(document: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in document.items():
        if isinstance(value, dict) and value:
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _draw(card: Card) -> dict[str, Any]:
    """The card's curves as matplotlib figures."""
    from matplotlib.figure import Figure

    axes = {
        "roc": ("false positive rate", "true positive rate"),
        "precision_recall": ("recall", "precision"),
        "calibration": ("predicted probability", "observed share"),
        "residuals": ("predicted", "actual minus predicted"),
    }
    drawn = {}
    for name, points in card.curves.items():
        figure = Figure(figsize=(5, 4), layout="constrained")
        axis = figure.subplots()
        x, y = zip(*points, strict=True)
        axis.plot(x, y, "." if name == "residuals" else "-" if name != "calibration" else "o-")
        axis.set(xlabel=axes[name][0], ylabel=axes[name][1], title=name.replace("_", " "))
        drawn[name] = figure
    if card.importance:
        top = list(card.importance.items())[:20][::-1]
        figure = Figure(figsize=(6, 6), layout="constrained")
        axis = figure.subplots()
        axis.barh([name for name, _ in top], [loss for _, loss in top])
        axis.set(xlabel="loss when shuffled", title="importance")
        drawn["importance"] = figure
    return drawn
