"""The registration with real MLflow servers: without and with a token, without a registry, unreachable."""

import base64
import http.server
import json
import logging
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from ml import tracking_server
from ml.bundle import load_bundle, read_parts, write_bundle
from ml.card import Card, Distribution, Reference
from ml.encoding import Encoding, NumericEncoder
from ml.params import Params
from ml.run_facts import flat_params
from ml.schema import Feature, Schema
from ml.tracking import register
from ml.tracking_server import Server, TrackingError, probe, still_there, tags_under
from service.registry import fetch
from service.settings import load_settings
from tests.ml.conftest import free_port
from tests.ml.logistic import logistic_parts

# MLflow's imports cause deprecation warnings from its dependencies.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default"), pytest.mark.timeout(300)]

LOG = logging.getLogger("test")
TOKEN = "s3cret-token"


class Front(http.server.BaseHTTPRequestHandler):
    """A proxy in front of the server; depending on its class attributes it requires a token or hides endpoints."""

    upstream = ""
    token: str | None = None
    hidden: tuple[str, ...] = ()

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.token is not None:
            expected = "Basic " + base64.b64encode(f"{self.token}:{self.token}".encode()).decode()
            if self.headers.get("Authorization") != expected:
                return self.answer(401, b"{}")
        if any(part in self.path for part in self.hidden):
            return self.answer(404, b"{}")
        request = urllib.request.Request(self.upstream + self.path, body or None, method=self.command)
        for name in ("Content-Type", "Accept"):
            if name in self.headers:
                request.add_header(name, self.headers[name])
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return self.answer(response.status, response.read())
        except urllib.error.HTTPError as error:
            return self.answer(error.code, error.read())

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def front(server: str) -> Iterator[type[Front]]:
    """The proxy's class, to set; its `address` is where it listens."""

    class Configured(Front):
        upstream = server
        address = ""

    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Configured)
    Configured.address = f"http://127.0.0.1:{listening.server_port}"
    threading.Thread(target=listening.serve_forever, args=(0.01,), daemon=True).start()
    yield Configured
    listening.shutdown()
    listening.server_close()


@pytest.fixture
def params(request: pytest.FixtureRequest) -> Params:
    """With a registered model's name of the test's own."""
    return Params.model_validate(
        {
            "seed": 1,
            "data": {"source": "table", "uri": "t.csv", "target": "y", "task": "binary"},
            "split": {"method": "random"},
            "model": {"name": "m", "estimators": {"line": {"kind": "linear"}}},
            "gate": {"metric": "log_loss"},
            "registry": {"experiment": "tests", "model": request.node.name},
        }
    )


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    before = dict(os.environ)
    for name in list(os.environ):
        if name.startswith("MLFLOW_") or name == tracking_server.TOKEN:
            monkeypatch.delenv(name)
    yield
    for name in set(os.environ) - set(before):
        del os.environ[name]


def put(slope: float = 1.0) -> tuple[str, Path]:
    folder = Path("bundle")
    return write_bundle(folder, logistic_parts(slope)), folder


def test_the_champion_is_registered_once_and_the_service_serves_it(
    server: str, params: Params, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    version, folder = put()
    _, parts = read_parts(folder)
    found = probe(LOG)
    assert found == Server(server, explicit=True, registry=True)
    name = params.registry.model
    assert tags_under(found, name, "champion").get("bundle_version") is None
    first = register(found, folder, version, parts, "challenger", params)
    assert tags_under(found, name, "champion").get("bundle_version") is None
    assert tags_under(found, name, "challenger").get("bundle_version") == version
    again = register(found, folder, version, parts, "champion", params)
    assert again == first
    assert tags_under(found, name, "champion").get("bundle_version") == version
    assert tags_under(found, name, "challenger").get("bundle_version") is None
    assert still_there(name, "champion", version, again, LOG)
    assert not still_there(name, "challenger", version, again, LOG)

    uri = f"models:/{name}@champion"
    settings = load_settings({"MODEL_URI": uri, "MLFLOW_TRACKING_URI": server})
    fetched = fetch(settings, tmp_path / "cache")
    assert load_bundle(fetched).version == version


def test_a_server_on_this_machine_is_never_asked_through_a_proxy(
    server: str, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for who types `dvc exp run`, without the Makefile that sets no_proxy."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    version, folder = put(6.0)
    register(probe(LOG), folder, version, read_parts(folder)[1], "champion", params)
    assert tags_under(probe(LOG), params.registry.model, "champion").get("bundle_version") == version
    assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == "127.0.0.1,localhost,::1"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere.invalid")
    with pytest.raises(TrackingError, match="refused"):  # by the proxy
        probe(LOG)


def test_an_older_experiment_moves_to_model_training_unless_a_person_chose_another_kind(
    server: str, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    client = mlflow.MlflowClient(server)
    version, folder = put(5.0)

    def kind(name: str, tags: dict[str, str]) -> str:
        client.create_experiment(name, tags=tags)
        of = params.model_copy(update={"registry": params.registry.model_copy(update={"experiment": name})})
        register(probe(LOG), folder, version, read_parts(folder)[1], "champion", of)
        found = client.get_experiment_by_name(name)
        assert found is not None
        return str(found.tags["mlflow.experimentKind"])

    assert kind("untagged", {}) == "custom_model_development"
    assert kind("chosen", {"mlflow.experimentKind": "finetuning"}) == "finetuning"


def test_a_token_is_sent_as_user_and_password_and_shown_nowhere(
    front: type[Front],
    params: Params,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    front.token = TOKEN
    address = front.address  # type: ignore[attr-defined]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with pytest.raises(TrackingError, match=r"refuses the credentials \(401\): set CAPSTONE_TEST"):
        probe(LOG)
    monkeypatch.setenv("CAPSTONE_TEST", TOKEN)
    version, folder = put(2.0)
    with caplog.at_level(logging.DEBUG):
        register(probe(LOG), folder, version, read_parts(folder)[1], "champion", params)
        assert tags_under(probe(LOG), params.registry.model, "champion").get("bundle_version") == version
    said = capfd.readouterr()
    encoded = base64.b64encode(f"{TOKEN}:{TOKEN}".encode()).decode()
    for secret in (TOKEN, encoded):
        assert secret not in caplog.text + said.out + said.err


def test_a_server_of_mlflow_2_gets_its_champion_too(
    front: type[Front], params: Params, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    front.hidden = ("logged-models",)
    address = front.address  # type: ignore[attr-defined]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    version, folder = put(4.0)
    register(probe(LOG), folder, version, read_parts(folder)[1], "champion", params)
    settings = load_settings({"MODEL_URI": f"models:/{params.registry.model}@champion", "MLFLOW_TRACKING_URI": address})
    assert load_bundle(fetch(settings, tmp_path / "cache")).version == version


def test_a_server_without_registry_keeps_the_model_as_artifacts_and_only_once(
    front: type[Front], params: Params, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    front.hidden = ("registered-models", "model-versions", "logged-models")
    address = front.address  # type: ignore[attr-defined]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    version, folder = put(3.0)
    found = probe(LOG)
    assert not found.registry
    assert caplog.text.count("has no model registry") == 1
    run = register(found, folder, version, read_parts(folder)[1], "champion", params)
    assert register(found, folder, version, read_parts(folder)[1], "champion", params) == run
    assert still_there(params.registry.model, "champion", version, run, LOG)
    assert not still_there(params.registry.model, "champion", version, "0" * 32, LOG)
    # Over REST, because the current client would first use the missing endpoints.
    with urllib.request.urlopen(
        f"{address}/api/2.0/mlflow/artifacts/list?run_id={run}&path=model/artifacts/bundle", timeout=10
    ) as answer:
        files = {file["path"] for file in json.load(answer)["files"]}
    inside = "model/artifacts/bundle"
    assert {f"{inside}/bundle.json", f"{inside}/model.onnx"} <= files


def test_a_server_that_is_not_there_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(TrackingError, match=r"can't be reached \(.*refused"):
        probe(LOG)


def test_a_password_in_the_address_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"https://me:{TOKEN}@mlflow.example")
    with pytest.raises(TrackingError, match="contains credentials: remove them, and set CAPSTONE_TEST") as refused:
        probe(LOG)
    assert TOKEN not in str(refused.value)
    database = Server(f"postgresql://me:{TOKEN}@db.example/mlflow", explicit=True, registry=True)
    assert database.shown == "postgresql://db.example/mlflow"


def test_without_a_named_server_the_store_is_sqlite_in_the_repository(tmp_path: Path) -> None:
    assert tracking_server.tracking_uri() == (f"sqlite:///{tmp_path}/.atlas/mlflow/mlflow.db", False)


ODD = (
    "sepal length (cm)", "sepal length [cm]", "50% of $x_{ and $y", "Größe in m²", "Gro\u0308ße", "😀",
    "a.b/c//d/../e/", "../..", "line\nbreak", "x" * 300, "x" * 299 + "y", "'; DROP TABLE params; --",
)  # fmt: skip
"""Names that columns have, and that MLflow refuses as a part of a key, or that it or matplotlib reads otherwise."""


def test_columns_and_classes_of_any_name_are_registered_under_keys_of_their_own(
    server: str, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    document = params.model_dump(mode="json", exclude_unset=True)
    document["data"] |= {"features": {name: {"type": "numeric"} for name in ODD}}
    document["contract"] = {"columns": {name: {"minimum": 0} for name in ODD}}
    document["encoding"] = {"datetimes": {name: [] for name in ODD}, "ordinal": {name: ["a"] for name in ODD}}
    document["model"]["class_weight"] = dict.fromkeys(ODD, 2.0)
    odd = Params.model_validate(document)
    Path("params.yaml").write_text("the exact names\n")
    card = Card(
        name="m",
        task="binary",
        target="y (%)",
        importance=dict.fromkeys(ODD, 0.1),
        curves={"roc": ((0, 0), (1, 1))},
    )
    made = logistic_parts(
        6.0,
        schema=Schema(
            target="y (%)",
            task="binary",
            classes=("no (%)", "yes/😀"),
            features=tuple(Feature(name=name, type="numeric", required=True) for name in ODD),
        ),
        encoding=Encoding(encoders=(NumericEncoder(column=ODD[0]), NumericEncoder(column=ODD[1]))),
        reference=Reference(rows=1, features={}, scores=Distribution(missing=0), sample=(dict.fromkeys(ODD, 0.5),)),
        card=card,
    )
    version = write_bundle(Path("bundle"), made)
    run_id = register(probe(LOG), Path("bundle"), version, read_parts(Path("bundle"))[1], "champion", odd)

    client = mlflow.MlflowClient(server)
    logged = client.get_run(run_id).data.params
    assert logged == flat_params(odd)
    for prefix, suffix in (
        ("data.features.", ".type"), ("contract.columns.", ".minimum"), ("encoding.ordinal.", ""),
        ("model.class_weight.", ""),
    ):  # fmt: skip
        keys = {key for key in logged if key.startswith(prefix) and key.endswith(suffix)}
        assert len(keys) == len(ODD)
        assert any(key.startswith(f"{prefix}sepal length _cm_ ") for key in keys)
    assert logged["data.target"] == "y"
    assert {file.path for file in client.list_artifacts(run_id)} >= {"params.yaml", "card.json", "plots"}
    assert [file.path for file in client.list_artifacts(run_id, "plots")] == ["plots/importance.png", "plots/roc.png"]
    assert tags_under(probe(LOG), params.registry.model, "champion").get("bundle_version") == version


def test_a_plain_name_is_a_key_as_it_is(params: Params) -> None:
    document = params.model_dump(mode="json", exclude_unset=True)
    document["data"]["features"] = {"Sepal.Length": {"unknown": "refuse"}, "net-price: EUR": {}}
    flat = flat_params(Params.model_validate(document))
    assert flat["data.features.Sepal.Length.unknown"] == "refuse"
    assert flat["data.features.net-price: EUR.required"] == "false"
    assert flat["model.estimators.line.kind"] == "linear"
