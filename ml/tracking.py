"""Logs runs, models and their versions to MLflow; only this module uses MLflow's client."""

import json
import logging
import os
import re
import subprocess
import tempfile
import warnings
from contextlib import nullcontext
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import yaml

from ml.bundle import CARD, Parts, read_manifest
from ml.files import PLOTS, PROCESSED, TABLE
from ml.params import PARAMS, Params
from ml.run_facts import draw, flat_params
from ml.store import locked
from ml.tracking_server import (
    Alias,
    Server,
    TrackingError,
    has_logged_models,
    make_store,
    spare_loopback,
    store,
    use_token,
)

TRAINING = {"mlflow.experimentKind": "custom_model_development"}
"""The tag that makes MLflow 3 show an experiment under model training; otherwise it assumes GenAI."""


def register(
    server: Server,
    bundle: Path,
    version: str,
    parts: Parts,
    alias: Alias,
    params: Params,
    *,
    made_here: bool = True,
    accepted: bool = False,
) -> str:
    """Log the run and, if there is a registry, the model version with its alias; returns the run's id.

    A bundle from elsewhere (the incumbent) is logged without this run's params, plots and data version. If the server
    already has a run or version of the same bundle, it isn't created again; it only gets the alias and the newest card.
    `accepted`: the gate refused it, but params.yaml accepts it; the run has the tag `gate_accepted` then.
    Raises TrackingError when the server fails; it is safe to run this again.
    """
    use_token()
    spare_loopback()
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
        # Experiments that run at the same time use the embedded store one after the other.
        with nullcontext() if server.explicit else locked(_artifacts()):
            experiment = _use_experiment(client, params.registry.experiment, server)
            made = _existing_version(client, name, version) if server.registry else None
            run_id = str(made.run_id) if made is not None else _existing_run(client, experiment, version) or ""
            card = read_manifest(bundle).files[CARD]
            if run_id and client.get_run(run_id).data.tags.get("card") != card:
                with mlflow.start_run(run_id=run_id):  # another card of the same bundle, with other figures and plots
                    _log_bundle(mlflow, bundle, version, card, parts)
            if made is None:
                if not run_id:
                    with mlflow.start_run(run_name=_run_name(parts, version, made_here=made_here)) as run:
                        _log_bundle(mlflow, bundle, version, card, parts)
                        if made_here:
                            _log_origin(mlflow, params)
                        _log_model(mlflow, bundle, parts, logged_model=has_logged_models(server, experiment))
                    run_id = str(run.info.run_id)
                if server.registry:
                    made = _add_version(client, run_id, name, version)
            if made is not None:
                _set_alias(client, name, alias, str(made.version))
                client.set_model_version_tag(name, str(made.version), "card", card)
            if accepted:
                client.set_tag(run_id, "gate_accepted", "refused by the gate, accepted in params.yaml (gate.accept)")
            return run_id
    except (MlflowException, OSError) as error:
        said = " ".join(str(error).split()).replace(server.uri, server.shown)
        raise TrackingError(f"MLflow at {server.shown}: {said[:400]}") from error


def _use_experiment(client: Any, name: str, server: Server) -> str:
    import mlflow

    found = client.get_experiment_by_name(name)
    if found is None:
        # A server has its own place for artifacts; the local store keeps them beside its database.
        location = None if server.explicit else _artifacts().as_uri()
        client.create_experiment(name, artifact_location=location, tags=TRAINING)
    else:
        for key, value in TRAINING.items():
            if key not in found.tags:
                client.set_experiment_tag(found.experiment_id, key, value)
    return str(mlflow.set_experiment(name).experiment_id)


def _artifacts() -> Path:
    """The embedded store's folder of artifacts."""
    folder = store() / "artifacts"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _run_name(parts: Parts, version: str, *, made_here: bool) -> str:
    """DVC's name of the experiment, or the kinds of the estimators; and the bundle's version, as the page shows it."""
    estimators = parts.card.model.estimators.values()
    kinds = " + ".join(dict.fromkeys(str(estimator["kind"]) for estimator in estimators)) or parts.name
    return f"{(made_here and os.environ.get('DVC_EXP_NAME')) or kinds} {version[:7]}"


def has_champion(params: Params) -> bool:
    """Whether the registry that `register` just used has a champion."""
    import mlflow

    return "champion" in mlflow.MlflowClient().get_registered_model(params.registry.model).aliases


def _log_origin(mlflow: Any, params: Params) -> None:
    mlflow.log_params(flat_params(params))
    if PARAMS.is_file():
        mlflow.log_artifact(str(PARAMS))  # in keys of MLflow, names of columns may be changed or cut
    mlflow.set_tags({"git_commit": git_commit(), **data_versions()})
    if PLOTS.is_dir():
        mlflow.log_artifacts(str(PLOTS), "plots")


def _log_bundle(mlflow: Any, bundle: Path, version: str, card: str, parts: Parts) -> None:
    for prefix, metrics in (("test", parts.card.metrics), ("test_without_live", parts.card.without_live)):
        for name, figure in metrics.items():
            mlflow.log_metric(f"{prefix}.{name}", figure.value)
            if figure.low is not None and figure.high is not None:
                mlflow.log_metrics({f"{prefix}.{name}.low": figure.low, f"{prefix}.{name}.high": figure.high})
    if (choice := parts.card.model.automatic) is not None:
        losses = {one.name: one.loss for one in choice.tried} | {"chosen": choice.loss}
        known = {f"choice.{name}.{choice.metric}": loss for name, loss in losses.items() if loss is not None}
        mlflow.log_metrics(known)
        mlflow.log_dict(choice.model_dump(mode="json"), "choice.json")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph .* missing from")  # an emoji in a column's name is a box
        for name, figure in draw(parts.card).items():
            mlflow.log_figure(figure, f"plots/{name}.png")
    mlflow.log_artifact(str(bundle / CARD))
    mlflow.set_tags({"bundle_version": version, "card": card})


def _log_model(mlflow: Any, bundle: Path, parts: Parts, *, logged_model: bool) -> None:
    """Log the model with its signature and the run's metrics as a logged model of MLflow 3.

    For a server that has no logged models: as the run's artifacts under `model/`. The bundle is in `artifacts/bundle/`.
    """
    import pandas as pd
    from mlflow.models import ModelSignature, infer_signature
    from mlflow.types.schema import AnyType, ColSpec, Schema, TensorSpec

    from ml.bundle import load_bundle
    from ml.tables import to_columns

    # MLflow refuses what the service accepts: whole numbers if the signature says float, codes if it says text.
    anything = AnyType()  # type: ignore[no-untyped-call]
    inputs: list[ColSpec | TensorSpec] = [
        ColSpec("string" if feature.type == "text" else anything, feature.name, feature.required)
        for feature in parts.schema.features
    ]
    example = pd.DataFrame(list(parts.reference.sample[:5]))
    loaded = load_bundle(bundle)
    scores = loaded.scores(to_columns(example, parts.schema))
    answer = pd.DataFrame({"prediction": loaded.answers(scores)})
    for place, label in enumerate(parts.schema.classes):
        answer[f"probability:{label}"] = scores[:, place]
    signature = ModelSignature(Schema(inputs), infer_signature(model_output=answer).outputs)
    needs = ["numpy", "pandas", "pydantic", "onnxruntime" if parts.runtime == "onnx" else "scikit-learn"]
    # Without `evaluated/`, which only the gate needs.
    with tempfile.TemporaryDirectory() as folder:
        serving = Path(folder, "bundle")
        serving.mkdir()
        for file in bundle.iterdir():
            if file.is_file():
                (serving / file.name).write_bytes(file.read_bytes())
        model = {
            "python_model": str(Path(__file__).with_name("pyfunc_model.py")),
            "artifacts": {"bundle": str(serving)},
            "code_paths": [str(Path(__file__).parent)],
            "signature": signature,
            "input_example": example,
            "pip_requirements": [f"{name}=={installed(name)}" for name in needs],
        }
        if logged_model:
            # MLflow refuses these characters in the name of a logged model.
            mlflow.pyfunc.log_model(name=re.sub(r"[/:.%\"']", "-", parts.name), **model)
        else:
            mlflow.pyfunc.save_model(path=str(Path(folder, "model")), **model)
            mlflow.log_artifacts(str(Path(folder, "model")), "model")


def _existing_version(client: Any, name: str, version: str) -> Any | None:
    found = client.search_model_versions(f"name = '{name}'")
    return next((one for one in found if one.tags.get("bundle_version") == version), None)


def _existing_run(client: Any, experiment: str, version: str) -> str | None:
    """A finished run that logged this bundle."""
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
    tags = {"bundle_version": version}
    run = client.get_run(run_id)
    if not run.outputs or not run.outputs.model_outputs:
        return client.create_model_version(name, f"{run.info.artifact_uri}/model", run_id, tags=tags)
    model_id = run.outputs.model_outputs[0].model_id
    made = client.create_model_version(name, f"models:/{model_id}", run_id, tags=tags, model_id=model_id)
    # By this tag the page of the logged model names its versions.
    versions = [{"name": name, "version": str(made.version)}]
    client.set_logged_model_tags(model_id, {"mlflow.modelVersions": json.dumps(versions)})
    return made


def _set_alias(client: Any, name: str, alias: Alias, number: str) -> None:
    client.set_registered_model_alias(name, alias, number)
    aliases = client.get_registered_model(name).aliases
    if alias == "champion" and str(aliases.get("challenger")) == number:
        client.delete_registered_model_alias(name, "challenger")  # it is no longer a challenger


def git_commit() -> str:
    """The commit of the working tree, with `-dirty` if there are uncommitted changes; `none` outside git."""
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
    wanted = {str(TABLE): "data_version", str(PROCESSED): "processed_version"}
    return {wanted[out["path"]]: str(out["md5"]) for out in outs if out["path"] in wanted}
