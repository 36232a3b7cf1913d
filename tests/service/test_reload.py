"""SIGHUP swaps in a new bundle without a failed request; a bad one is refused, and the old one keeps answering."""

import http.client
import json
import shutil
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from ml.bundle import read_manifest
from tests.bundles import make_bundle
from tests.service.test_process import BODY, PATIENCE, Service, start, wait_until

__all__ = ["start"]

pytestmark = pytest.mark.slow


def version(service: Service) -> str:
    return str(json.loads(service.request("GET", "/health/ready")[1])["model"]["version"])


def lines(service: Service, message: str) -> list[dict[str, object]]:
    found = [json.loads(line) for line in service.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in found if message in str(line.get("message", ""))]


def test_a_new_bundle_takes_over_under_load_without_a_failed_request(start, tmp_path: Path) -> None:
    path = make_bundle(tmp_path / "bundle")
    service = start(MODEL_URI=path)
    first, before = version(service), {worker.pid for worker in service.workers()}
    failed: list[object] = []
    answered: list[str] = []
    over = threading.Event()

    def call(keep: bool) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=PATIENCE)
        while not over.is_set():
            try:
                connection.request("POST", "/predict", BODY, {"Content-Type": "application/json"})
                response = connection.getresponse()
                document = json.loads(response.read())
                if response.status != 200:
                    failed.append(document)
                answered.append(document["model"]["version"])
            except OSError as error:
                failed.append(error)
            if not keep:
                connection.close()
        connection.close()

    with ThreadPoolExecutor(4) as pool:
        callers = [pool.submit(call, number % 2 == 0) for number in range(4)]
        wait_until(lambda: len(answered) > 50, service)
        versions = [first]

        def swapped(times: int) -> bool:
            return len(lines(service, "the new bundle answers")) == times

        def more_than(place: int) -> bool:
            return len(answered) > place

        for seed in (2, 3):
            make_bundle(path, seed=seed)
            versions.append(read_manifest(path).version)
            service.process.send_signal(signal.SIGHUP)
            wait_until(partial(swapped, seed - 1), service)
            wait_until(partial(more_than, len(answered) + 50), service)
        over.set()
        for caller in callers:
            caller.result(PATIENCE)
    assert failed == []
    assert set(answered) == set(versions)
    wait_until(lambda: len(service.workers()) == 2, service)
    assert not before & {worker.pid for worker in service.workers()}
    assert {version(service) for _ in range(6)} == {versions[-1]}
    assert f'atlas_model_info{{name="small-binary",version="{first}"}}' not in service.request("GET", "/metrics")[1]


def test_a_bad_bundle_is_refused_with_a_line_and_the_old_one_keeps_answering(start, tmp_path: Path) -> None:
    path = make_bundle(tmp_path / "bundle")
    service = start(MODEL_URI=path)
    first, workers = version(service), {worker.pid for worker in service.workers()}
    (path / "model.onnx").write_bytes(b"no model")
    service.process.send_signal(signal.SIGHUP)
    wait_until(lambda: len(lines(service, "refused")) == 1, service)
    (line,) = lines(service, "refused")
    assert "model.onnx doesn't match bundle.json" in str(line["reason"])
    assert line["version"] == first
    # A worker that starts later has the bundle that was accepted, and not what is in the folder.
    shutil.rmtree(path)
    service.workers()[0].kill()
    wait_until(lambda: len({w.pid for w in service.workers()} - workers) == 1 and len(service.workers()) == 2, service)
    assert {service.request("POST", "/predict", BODY)[0] for _ in range(8)} == {200}
    assert version(service) == first
    service.process.send_signal(signal.SIGHUP)
    wait_until(lambda: len(lines(service, "refused")) == 2, service)
    assert "no model bundle at" in str(lines(service, "refused")[1]["reason"])


def test_the_same_bundle_starts_no_worker(start, tmp_path: Path) -> None:
    service = start(MODEL_URI=make_bundle(tmp_path / "bundle"))
    workers = {worker.pid for worker in service.workers()}
    service.process.send_signal(signal.SIGHUP)
    wait_until(lambda: bool(lines(service, "the bundle is the same")), service)
    assert {worker.pid for worker in service.workers()} == workers
