"""`dvc repro` in a separate repository: gate, registry, cache and remotes, with the real tools."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pandas as pd
import pytest
import yaml
from moto.server import ThreadedMotoServer

from ml.bundle import load_bundle, read_manifest, read_parts
from ml.tables import to_columns
from tests.infra.support import warm
from tests.ml.conftest import free_port
from tests.ml.small import small_pipeline

REPOSITORY = Path(__file__).parents[2]

# MLflow's imports cause deprecation warnings from its dependencies.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default"), pytest.mark.timeout(600)]


@dataclass
class Clone:
    """A git and DVC repository with the project's pipeline on a small table."""

    path: Path
    environment: dict[str, str]

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.path,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=500,
        )

    def ok(self, *command: str, **environment: str) -> str:
        done = self.run(*command, **environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def commit(self, message: str) -> None:
        self.ok("git", "add", "-A")
        self.ok("git", "commit", "-q", "-m", message)

    def trees(self, number: int) -> None:
        """Change one parameter of the model."""
        file = self.path / "params.yaml"
        params = yaml.safe_load(file.read_text())
        params["model"]["estimators"]["trees"]["max_iter"] = number
        file.write_text(yaml.safe_dump(params))

    @property
    def served(self) -> str:
        return read_manifest(self.path / "models/bundle").version

    @property
    def gate(self) -> dict[str, object]:
        report: dict[str, object] = json.loads((self.path / "reports/gate.json").read_text())
        return report

    def champion(self) -> mlflow.entities.model_registry.ModelVersion:
        client = mlflow.MlflowClient(
            f"sqlite:///{self.path}/.atlas/mlflow/mlflow.db", f"sqlite:///{self.path}/.atlas/mlflow/mlflow.db"
        )
        return client.get_model_version_by_alias("small", "champion")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    path = tmp_path_factory.mktemp("clone")
    for name in ("ml", ".dvc/config", ".dvc/.gitignore", ".dvcignore", "dvc.yaml", ".gitignore", "data/views"):
        source, target = REPOSITORY / name, path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    small_pipeline(path)
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "AWS_", "GIT_", "DVC_"))
    } | {
        # The stages run as `python -m ml.…`: from a Python that has imported the libraries.
        "PATH": os.pathsep.join([str(warm.python("ml").parent), str(Path(sys.executable).parent), os.environ["PATH"]]),
        "HOME": str(tmp_path_factory.mktemp("home")),
        "GIT_AUTHOR_NAME": "test",
        "GIT_AUTHOR_EMAIL": "test@example.invalid",
        "GIT_COMMITTER_NAME": "test",
        "GIT_COMMITTER_EMAIL": "test@example.invalid",
    }
    made = Clone(path, environment)
    made.ok("git", "init", "-q", "-b", "main")
    made.commit("start")
    made.ok("dvc", "repro")
    made.commit("first bundle")
    return made


def test_the_first_candidate_is_promoted_and_champion(clone: Clone) -> None:
    assert clone.gate["decision"] == "champion"
    assert clone.gate["incumbent"] == "none"
    assert clone.champion().tags["bundle_version"] == clone.served


def test_the_registered_model_gives_the_bundles_answers(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(clone.path)
    uri = f"sqlite:///{clone.path}/.atlas/mlflow/mlflow.db"
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    model = mlflow.pyfunc.load_model("models:/small@champion")
    bundle = load_bundle(clone.path / "models/bundle")
    for rows in (
        pd.DataFrame({"x": [0.5, -0.5], "z": [0.1, None]}),
        pd.DataFrame({"x": [1, 0], "z": [0, 1]}),  # whole numbers, as JSON has them
        pd.DataFrame({"x": [0.5, -0.5]}),  # what the schema doesn't require may be left out
    ):
        answers = model.predict(rows)
        scores = bundle.scores(to_columns(rows, bundle.schema))
        # The table's target is True or False, and so is the answer.
        assert list(answers["prediction"]) == [label == "true" for label in bundle.decide(scores)]
        assert answers["prediction"].dtype == bool
        assert answers["probability:true"].to_numpy() == pytest.approx(scores[:, 1])
    assert list(answers) == model.metadata.get_output_schema().input_names()


def test_the_run_keeps_what_one_needs_to_repeat_it(clone: Clone) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{clone.path}/.atlas/mlflow/mlflow.db")
    run = client.get_run(str(clone.champion().run_id))
    assert run.data.params["model.estimators.trees.kind"] == "hist_gradient_boosting"
    assert run.data.params["model.refit"] == "true"  # as params.yaml spells it
    assert 0.5 < run.data.metrics["test.roc_auc"] <= 1
    assert run.data.metrics["test.roc_auc.low"] <= run.data.metrics["test.roc_auc"]
    lock = yaml.safe_load((clone.path / "dvc.lock").read_text())
    hashes = {out["path"]: out["md5"] for out in lock["stages"]["data_ingestion"]["outs"]}
    assert run.data.tags["data_version"] == hashes["data/raw/table.parquet"]
    assert len(run.data.tags["git_commit"].removesuffix("-dirty")) == 40
    plots = {file.path for file in client.list_artifacts(run.info.run_id, "plots")}
    assert {"plots/roc.csv", "plots/roc.png", "plots/calibration.png", "plots/importance.png"} <= plots


def test_mlflow_shows_run_model_and_signature_under_model_training(clone: Clone) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{clone.path}/.atlas/mlflow/mlflow.db")
    champion = clone.champion()
    run = client.get_run(str(champion.run_id))
    # The tag by which the training view chooses its experiments; without it MLflow 3 shows the GenAI view.
    experiment = client.get_experiment(run.info.experiment_id)
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    assert run.info.run_name == f"hist_gradient_boosting {clone.served[:7]}"
    assert run.outputs is not None
    (output,) = run.outputs.model_outputs
    logged = client.get_logged_model(output.model_id)
    assert (logged.name, logged.status, logged.source_run_id) == ("small", "READY", run.info.run_id)
    assert {metric.key: metric.value for metric in logged.metrics or []} == run.data.metrics
    assert champion.source == f"models:/{logged.model_id}"
    assert json.loads(logged.tags["mlflow.modelVersions"]) == [{"name": "small", "version": str(champion.version)}]
    signature = mlflow.models.Model.load(logged.artifact_location.removeprefix("file://")).signature
    assert signature.inputs.input_names() == ["x", "z"]
    assert signature.outputs.input_names() == ["prediction", "probability:false", "probability:true"]


def test_experiments_in_folders_of_their_own_log_to_the_checkouts_store(clone: Clone) -> None:
    """Two queued experiments at once, and a temporary one: DVC deletes their folders, the runs stay."""
    client = mlflow.MlflowClient(f"sqlite:///{clone.path}/.atlas/mlflow/mlflow.db")
    experiment = client.get_run(str(clone.champion().run_id)).info.experiment_id

    def runs() -> dict[str, mlflow.entities.Run]:
        return {run.info.run_id: run for run in client.search_runs([experiment])}

    before, champion, served = runs(), clone.champion(), clone.served
    marker = (clone.path / ".atlas/mlflow/registered.json").read_text()
    for trees in (7, 8):
        parameter = f"model.estimators.trees.max_iter={trees}"
        clone.ok("dvc", "exp", "run", "--queue", "--name", f"queued-{trees}", "--set-param", parameter)
    clone.ok("dvc", "exp", "run", "--run-all", "--jobs", "2")
    clone.ok("dvc", "exp", "run", "--temp", "--name", "tried", "--set-param", "model.estimators.trees.max_iter=9")
    made = {run.info.run_name.split()[0]: run for key, run in runs().items() if key not in before}
    assert made.keys() == {"queued-7", "queued-8", "tried"}
    for name, run in made.items():
        assert run.info.status == "FINISHED"
        assert run.data.params["model.estimators.trees.max_iter"] == (name[-1] if name != "tried" else "9")
        assert {"plots/roc.png"} <= {file.path for file in client.list_artifacts(run.info.run_id, "plots")}
    # The checkout itself is as it was: what it serves, its champion, what its next `dvc repro` finds.
    assert clone.served == served
    assert clone.champion().version == champion.version
    assert (clone.path / ".atlas/mlflow/registered.json").read_text() == marker


def test_a_linked_worktree_uses_the_main_checkouts_store(clone: Clone, tmp_path: Path) -> None:
    clone.ok("git", "worktree", "add", "-q", "--detach", str(tmp_path / "linked"))
    linked = Clone(tmp_path / "linked", clone.environment)
    address = linked.ok("python", "-c", "from ml.tracking_server import tracking_uri; print(tracking_uri()[0])")
    assert address.strip() == f"sqlite:///{clone.path}/.atlas/mlflow/mlflow.db"


def test_nothing_changed_runs_the_gate_alone_and_without_heavy_imports(clone: Clone) -> None:
    said = clone.ok("dvc", "repro")
    assert "nothing changed" in said
    assert said.count("Running stage") == 1
    check = (
        "import sys; from ml.register_model import main; main(); "
        "print('heavy:', sorted({'mlflow', 'pandas', 'sklearn'} & set(sys.modules)))"
    )
    assert "heavy: []" in clone.ok(sys.executable, "-c", check)
    assert clone.ok("git", "status", "--porcelain") == ""


def test_a_fresh_card_reaches_the_served_bundle_and_its_run_without_a_new_version(clone: Clone) -> None:
    """The card depends on `evaluation` and `seed`, but the version of the bundle doesn't depend on the card."""
    before = clone.champion()
    old = read_parts(clone.path / "models/bundle")[1].card.importance
    file = clone.path / "params.yaml"
    params = yaml.safe_load(file.read_text())
    params["evaluation"]["importance_rows"] = 50
    file.write_text(yaml.safe_dump(params))
    clone.ok("dvc", "repro")
    served, parts = read_parts(clone.path / "models/bundle")
    assert served == before.tags["bundle_version"]
    assert parts.card.importance.keys() == old.keys()
    assert parts.card.importance != old
    champion = clone.champion()
    assert (champion.version, champion.run_id) == (before.version, before.run_id)
    assert champion.tags["card"] == read_manifest(clone.path / "models/bundle").files["card.json"]
    client = mlflow.MlflowClient(f"sqlite:///{clone.path}/.atlas/mlflow/mlflow.db")
    shown = json.loads(Path(client.download_artifacts(str(champion.run_id), "card.json")).read_text())
    assert shown["importance"] == parts.card.importance
    clone.ok("git", "checkout", "-q", "params.yaml", "dvc.lock", "reports/metrics.json")
    clone.ok("dvc", "repro")
    assert read_parts(clone.path / "models/bundle")[1].card.importance == old


def test_a_refused_candidate_that_params_accept_is_served_and_recorded(clone: Clone) -> None:
    before = clone.served
    clone.trees(1)
    clone.ok("dvc", "repro")
    refused = str(clone.gate["candidate"])
    assert "was refused" in clone.ok("dvc", "repro")
    file = clone.path / "params.yaml"
    params = yaml.safe_load(file.read_text())
    params["gate"]["accept"] = refused[:12]
    file.write_text(yaml.safe_dump(params))
    assert "is served all the same" in clone.ok("dvc", "repro")
    assert clone.served == refused
    assert clone.gate["accepted"] is True
    assert clone.gate["reasons"]
    champion = clone.champion()
    assert champion.tags["bundle_version"] == refused
    run = mlflow.MlflowClient(f"sqlite:///{clone.path}/.atlas/mlflow/mlflow.db").get_run(str(champion.run_id))
    assert "accepted in params.yaml" in run.data.tags["gate_accepted"]
    clone.ok("git", "checkout", "-q", "params.yaml", "dvc.lock", "reports/metrics.json")
    clone.ok("dvc", "repro")
    assert clone.served == before


def test_a_fresh_tracking_store_ends_with_a_champion_though_all_is_cached(clone: Clone) -> None:
    shutil.rmtree(clone.path / ".atlas/mlflow")
    said = clone.ok("dvc", "repro")
    assert said.count("Running stage") == 1
    assert clone.gate["decision"] == "same"
    assert clone.champion().tags["bundle_version"] == clone.served


def test_a_refused_candidate_leaves_the_served_bundle(clone: Clone) -> None:
    before = clone.served
    clone.trees(1)
    said = clone.ok("dvc", "repro")
    assert clone.gate["decision"] == "challenger"
    assert "not significantly more than gate.margin" in said
    assert clone.served == before
    assert "data_ingestion' didn't change" in said
    # Also if the folder is missing: the incumbent is restored from DVC's cache.
    shutil.rmtree(clone.path / "models/bundle")
    clone.ok("dvc", "repro")
    assert clone.served == before
    assert clone.champion().tags["bundle_version"] == before
    # Also if the tracking store is missing: the incumbent is registered as champion, besides the challenger.
    shutil.rmtree(clone.path / ".atlas/mlflow")
    clone.ok("dvc", "repro")
    assert clone.gate["decision"] == "challenger"
    assert clone.champion().tags["bundle_version"] == before
    clone.ok("git", "checkout", "-q", "params.yaml", "dvc.lock", "reports/metrics.json")
    clone.ok("dvc", "checkout", "-q")


def test_a_better_candidate_becomes_champion(clone: Clone) -> None:
    weak = clone.served
    clone.ok("git", "checkout", "-q", "-b", "weak")
    clone.trees(2)
    params = yaml.safe_load((clone.path / "params.yaml").read_text())
    params["gate"]["base"] = "weak"
    (clone.path / "params.yaml").write_text(yaml.safe_dump(params))
    clone.commit("another base")
    params["gate"]["margin"] = -10  # let the weak one in, so that there is something to beat
    (clone.path / "params.yaml").write_text(yaml.safe_dump(params))
    clone.ok("dvc", "repro")
    assert clone.served != weak
    params["gate"]["margin"] = 0.0
    params["model"]["estimators"]["trees"]["max_iter"] = 30
    clone.commit("a weak champion")
    (clone.path / "params.yaml").write_text(yaml.safe_dump(params))
    clone.ok("dvc", "repro")
    assert clone.gate["decision"] == "champion"
    assert clone.served == weak
    clone.ok("git", "checkout", "-q", "-f", "main")
    clone.ok("dvc", "checkout", "-q")


def test_a_change_of_a_views_file_runs_its_stage_and_the_ingestion_again(clone: Clone, tmp_path: Path) -> None:
    fresh = Clone(tmp_path / "fresh", clone.environment)
    clone.ok("git", "clone", "-q", str(clone.path), str(fresh.path))
    (fresh.path / "table.csv").write_text("at,city,y\n2024-03-01T09:00,Rome,0\n2024-03-01T11:00,Rome,1\n")
    (fresh.path / "weather.csv").write_text("city,observed,wind\nRome,2024-03-01T10:00,2.5\n")
    file = fresh.path / "params.yaml"
    params = yaml.safe_load(file.read_text())
    view = {"uri": "weather.csv", "keys": ["city"], "timestamp": "observed", "features": ["wind"]}
    params["data"] |= {"time": "at", "views": {"weather": view}}
    file.write_text(yaml.safe_dump(params))

    def ingest() -> tuple[list[str], pd.DataFrame]:
        said = fresh.ok("dvc", "repro", "data_ingestion")
        table = pd.read_parquet(fresh.path / "data/raw/table.parquet")
        return re.findall(r"Running stage '(.*)'", said), table

    stages, table = ingest()
    assert stages == ["view@weather", "data_ingestion"]
    assert table["wind"].isna().tolist() == [True, False]
    assert ingest()[0] == []
    with (fresh.path / "weather.csv").open("a") as weather:
        weather.write("Rome,2024-03-01T08:00,1.5\n")
    stages, table = ingest()
    assert stages == ["view@weather", "data_ingestion"]
    assert table["wind"].tolist() == [1.5, 2.5]
    del params["data"]["views"]
    file.write_text(yaml.safe_dump(params))
    stages, table = ingest()
    assert stages == ["data_ingestion"]
    assert "wind" not in table
    (fresh.path / "weather.csv").unlink()
    fresh.ok("dvc", "repro", "data_ingestion")


def test_a_bundle_that_can_not_be_read_is_said_so(clone: Clone, tmp_path: Path) -> None:
    """As in a new clone without a remote: the candidate is promoted without a comparison, and this is recorded."""
    fresh = Clone(tmp_path / "fresh", clone.environment)
    clone.ok("git", "clone", "-q", str(clone.path), str(fresh.path))
    fresh.trees(12)
    said = fresh.ok("dvc", "repro")
    assert fresh.gate["decision"] == "champion"
    assert fresh.gate["incumbent"] == "unreadable"
    assert "promoted without a comparison" in said


def test_a_cold_run_elsewhere_gives_the_same_bundle_and_changes_no_tracked_file(clone: Clone, tmp_path: Path) -> None:
    fresh = Clone(tmp_path / "fresh", clone.environment)
    clone.ok("git", "clone", "-q", str(clone.path), str(fresh.path))
    fresh.ok("dvc", "repro")
    assert fresh.served == clone.served
    assert fresh.gate["decision"] == "same"
    assert fresh.ok("git", "status", "--porcelain") == ""


def test_an_unreachable_server_costs_the_registration_alone(clone: Clone) -> None:
    shutil.rmtree(clone.path / "models/bundle")
    failed = clone.run("dvc", "repro", MLFLOW_TRACKING_URI=f"http://127.0.0.1:{free_port()}")
    assert failed.returncode != 0
    assert "can't be reached" in failed.stderr
    assert "models/bundle is updated, only the registration is missing" in failed.stderr
    assert clone.served == clone.gate["candidate"]
    clone.ok("dvc", "repro")
    assert clone.champion().tags["bundle_version"] == clone.served


def test_a_named_server_is_asked_what_it_has_before_anything_heavy_is_imported(clone: Clone, server: str) -> None:
    assert "champion of small" in clone.ok("dvc", "repro", MLFLOW_TRACKING_URI=server)
    check = (
        "import sys; from ml.register_model import main; main(); "
        "print('heavy:', sorted({'mlflow', 'pandas', 'sklearn'} & set(sys.modules)))"
    )
    said = clone.ok(sys.executable, "-c", check, MLFLOW_TRACKING_URI=server)
    assert "nothing changed" in said
    assert "heavy: []" in said


def test_a_registry_that_disagrees_with_dvc_is_said_so(clone: Clone, server: str) -> None:
    client = mlflow.MlflowClient(server, server)
    champion = client.get_model_version_by_alias("small", "champion")
    client.set_model_version_tag("small", champion.version, "bundle_version", "f" * 64)
    said = clone.ok("dvc", "repro", MLFLOW_TRACKING_URI=server)
    assert (
        f"the registry's champion is {'f' * 12}, but the base branch's bundle is {clone.served[:12]}; the latter counts"
        in said
    )
    now = client.get_model_version_by_alias("small", "champion")
    assert now.tags["bundle_version"] == clone.served


def test_push_and_pull_by_the_default_remote(clone: Clone, tmp_path: Path) -> None:
    clone.ok("dvc", "push")
    assert (clone.path / ".atlas/dvc-remote/files").is_dir()
    version = clone.served
    shutil.rmtree(clone.path / ".dvc/cache")
    shutil.rmtree(clone.path / "models")
    shutil.rmtree(clone.path / "data")
    clone.ok("git", "checkout", "-q", ".")
    clone.ok("dvc", "pull")
    assert clone.served == version


@pytest.fixture
def s3() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def test_push_and_pull_by_an_s3_remote(clone: Clone, s3: str) -> None:
    import boto3

    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    boto3.client(
        "s3", endpoint_url=s3, aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1"
    ).create_bucket(Bucket="dvc")
    clone.ok("dvc", "remote", "add", "--local", "bucket", "s3://dvc/store")
    clone.ok("dvc", "remote", "modify", "--local", "bucket", "endpointurl", s3)
    clone.ok("dvc", "push", "-r", "bucket", **keys)
    version = clone.served
    shutil.rmtree(clone.path / ".dvc/cache")
    shutil.rmtree(clone.path / "models/bundle")
    clone.ok("dvc", "pull", "-r", "bucket", **keys)
    assert clone.served == version


def test_metrics_and_plots_can_be_shown(clone: Clone) -> None:
    assert "test.roc_auc.value" in clone.ok("dvc", "metrics", "show")
    clone.ok("dvc", "plots", "show")
    page = (clone.path / "dvc_plots/index.html").read_text()
    assert "true_positive_rate" in page
