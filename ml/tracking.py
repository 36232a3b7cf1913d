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
from ml.store import StoreError, database_of, prepare

Alias = Literal["champion", "challenger"]
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

    @property
    def shown(self) -> str:
        """The address as it may be printed: without the password of a database."""
        parts = urllib.parse.urlsplit(self.uri)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if "@" in parts.netloc else self.uri


def tracking_uri() -> tuple[str, bool]:
    """The server's address, and whether the environment named it; otherwise SQLite in .atlas/mlflow.

    Raises TrackingError when an http(s) address carries a password, which would be printed sooner or later.
    """
    named = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    if named.startswith(("http://", "https://")) and "@" in urllib.parse.urlsplit(named).netloc:
        raise TrackingError(
            "MLFLOW_TRACKING_URI holds credentials: leave them out, and set "
            f"{TOKEN}, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
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
            log.warning("%s has no model registry: the run keeps the model as artifacts, without champion", uri)
            return Server(uri, explicit, registry=False)
        raise TrackingError(f"the MLflow server {uri} answers {error.code} {error.reason}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise TrackingError(f"the MLflow server {uri} can't be reached ({reason})") from None
    return Server(uri, explicit, registry=True)


def version_under(server: Server, name: str, alias: Alias) -> str | None:
    """The bundle version that the registry has under an alias, over REST; None without one. Only for http(s) servers.

    Raises TrackingError when the server fails.
    """
    answer = _get_or_none(server.uri, "registered-models/alias", name=name, alias=alias)
    tags = {tag["key"]: tag["value"] for tag in (answer or {}).get("model_version", {}).get("tags", [])}
    return tags.get("bundle_version")


def still_there(name: str, alias: Alias, version: str, run_id: str, log: logging.Logger) -> bool:
    """Whether the store still has what an earlier run of this stage left there; cheap, and without importing MLflow.

    Raises TrackingError as `probe` does.
    """
    uri, _ = tracking_uri()
    if uri.startswith("sqlite:///"):
        return Path(uri.removeprefix("sqlite:///")).is_file()
    if not uri.startswith(("http://", "https://")):
        return False
    server = probe(log)
    if server.registry:
        return version_under(server, name, alias) == version
    return _get_or_none(uri, "runs/get", run_id=run_id) is not None


def _get_or_none(uri: str, path: str, **query: str) -> dict[str, Any] | None:
    try:
        return _get(uri, path, **query)
    except urllib.error.HTTPError as error:
        if error.code in (400, 404):
            return None
        raise TrackingError(f"the MLflow server {uri} answers {error.code} {error.reason}") from None
    except (OSError, ValueError) as error:
        raise TrackingError(f"the MLflow server {uri} can't be reached ({getattr(error, 'reason', error)})") from None


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
    server: Server, bundle: Path, version: str, parts: Parts, alias: Alias, params: Params, *, made_here: bool = True
) -> str:
    """Log the run and, where there is a registry, the model version under its alias; returns the run's id.

    A bundle that was not made here (the incumbent) is logged without this run's params, plots and data version.
    What the server has of the same bundle already is not made twice: it only gets the alias.
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
    make_store(server.uri)
    mlflow.set_tracking_uri(server.uri)
    mlflow.set_registry_uri(server.uri)
    client = mlflow.MlflowClient()
    name = params.registry.model
    try:
        experiment = _use_experiment(client, params.registry.experiment, server)
        made = _existing_version(client, name, version) if server.registry else None
        if made is not None:
            run_id = str(made.run_id)
        else:
            run_id = _existing_run(client, experiment, version) or ""
            if not run_id:
                with mlflow.start_run(run_name=version[:12]) as run:
                    _log_bundle(mlflow, bundle, version, parts)
                    if made_here:
                        _log_origin(mlflow, params)
                    _log_model(mlflow, bundle, parts)
                run_id = str(run.info.run_id)
            if server.registry:
                made = _add_version(client, run_id, name, version)
        if made is not None:
            _set_alias(client, name, alias, str(made.version))
        return run_id
    except (MlflowException, OSError) as error:
        said = " ".join(str(error).split()).replace(server.uri, server.shown)
        raise TrackingError(f"MLflow at {server.shown}: {said[:400]}") from error


def _use_experiment(client: Any, name: str, server: Server) -> str:
    import mlflow

    if client.get_experiment_by_name(name) is None:
        # A server keeps artifacts where it is told to; the local store keeps them beside its database.
        location = None if server.explicit else (STORE / "artifacts").resolve().as_uri()
        client.create_experiment(name, artifact_location=location)
    return str(mlflow.set_experiment(name).experiment_id)


def make_store(uri: str) -> None:
    """Create the SQLite database that a store's address names, if it names a database that is missing.

    Raises TrackingError when there is an unusable database.
    """
    database = database_of(uri)
    try:
        if database is not None:
            prepare(database)
    except StoreError as error:
        raise TrackingError(str(error)) from None


def has_champion(params: Params) -> bool:
    """Whether the registry that `register` just used has a champion."""
    import mlflow

    return "champion" in mlflow.MlflowClient().get_registered_model(params.registry.model).aliases


def _log_origin(mlflow: Any, params: Params) -> None:
    flat = _flatten(params.model_dump(mode="json"))
    mlflow.log_params({key: str(value)[:500] for key, value in flat.items()})
    mlflow.set_tags({"git_commit": git_commit(), **data_versions()})
    if Path("reports/plots").is_dir():
        mlflow.log_artifacts("reports/plots", "plots")


def _log_bundle(mlflow: Any, bundle: Path, version: str, parts: Parts) -> None:
    for prefix, metrics in (("test", parts.card.metrics), ("test_without_live", parts.card.without_live)):
        for name, figure in metrics.items():
            mlflow.log_metric(f"{prefix}.{name}", figure.value)
            if figure.low is not None and figure.high is not None:
                mlflow.log_metrics({f"{prefix}.{name}.low": figure.low, f"{prefix}.{name}.high": figure.high})
    mlflow.set_tag("bundle_version", version)
    for name, figure in _draw(parts.card).items():
        mlflow.log_figure(figure, f"plots/{name}.png")
    mlflow.log_artifact(str(bundle / "card.json"))


def _log_model(mlflow: Any, bundle: Path, parts: Parts) -> None:
    """The model as the run's artifacts under `model/`, the bundle in `model/artifacts/bundle/`.

    Saved and uploaded as plain files, since `log_model` of MLflow 3 wants an endpoint (`logged-models`) that servers
    of MLflow 2, DagsHub's and Azure's don't have.
    """
    import pandas as pd
    from mlflow.models import ModelSignature, infer_signature
    from mlflow.types.schema import AnyType, ColSpec, Schema, TensorSpec

    from ml.bundle import load_bundle
    from ml.tables import to_columns

    # MLflow refuses whole numbers where it was told of floats, and timestamps where it was told of text; the service
    # takes both, so those columns are open here, and the bundle's own schema casts them.
    anything = AnyType()  # type: ignore[no-untyped-call]
    inputs: list[ColSpec | TensorSpec] = [
        ColSpec("string" if feature.type in ("categorical", "text") else anything, feature.name, feature.required)
        for feature in parts.schema.features
    ]
    example = pd.DataFrame(list(parts.reference.sample[:5]))
    loaded = load_bundle(bundle)
    scores = loaded.scores(to_columns(example, parts.schema))
    answer = pd.DataFrame({"prediction": loaded.decide(scores)})
    for place, label in enumerate(parts.schema.classes):
        answer[f"probability:{label}"] = scores[:, place]
    signature = ModelSignature(Schema(inputs), infer_signature(model_output=answer).outputs)
    needs = ["numpy", "pandas", "pydantic", "onnxruntime" if parts.runtime == "onnx" else "scikit-learn"]
    # The serving copy alone: `evaluated/` is the gate's business.
    with tempfile.TemporaryDirectory() as folder:
        serving = Path(folder, "bundle")
        serving.mkdir()
        for file in bundle.iterdir():
            if file.is_file():
                (serving / file.name).write_bytes(file.read_bytes())
        mlflow.pyfunc.save_model(
            path=str(Path(folder, "model")),
            python_model=str(Path(__file__).with_name("pyfunc_model.py")),
            artifacts={"bundle": str(serving)},
            code_paths=[str(Path(__file__).parent)],
            signature=signature,
            input_example=example,
            pip_requirements=[f"{name}=={installed(name)}" for name in needs],
        )
        mlflow.log_artifacts(str(Path(folder, "model")), "model")


def _existing_version(client: Any, name: str, version: str) -> Any | None:
    found = client.search_model_versions(f"name = '{name}'")
    return next((one for one in found if one.tags.get("bundle_version") == version), None)


def _existing_run(client: Any, experiment: str, version: str) -> str | None:
    """A run that logged this bundle to its end."""
    found = client.search_runs(
        [experiment], f"tags.bundle_version = '{version}' and attributes.status = 'FINISHED'", max_results=1
    )
    return str(found[0].info.run_id) if found else None


def _add_version(client: Any, run_id: str, name: str, version: str) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    source = f"{client.get_run(run_id).info.artifact_uri}/model"
    return client.create_model_version(name, source, run_id, tags={"bundle_version": version})


def _set_alias(client: Any, name: str, alias: Alias, number: str) -> None:
    client.set_registered_model_alias(name, alias, number)
    aliases = client.get_registered_model(name).aliases
    if alias == "champion" and str(aliases.get("challenger")) == number:
        client.delete_registered_model_alias(name, "challenger")  # it challenges no one any more


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
