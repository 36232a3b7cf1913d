"""`python -m service` as a process: two workers under gunicorn, and clients with real sockets."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.bundles import EXAMPLE

pytestmark = pytest.mark.slow

BODY = json.dumps({"rows": [EXAMPLE]}).encode()
REPOSITORY = Path(__file__).parents[2]
PATIENCE = 30
"""Time limit, in seconds, for waiting."""


@dataclass(frozen=True, slots=True)
class Service:
    process: subprocess.Popen[str]
    port: int
    log: Path

    def request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def raw(self, text: bytes) -> socket.socket:
        """A connection on which these bytes have been sent."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        connection.sendall(text)
        return connection

    def has_read(self, connection: socket.socket) -> bool:
        """Whether a worker has accepted the connection and read all that was sent on it."""
        port = connection.getsockname()[1]
        connections = [each for worker in self.workers() for each in worker.net_connections()]
        accepted = any(bool(each.raddr) and each.raddr.port == port for each in connections)
        return accepted and not unread(self.port, port)

    def predicted(self) -> float:
        """The number of predicted rows, from /metrics."""
        status, page = self.request("GET", "/metrics")
        assert status == 200, page
        lines = page.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("atlas_predictions_total{"))

    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()

    def ready(self) -> bool:
        try:
            return self.request("GET", "/health/ready")[0] == 200
        except OSError:
            return False


def environment(**variables: object) -> dict[str, str]:
    """This process's environment without the service's variables, and with the given variables."""
    ours = {
        "MODEL_URI",
        "PORT",
        "WORKERS",
        "THREADS",
        "MLFLOW_TRACKING_URI",
        "PROMETHEUS_MULTIPROC_DIR",
        "HOST",
        "API_KEYS_FILE",
    }
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    return kept | {name: str(value) for name, value in variables.items()}


def wait_until(condition: Callable[[], bool], service: Service) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert service.process.poll() is None, service.log.read_text()
        assert time.monotonic() < end, service.log.read_text()
        time.sleep(0.05)


def unread(port: int, peer: int) -> int:
    """Bytes that have arrived at the end `port` of a connection from `peer`, and that its process hasn't read yet.

    From Linux's /proc/net/tcp (proc(5)); 0 on other systems, which don't show it.
    """
    table = Path("/proc/net/tcp")
    lines = table.read_text().splitlines()[1:] if table.exists() else []
    for local, remote, _, queues in (line.split()[1:5] for line in lines):
        if int(local.split(":")[1], 16) == port and int(remote.split(":")[1], 16) == peer:
            return int(queues.split(":")[1], 16)
    return 0


def receive(connection: socket.socket) -> bytes:
    """All that the server sends until it closes the connection."""
    received = b""
    with connection:
        while more := connection.recv(65536):
            received += more
    return received


@pytest.fixture
def start(bundles: dict[str, Path], tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Starts the service with two workers and the given variables; stops it at the end."""
    started: list[subprocess.Popen[str]] = []

    def run(**variables: object) -> Service:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        log = tmp_path / f"service-{port}.log"
        defaults = {"MODEL_URI": bundles["binary"], "PORT": port, "WORKERS": 2}
        with log.open("w") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "service"], env=environment(**defaults | variables), stderr=file, text=True
            )
        started.append(process)
        service = Service(process, port, log)
        wait_until(service.ready, service)
        wait_until(lambda: len(service.workers()) == 2, service)
        return service

    yield run
    for process in started:
        process.terminate()
        process.wait(PATIENCE)


def test_metrics_are_the_sum_of_all_workers_and_survive_a_killed_one(start):
    service = start()
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda _: service.request("POST", "/predict", BODY)[0], range(60)))
    assert set(statuses) == {200}
    assert {service.predicted() for _ in range(12)} == {60.0}

    victim = service.workers()[0]
    victim.kill()
    wait_until(lambda: victim.pid not in {worker.pid for worker in service.workers()}, service)
    wait_until(lambda: len(service.workers()) == 2, service)
    wait_until(service.ready, service)
    service.request("POST", "/predict", BODY)
    assert {service.predicted() for _ in range(12)} == {61.0}


def test_a_dead_workers_gauges_go_and_a_new_start_counts_from_zero(start, tmp_path):
    shared = tmp_path / "metrics"
    shared.mkdir()
    (shared / "counter_1.db").write_bytes(b"left by an earlier run")
    service = start(PROMETHEUS_MULTIPROC_DIR=shared)
    assert service.predicted() == 0
    victim = service.workers()[0].pid
    wait_until((shared / f"gauge_livemax_{victim}.db").exists, service)
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: not (shared / f"gauge_livemax_{victim}.db").exists(), service)


def test_a_file_that_a_worker_has_just_created_does_not_break_the_metrics(start, tmp_path):
    """Also if the worker was killed before it wrote to the file."""
    shared = tmp_path / "metrics"
    shared.mkdir()
    service = start(PROMETHEUS_MULTIPROC_DIR=shared)
    (shared / "counter_99999.db").touch()
    assert service.request("POST", "/predict", BODY)[0] == 200
    assert service.predicted() == 1


def test_sigterm_lets_a_request_in_flight_finish(start):
    service = start()
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
    connection = service.raw(head.encode() + BODY[:10])
    wait_until(lambda: service.has_read(connection), service)
    service.process.send_signal(signal.SIGTERM)
    wait_until(lambda: "Handling signal: term" in service.log.read_text(), service)
    connection.sendall(BODY[10:])
    assert receive(connection).startswith(b"HTTP/1.1 200 ")
    assert service.process.wait(PATIENCE) == 0
    with pytest.raises(ConnectionRefusedError):
        service.request("GET", "/health/live")


def test_the_last_worker_can_still_count_when_another_has_stopped(start, tmp_path):
    service = start(TMPDIR=tmp_path)
    (shared,) = tmp_path.glob("atlas-metrics-*")
    first, last = service.workers()
    connection = service.raw(b"POST /predict HTTP/1.1\r\nHost: x\r\n")  # one of them waits for the rest of it
    wait_until(lambda: service.has_read(connection), service)
    service.process.send_signal(signal.SIGTERM)
    wait_until(lambda: not (first.is_running() and last.is_running()), service)
    assert shared.is_dir()
    head = f"Connection: close\r\nContent-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
    connection.sendall(head.encode() + BODY)
    assert receive(connection).startswith(b"HTTP/1.1 200 ")
    assert service.process.wait(PATIENCE) == 0
    assert not shared.exists()


def test_sigterm_does_not_wait_for_an_idle_connection_longer_than_it_may_stay_open(start):
    service = start()
    idle = http.client.HTTPConnection("127.0.0.1", service.port, timeout=PATIENCE)
    idle.request("GET", "/health/live")
    assert idle.getresponse().read()
    begun = time.monotonic()
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(PATIENCE) == 0
    assert time.monotonic() - begun < 9, "docker stop kills after 10 s"
    assert idle.sock.recv(1) == b""
    idle.close()


def test_a_connection_that_was_to_stay_open_gets_one_more_answer_after_sigterm(start):
    service = start()
    connections = [http.client.HTTPConnection("127.0.0.1", service.port, timeout=PATIENCE) for _ in range(8)]
    for connection in connections:
        connection.request("POST", "/predict", BODY, {"Content-Type": "application/json"})
        assert connection.getresponse().read()
    service.process.send_signal(signal.SIGTERM)
    wait_until(lambda: not service.ready(), service)
    for connection in connections:
        connection.request("POST", "/predict", BODY, {"Content-Type": "application/json"})
        response = connection.getresponse()
        assert (response.status, response.headers["Connection"]) == (200, "close")
        response.read()
    assert service.process.wait(PATIENCE) == 0


def test_a_steady_load_loses_no_request_to_sigterm(start):
    service = start()
    lost: list[object] = []
    answered: list[int] = []

    def call(keep: bool) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=PATIENCE)
        while True:
            try:
                connection.connect()
            except ConnectionRefusedError:
                return  # it has stopped: nothing was sent
            while True:
                try:
                    connection.request("POST", "/predict", BODY, {"Content-Type": "application/json"})
                    response = connection.getresponse()
                    response.read()
                except OSError as error:
                    lost.append(error)
                    break
                answered.append(response.status)
                if not keep or response.headers["Connection"] == "close":
                    break
            connection.close()

    with ThreadPoolExecutor(6) as pool:
        callers = [pool.submit(call, number % 2 == 0) for number in range(6)]
        time.sleep(1)
        service.process.send_signal(signal.SIGTERM)
        for caller in callers:
            caller.result(PATIENCE)
    assert not lost
    assert len(answered) > 50
    assert set(answered) == {200}


def test_broken_and_oversized_chunked_bodies_are_4xx(start):
    service = start(MAX_BODY_BYTES=2000)
    head = (
        b"POST /predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    chunk = b"%x\r\n%s\r\n0\r\n\r\n"
    for body, status in (
        (chunk % (len(BODY), BODY), b"200"),
        (b"ZZ\r\nabc\r\n0\r\n\r\n", b"400"),
        (chunk % (3000, b" " * 3000), b"413"),
    ):
        answer = receive(service.raw(head + body))
        assert answer.split(b" ")[1] == status, answer


def test_callers_who_stall_lose_their_connection_not_the_others_their_service(start):
    service = start(REQUEST_TIMEOUT=1, THREADS=1)
    stalled = [service.raw(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-") for _ in range(6)]
    assert service.request("POST", "/predict", BODY)[0] == 200
    for connection in stalled:
        receive(connection)


def test_the_log_is_json_with_the_callers_request_id(start):
    service = start()
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=PATIENCE)
    connection.request("POST", "/predict", BODY, {"Content-Type": "application/json", "X-Request-ID": "mine-1"})
    assert connection.getresponse().headers["X-Request-ID"] == "mine-1"
    connection.close()
    service.process.terminate()
    service.process.wait(PATIENCE)
    lines = [json.loads(line) for line in service.log.read_text().splitlines()]
    (mine,) = [line for line in lines if line.get("request_id") == "mine-1"]
    assert (mine["route"], mine["status"]) == ("/predict", 200)


def failed_start(**variables: object) -> str:
    """The messages on standard error of a start that must fail."""
    done = subprocess.run(
        [sys.executable, "-m", "service"],
        env=environment(**variables),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 1
    return done.stderr


def test_a_start_imports_nothing_that_only_some_requests_need():
    code = "import sys, service.app, service.worker; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    slow = {"google.protobuf", "google.protobuf.descriptor_pb2", "onnxruntime", "pandas", "sklearn"}
    assert not slow & set(found.stdout.split())


def test_sigterm_ends_a_start_too(bundles, tmp_path):
    log = tmp_path / "service.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-X", "importtime", "-m", "service"],
            env=environment(MODEL_URI=bundles["binary"], PORT=1024, TMPDIR=tmp_path),
            stderr=file,
            text=True,
        )
    while "ml.bundle" not in log.read_text():  # imported in the first third of the start
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0
    assert not list(tmp_path.glob("atlas-metrics-*"))


def test_no_writable_place_for_metrics_is_one_clear_line_at_start(bundles, tmp_path):
    (tmp_path / "file").touch()
    message = failed_start(MODEL_URI=bundles["binary"], PROMETHEUS_MULTIPROC_DIR=tmp_path / "file" / "metrics")
    assert message.startswith("service: PROMETHEUS_MULTIPROC_DIR: ")
    assert message.count("\n") == 1


def test_a_missing_bundle_is_one_clear_line_at_start(tmp_path):
    message = failed_start(MODEL_URI=tmp_path / "nothing")
    assert message.startswith("service: no model bundle at ")
    assert message.count("\n") == 1


def test_a_damaged_bundle_is_one_clear_line_at_start(bundles, tmp_path):
    damaged = tmp_path / "bundle"
    damaged.mkdir()
    for file in bundles["binary"].iterdir():
        (damaged / file.name).write_bytes(file.read_bytes())
    (damaged / "model.onnx").write_bytes(b"not a model")
    message = failed_start(MODEL_URI=damaged)
    assert "model.onnx doesn't match bundle.json" in message
    assert message.count("\n") == 1


def test_a_taken_port_is_one_clear_line_at_start(bundles):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        message = failed_start(MODEL_URI=bundles["binary"], PORT=port)
    assert message == (
        f"service: can't listen on 127.0.0.1, port {port}: Address already in use: choose another with PORT\n"
    )


def test_a_wrong_setting_is_one_clear_line_at_start():
    message = failed_start(WORKERS="many")
    assert message.startswith("service: WORKERS: ")
    assert message.count("\n") == 1
