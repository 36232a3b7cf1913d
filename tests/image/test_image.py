"""The image, run as a cluster or a person would run it: real builds, real containers."""

import json
import os
import re
import shutil
import tarfile
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.bundles import EXAMPLE
from tests.image.conftest import LABELS
from tests.image.containers import REPOSITORY, FailedError, base_image, build, docker, inspect, lay_out, running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SIGNAL = """
import contextlib, os, signal, sys
for pid in sys.argv[2:]:
    with contextlib.suppress(ProcessLookupError):  # the process that listed the processes may have ended
        os.kill(int(pid), signal.Signals[sys.argv[1]])
"""
"""A replacement for `kill`, which the slim image doesn't have."""
HARD = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
"""As Kubernetes' restricted Pod Security runs it, with a read-only root."""
SERVED = (
    "__init__.py", "bundle.py", "card.py", "decision.py", "encoding.py", "features/__init__.py", "features/dynamodb.py",
    "features/dynamodb_table.py", "features/store.py", "features/stores.py", "features/views.py", "runtime.py",
    "schema.py", "values.py",
)  # fmt: skip
"""Of ml/: what the service imports (tests/test_architecture.py holds .dockerignore to it)."""
LOAD = (REPOSITORY / "tests" / "image" / "load.py").read_text()


def names(path: Path) -> set[str]:
    """The packages that a lock file installs on Linux with Python 3.11."""
    lines = re.findall(r"(?m)^([A-Za-z0-9_.-]+)==[^ ]+ *(;.*?)?\\?$", path.read_text())
    return {normal(name) for name, marker in lines if ">= '3.12'" not in marker and "win32" not in marker}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def ask(image: str, code: str) -> Any:
    """The JSON output of this Python code in a new container."""
    return json.loads(docker("run", "--rm", "--interactive", image, "python3", "-", given=code))


def failed_start(image: str, *options: str, **environment: object) -> str:
    """The messages of a start that must fail."""
    with running(image, *options, **environment) as container:
        assert container.wait_end() == 1, container.log()
        return container.log()


# --- what is in it ---


PACKAGES = "import importlib.metadata as m, json; print(json.dumps([d.metadata['Name'] for d in m.distributions()]))"
FILES = "import json, pathlib as p; print(json.dumps([str(f) for f in p.Path('/app').rglob('*') if f.is_file()]))"


def test_slim_holds_the_locked_packages_of_the_service_and_no_others(slim):
    found = {normal(name) for name in ask(slim, PACKAGES)}
    assert found == names(REPOSITORY / "requirements" / "service.txt")
    assert not found & {"pandas", "scikit-learn", "scipy", "mlflow", "pyarrow", "pip", "setuptools"}


def test_full_adds_scikit_learn_and_what_that_needs(full):
    found = {normal(name) for name in ask(full, PACKAGES)}
    assert found == names(REPOSITORY / "requirements" / "full.txt")
    assert "scikit-learn" in found
    assert not found & {"pandas", "mlflow", "pyarrow", "pip"}


def test_features_adds_the_materialiser_and_what_that_needs(slim, features):
    found = {normal(name) for name in ask(features, PACKAGES)}
    assert found == names(REPOSITORY / "requirements" / "features.txt")
    assert not found & {"scikit-learn", "scipy", "mlflow", "setuptools", "pip"}
    added = {name for name in set(ask(features, FILES)) - set(ask(slim, FILES)) if not name.endswith(".pyc")}
    assert {"/app/params.yaml", "/app/ml/materialize.py", "/app/ml/sources/flights.py"} <= added
    assert {name.split("/")[2] for name in added} == {"ml", "params.yaml"}
    assert not docker("run", "--rm", features, "find", "/app", "/opt", "-writable", "-not", "-type", "l")


def test_its_service_imports_nothing_of_the_materialiser(features):
    """As the slim image's does, which doesn't have these packages: they cost its pods no memory."""
    with running(features, *HARD) as container:
        container.wait_ready()
        assert container.predict(EXAMPLE)["predictions"]
        loaded = container.execute("python3", "-c", MAPPED)
    assert "onnxruntime" in loaded
    assert not {"pandas", "pyarrow"} & set(loaded.split())


MAPPED = """
import pathlib, re
for file in pathlib.Path("/proc").glob("[0-9]*/maps"):
    print(*{name for name in re.findall("site-packages/([a-z_]+)", file.read_text())})
"""
"""Lists the packages of which a process has loaded compiled parts."""


def test_materialiser_replays_the_flights_into_a_store(features):
    store = ("--store", "/tmp/f.db", "--since", "2013-11-04T08:00", "--until", "2013-11-04T08:01")
    run = (
        "run",
        "--rm",
        *HARD,
        features,
        "sh",
        "-c",
        f"python3 -m ml.materialize {' '.join(store)} && ls -s /tmp/f.db",
    )
    blocks = int(docker(*run, timeout=300).split()[0])
    assert blocks > 100


def test_image_of_a_model_with_views_needs_the_parameters_of_its_data(context):
    with pytest.raises(FailedError, match="DATA_PARAMS is missing"):
        build(context, "--output", "type=cacheonly", target="features")


def test_only_what_decides_answers_is_below_app_and_nobody_can_write_it(slim, bundle):
    found = {Path(name) for name in ask(slim, FILES)}
    sources = {path for path in found if path.suffix != ".pyc"}
    service = {path for path in (REPOSITORY / "service").rglob("*") if path.is_file() and path.suffix != ".pyc"}
    service = {path.relative_to(REPOSITORY) for path in service}
    assert sources == (
        {Path("/app") / path for path in service if path.parts[1] != "batch"}
        | {Path("/app/ml") / name for name in SERVED}
        | {Path("/app/models/bundle") / path.name for path in bundle.iterdir()}
    )
    compiled = {path.parent.parent / f"{path.name.partition('.')[0]}.py" for path in found - sources}
    assert compiled == {path for path in sources if path.suffix == ".py"}
    writable = docker("run", "--rm", slim, "find", "/app", "/opt", "-writable", "-not", "-type", "l")
    assert not writable


def test_bytecode_is_used_whatever_the_files_times_are(slim):
    code = "import json, ml.bundle as b, sys; f = open(b.__cached__, 'rb').read(8); print(json.dumps(list(f)))"
    assert ask(slim, code)[4:] == [1, 0, 0, 0], "the flags of an unchecked, hash-based .pyc (PEP 552)"


def test_it_knows_the_time_zones_that_params_can_declare(slim):
    code = (
        "import datetime, json, zoneinfo; summer = datetime.datetime(2024, 7, 1); "
        "print(json.dumps(zoneinfo.ZoneInfo('Europe/Berlin').utcoffset(summer).seconds))"
    )
    assert ask(slim, code) == 7200


def test_it_can_ask_dynamodb_and_trade_a_pods_token_for_credentials(slim):
    """The SDK's descriptions of all other services are left out."""
    code = (
        "import json, botocore.session as b; s = b.Session(); "
        "made = [s.create_client(name, 'us-east-1').meta.endpoint_url for name in ('dynamodb', 'sts')]; "
        "print(json.dumps([made, s.get_available_services()]))"
    )
    endpoints, services = ask(slim, code)
    assert endpoints == ["https://dynamodb.us-east-1.amazonaws.com", "https://sts.us-east-1.amazonaws.com"]
    assert services == ["dynamodb", "sts"]


def test_image_of_a_model_with_views_can_also_ask_s3(features):
    code = (
        "import json, fsspec; from botocore.session import get_session as s; fsspec.get_filesystem_class('s3'); "
        "print(json.dumps(s().get_available_services()))"
    )
    assert ask(features, code) == ["dynamodb", "s3", "sts"]


def test_size_and_layers(slim, full, features, record_property):
    base = inspect(slim)["RootFS"]["Layers"]
    for image, most in ((slim, 140), (full, 300), (features, 360)):
        layers = inspect(image)["RootFS"]["Layers"]
        own = [
            line.split("\t") for line in docker("history", "--format", "{{.CreatedBy}}\t{{.Size}}", image).splitlines()
        ]
        sizes = {what.split()[2]: size for what, size in own if what.startswith("COPY")}
        record_property(f"layers of {image.partition(':')[0]}", sizes)
        print(f"{image}: {inspect(image)['Size'] / 1e6:.0f} MB, of which {sizes}")
        assert list(sizes) == ["/app", "/opt/venv"]
        assert megabytes(sizes["/opt/venv"]) < most
        assert megabytes(sizes["/app"]) < 4
        assert layers[:-2] == base[:-2], "all targets share their base layers"


def megabytes(text: str) -> float:
    """Docker's 125MB, 1.94MB, 312kB or, just below a megabyte, 1e+03kB as a number."""
    number, unit = re.fullmatch(r"([\d.e+]+)([kMG]?)B", text).groups()  # type: ignore[union-attr]
    return float(number) * {"": 1e-6, "k": 1e-3, "M": 1, "G": 1e3}[unit]


def test_labels_say_what_it_is(slim):
    labels = inspect(slim)["Config"]["Labels"]
    prefix = "org.opencontainers.image"
    assert labels[f"{prefix}.version"] == labels["atlas.bundle.version"] == LABELS["BUNDLE_VERSION"]
    assert labels[f"{prefix}.title"]
    assert "unknown" not in labels.values(), "all build arguments are set"


# --- how it runs ---


def test_docker_run_answers_on_the_published_port_with_nothing_but_the_token_set(slim, record_property):
    with running(slim, CAPSTONE_TEST="token") as container:
        seconds = container.wait_ready()
        record_property("seconds until ready", seconds)
        print(f"ready after {seconds:.1f} s")
        answer = container.predict(EXAMPLE)
        assert answer["predictions"][0]["prediction"] in ("no", "yes")
        assert container.state()["Status"] == "running"


@pytest.mark.parametrize("user", ["10001:10001", "12345:12345", "0:0", "12345"])
def test_it_runs_on_a_read_only_root_as_any_user_without_capabilities(slim, user):
    with running(slim, *HARD, "--user", user) as container:
        container.wait_ready()
        assert container.predict(EXAMPLE)["predictions"]
        assert container.request("GET", "/metrics")[0] == 200
        uid, _, gid = user.partition(":")
        assert container.execute("id", "-u") == uid
        assert container.execute("id", "-g") == (gid or "0")
        with pytest.raises(FailedError, match=r"Read-only file system|Permission denied"):
            container.execute("touch", "/app/models/bundle/bundle.json")


def test_it_is_not_root_unless_told_to_be(slim):
    assert inspect(slim)["Config"]["User"] == "10001:10001"


def test_settings_come_from_the_environment(slim):
    with running(slim, WORKERS=3, MAX_ROWS=1) as container:
        container.wait_ready()
        assert container.request("POST", "/predict", {"rows": [EXAMPLE, EXAMPLE]})[0] == 422
        for _ in range(100):
            if container.log().count("Booting worker") == 3:
                break
            time.sleep(0.1)
        assert container.log().count("Booting worker") == 3
        assert '"level":"info"' in container.log()
    with running(slim, LOG_LEVEL="warning") as container:
        container.wait_ready()
        assert container.log() == ""


def test_another_port_is_served_and_watched(slim):
    with running(slim, PORT=8080) as container:
        check = inspect(slim)["Config"]["Healthcheck"]["Test"][1:]
        for _ in range(200):
            if '"Booting worker' in container.log():
                break
            time.sleep(0.1)
        for _ in range(100):
            try:
                container.execute(*check)
                return
            except FailedError:
                time.sleep(0.1)
        pytest.fail(container.log())


def test_the_health_check_turns_healthy_and_sees_a_hung_service(slim):
    # The health check must not use the proxy of the service's own requests.
    with running(slim, "--health-interval", "1s", http_proxy="http://127.0.0.1:9", WORKERS=1) as container:
        container.wait_ready()
        for _ in range(100):
            if container.state()["Health"]["Status"] == "healthy":
                break
            time.sleep(0.2)
        assert container.state()["Health"]["Status"] == "healthy"
        check = inspect(slim)["Config"]["Healthcheck"]["Test"][1:]
        container.execute(*check)
        # All processes of the service stop answering; the check's time-out is 2 s.
        docker("pause", container.id)
        docker("unpause", container.id)
        worker = container.execute("python3", "-c", WORKERS).split()
        container.execute("python3", "-c", SIGNAL, "SIGSTOP", *worker)
        with pytest.raises(FailedError):
            container.execute(*check)
        container.execute("python3", "-c", SIGNAL, "SIGCONT", *worker)
        container.execute(*check)


WORKERS = """
import pathlib
for folder in pathlib.Path("/proc").glob("[0-9]*"):
    if folder.name != "1" and b"service" in (folder / "cmdline").read_bytes():
        print(folder.name)
"""
"""Lists the process ids of the workers, because the image has no ps."""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_small_memory_limit_is_enough(slim, workers):
    limit = f"{96 + 64 * workers}m"
    with running(slim, *HARD, "--memory", limit, "--memory-swap", limit, WORKERS=workers) as container:
        container.wait_ready()
        for _ in range(50):
            container.predict(EXAMPLE)
        assert not container.state()["OOMKilled"]
        assert container.log().count("Booting worker") == workers, "none was killed and replaced"


# --- how it stops ---


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stop_under_a_steady_load_loses_no_request_and_ends_in_time(slim, workers):
    with running(slim, *HARD, WORKERS=workers) as container:
        container.wait_ready()
        told: list[str] = []

        def call() -> None:
            body = json.dumps({"rows": [EXAMPLE]})
            network = f"container:{container.id}"
            command = ("run", "--rm", "--interactive", "--network", network, "--env", f"BODY={body}", slim)
            told.append(docker(*command, "python3", "-", "8", "0.02", "60", given=LOAD))

        callers = threading.Thread(target=call)
        callers.start()
        time.sleep(4)
        seconds = container.stop()
        callers.join()
        outcome = json.loads(told[0])
        print(f"{workers} workers: {outcome}, stopped in {seconds:.1f} s")
        assert outcome["lost"] == []
        assert outcome["answered"] > 50
        assert outcome["refused"] == 8, "each caller saw the end as a refused connection"
        assert container.state()["ExitCode"] == 0, "not killed"
        assert seconds < 10


def test_a_stop_during_the_start_is_quick_too(slim):
    with running(slim) as container:
        # Wait until it handles signals, because Python itself needs a moment to start.
        while not int(re.findall(r"SigCgt:\s*(\w+)", container.execute("cat", "/proc/1/status"))[0], 16) >> 14 & 1:
            time.sleep(0.02)
        assert container.stop() < 5
        assert container.state()["ExitCode"] == 0
        assert "Booting worker" not in container.log()


# --- what it refuses ---


def test_slim_refuses_a_bundle_that_does_not_compile_and_full_serves_it(slim, full, sklearn_bundle):
    mount = ("--volume", f"{sklearn_bundle}:/app/models/bundle:ro")
    message = failed_start(slim, *mount)
    assert "needs sklearn" in message
    assert "use the image target `full`" in message
    assert message.count("\n") == 1
    with running(full, *HARD, *mount) as container:
        container.wait_ready()
        assert container.predict(EXAMPLE)["predictions"][0]["prediction"] in ("no", "yes")


def test_full_serves_a_compiled_bundle_too(full):
    with running(full, *HARD) as container:
        container.wait_ready()
        assert container.predict(EXAMPLE)["predictions"]


def test_a_broken_bundle_is_one_clear_line(slim, bundle, tmp_path):
    broken = tmp_path / "bundle"
    shutil.copytree(bundle, broken)
    (broken / "model.onnx").write_bytes(b"not a model")
    message = failed_start(slim, "--volume", f"{broken}:/app/models/bundle:ro")
    assert message.startswith("service: /app/models/bundle/model.onnx doesn't match bundle.json")
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "environment", "start"),
    [
        ((), {"WORKERS": "many"}, "service: WORKERS: "),
        ((), {"MODEL_URI": "/nowhere"}, "service: no model bundle at /nowhere"),
        ((), {"MODEL_URI": "models:/m@champion"}, "service: models:/m@champion needs MLFLOW_TRACKING_URI"),
        (
            (),
            {"MODEL_URI": "models:/m@champion", "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"},
            "service: the MLflow server http://127.0.0.1:9 can't be reached",
        ),
        (("--read-only",), {}, "service: PROMETHEUS_MULTIPROC_DIR: "),
    ],
)
def test_what_it_cannot_run_with_is_one_clear_line(slim, options, environment, start):
    message = failed_start(slim, *options, **environment)
    assert message.startswith(start)
    assert message.count("\n") == 1


# --- how it is built ---


def test_a_missing_bundle_fails_the_build_and_says_which(bundle, tmp_path):
    empty = lay_out(tmp_path / "context", bundle)
    shutil.rmtree(empty / "models")
    with pytest.raises(FailedError, match=r"models/bundle.*not found"):
        build(empty, "--load", "--tag", "atlas-test-never")


def test_another_bundle_is_a_context_of_its_own_and_only_what_serves_goes_in(context, bundle, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(bundle, other)
    (other / "note").write_text("the other one")
    (other / "evaluated").mkdir()
    (other / "evaluated" / "bundle.json").write_text("{}")
    tag = "atlas-test:another-bundle"
    # Not exported to a folder: BuildKit then hangs now and then, if there are many files (moby/buildkit issue 2950).
    build(context, "--build-context", f"bundle={other}", "--load", "--tag", tag, target="app")
    try:
        within = docker("run", "--rm", "--network", "none", tag, "ls", "models/bundle").split()
    finally:
        docker("image", "rm", "--force", tag)
    assert sorted(within) == sorted([*(path.name for path in bundle.iterdir()), "note"])


def test_secrets_and_indexes_are_used_and_leave_no_trace_and_the_digest_is_always_the_same(
    context, bundle, tmp_path, record_property
):
    def digest(where: Path, *options: str) -> str:
        archive = tmp_path / f"{len(list(tmp_path.glob('*.tar')))}.tar"
        output = f"type=oci,dest={archive},rewrite-timestamp=true"
        try:
            build(where, "--provenance=false", "--output", output, *options, arguments=epoch)
        except FailedError as error:
            if "exporter is not supported" in str(error):
                pytest.skip("this builder can't write OCI archives: docker buildx create --use")
            raise
        with tarfile.open(archive) as tar:
            (manifest,) = json.load(tar.extractfile("index.json"))["manifests"]  # type: ignore[arg-type]
            found = str(manifest["digest"])
            layers = json.load(tar.extractfile(f"blobs/sha256/{found[7:]}"))["layers"]  # type: ignore[arg-type]
        record_property("compressed layers", [layer["size"] for layer in layers])
        print(f"{found}, compressed layers {[round(layer['size'] / 1e6, 1) for layer in layers]} MB")
        return found

    epoch = {"SOURCE_DATE_EPOCH": "0", **LABELS}
    first = digest(context)

    # Another checkout: other file times and modes, no cache, a private pip configuration and certificate.
    other = lay_out(tmp_path / "other", bundle)
    # An old time that no other run uses: BuildKit assumes that files with the same name, size and time are the same.
    old = time.time() - 200_000_000
    for path in other.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
        os.utime(path, (old, old))
    (other / "service" / "__pycache__").mkdir()
    (other / "service" / "__pycache__" / "app.cpython-311.pyc").write_bytes(b"left over")
    (other / "models" / "bundle" / "evaluated").mkdir()
    (other / "models" / "bundle" / "evaluated" / "bundle.json").write_text("{}")
    pip = tmp_path / "pip.conf"
    pip.write_text("[global]\nfind-links = /a/private/place\n")
    certificates = tmp_path / "ca.crt"
    certificates.write_text(docker("run", "--rm", base_image(), "cat", "/etc/ssl/certs/ca-certificates.crt"))
    secrets = ("--secret", f"id=pip,src={pip}", "--secret", f"id=ca,src={certificates}")
    assert digest(other, "--no-cache", *secrets) == first, "neither the secrets nor the checkout change the image"


@pytest.mark.parametrize(
    ("secret", "content", "error"),
    [
        ("pip", "[global]\nindex-url = http://127.0.0.1:9/a-private-index\nretries = 0\n", "No matching distribution"),
        ("ca", "no certificate\n", "(?i)certificate|x509|TLS CA"),
    ],
)
def test_each_secret_reaches_pip(context, tmp_path, secret, content, error):
    file = tmp_path / secret
    file.write_text(content)
    # BuildKit runs equal steps of two builds once: with equal files, another test's build would fail with this one.
    own = shutil.copytree(context, tmp_path / "context")
    with (own / "requirements" / "service.txt").open("a") as locked:
        locked.write(f"# {uuid.uuid4()}\n")
    with pytest.raises(FailedError, match=error):
        build(own, "--no-cache", "--output", "type=cacheonly", "--secret", f"id={secret},src={file}")


def test_history_and_configuration_name_no_index_and_no_secret(slim):
    told = docker("history", "--no-trunc", slim) + json.dumps(inspect(slim)["Config"])
    assert "://" not in told
    for word in ("pip.conf", "index", "secret", "token", "password"):
        assert word not in told.lower()
