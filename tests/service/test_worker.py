"""The worker's event loop and threads, on real sockets, without a process of their own."""

import contextlib
import http.client
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.message import Message
from typing import Any

import pytest

from service import worker
from service.connection import HEAD_BYTES
from service.worker import Limits
from tests.service.serving import PATIENCE, RunningFront

pytestmark = pytest.mark.slow

HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"


class Application:
    """A WSGI application that tells what it saw; /wait and `held` paths answer when the test lets them."""

    def __init__(self) -> None:
        self.held: set[str] = {"/wait"}
        self.go = threading.Event()
        self.entered = threading.Semaphore(0)
        self.closed = threading.Event()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., None]) -> Any:
        path = environ["PATH_INFO"]
        if path in self.held:
            self.entered.release()
            assert self.go.wait(PATIENCE)
        if path == "/fail":
            raise RuntimeError("as the test wants")
        if path == "/stream":
            start_response("200 OK", [("Content-Type", "text/plain")])
            return self.stream(int(environ["QUERY_STRING"]))
        body = environ["wsgi.input"].read()
        seen = {key: value for key, value in environ.items() if isinstance(value, str)}
        answer = json.dumps({"body": body.decode("latin-1"), **seen}).encode()
        start_response("200 OK", [("Content-Length", str(len(answer)))])
        return [answer]

    def stream(self, parts: int) -> Iterator[bytes]:
        try:
            for _ in range(parts):
                yield b"x" * 100_000
            if not parts:
                yield b"begun"
                raise RuntimeError("as the test wants")
        finally:
            self.closed.set()


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Message
    body: bytes


class Server(RunningFront):
    """A front with the application above."""

    def __init__(self, **limits: Any) -> None:
        given = {"threads": 1, "max_waiting": 8, "request_timeout": PATIENCE, "max_body_bytes": 1000, "grace": 1}
        self.app = Application()
        self._sockets: list[socket.socket] = []
        super().__init__(self.app, Limits(**given | limits))

    def __exit__(self, *_: object) -> None:
        self.app.go.set()
        for connection in self._sockets:
            connection.close()
        super().__exit__()

    def wait_for_requests(self, number: int) -> None:
        """Until so many requests are being answered or wait for a thread."""
        while self.in_loop(lambda: self.front._predictions._unfinished) < number:
            pass

    def raw(self, text: bytes = b"") -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        self._sockets.append(connection)
        connection.sendall(text)
        return connection

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()


def received(connection: socket.socket) -> bytes:
    """All that the server sends until it closes the connection."""
    data = b""
    with connection:
        while True:
            try:
                more = connection.recv(65536)
            except ConnectionResetError:
                return data
            if not more:
                return data
            data += more


@pytest.mark.parametrize(
    ("sent", "answer"),
    [(b"", b""), (b"POST /pre", b"408"), (HEAD[:40], b"408"), (HEAD + b"half", b"408")],
    ids=["nothing", "half a request line", "half the headers", "half a body"],
)
def test_a_caller_who_stalls_is_cut_off_and_slows_nobody(sent, answer):
    with Server(request_timeout=0.3) as server:
        stalled = [server.raw(sent) for _ in range(50)]
        assert server.ask("POST", "/predict", b"x").status == 200
        assert server.ask("GET", "/health/live").status == 200
        for connection in stalled:
            assert received(connection)[9:12] == answer


def test_a_caller_who_sends_a_byte_now_and_then_has_no_more_time_than_others():
    with Server(request_timeout=0.3) as server:
        connection = server.raw()
        connection.settimeout(0.02)  # the pace of the bytes
        answer = b""
        for byte in HEAD * 100:
            try:
                connection.sendall(bytes([byte]))
                answer += connection.recv(1000)
                break
            except TimeoutError:
                continue
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"REQUEST_TIMEOUT" in answer
        assert server.refused == {"too_slow": 1}


def test_a_caller_who_takes_no_answer_is_cut_off_and_gets_no_further_answers():
    with Server(request_timeout=0.3) as server:
        connection = server.raw()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(b"GET /stream?1000 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert server.app.closed.wait(PATIENCE)  # 100 MB were to be sent
        assert server.ask("GET", "/").status == 200


def test_a_caller_who_takes_a_stream_slowly_has_no_more_time_than_for_another_answer():
    with Server(request_timeout=2) as server:
        connection = server.raw()
        connection.sendall(b"GET /stream?10000 HTTP/1.1\r\nHost: x\r\n\r\n")
        # Each part of 100,000 bytes is taken long before its own time is over, and all of them would take minutes.
        until = time.monotonic() + PATIENCE
        while not server.app.closed.wait(0.03) and time.monotonic() < until:
            with contextlib.suppress(ConnectionResetError):
                connection.recv(200_000)
        assert server.app.closed.is_set()
        assert server.ask("GET", "/").status == 200


def test_callers_of_metrics_keep_no_probe_waiting():
    with Server() as server:
        server.app.held.add("/metrics")
        for _ in range(100):
            server.raw(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert server.app.entered.acquire(timeout=PATIENCE)
        assert [server.ask("GET", probe).status for probe in ("/health/live", "/health/ready")] == [200, 200]
        assert server.ask("GET", "/").status == 200


def test_a_full_queue_is_a_503_that_says_when_to_try_again_while_probes_are_answered():
    with Server(threads=1, max_waiting=1) as server, ThreadPoolExecutor(2) as callers:
        waiting = [callers.submit(server.ask, "GET", "/wait")]
        assert server.app.entered.acquire(timeout=PATIENCE)
        waiting.append(callers.submit(server.ask, "GET", "/wait"))
        server.wait_for_requests(2)
        refused = server.ask("GET", "/other")
        assert refused.status == 503
        again = server.raw(b"GET /other HTTP/1.1\r\nHost: x\r\n\r\n")
        assert again.recv(100).startswith(b"HTTP/1.1 503 ")
        assert refused.headers["Retry-After"] == "1"
        assert json.loads(refused.body)["error"]["code"] == "overloaded"
        # Other protocols have other errors; their clients stumble over Atlas's.
        assert isinstance(json.loads(server.ask("POST", "/v2/models/m/infer", b"{}").body)["error"], str)
        assert json.loads(server.ask("POST", "/invocations", b"{}").body)["error_code"] == "TEMPORARILY_UNAVAILABLE"
        for probe in ("/health/live", "/health/ready", "/metrics", "/v2/health/ready", "/ping"):
            assert server.ask("GET", probe).status == 200
        server.app.go.set()
        assert [each.result(PATIENCE).status for each in waiting] == [200, 200]
        assert server.ask("GET", "/other").status == 200
        assert server.refused == {"overloaded": 4}
        while b"}" not in again.recv(1000):
            pass
        again.sendall(b"GET /other HTTP/1.1\r\nHost: x\r\n\r\n")
        assert again.recv(100).startswith(b"HTTP/1.1 200 ")


def test_a_request_that_waited_too_long_is_refused_and_one_whose_caller_left_is_not_computed():
    with Server(request_timeout=0.3) as server, ThreadPoolExecutor(2) as callers:
        first = callers.submit(server.ask, "GET", "/wait")
        assert server.app.entered.acquire(timeout=PATIENCE)
        late = server.raw(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        gone = server.raw(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        server.wait_for_requests(3)
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        gone.close()  # with a reset, as a killed caller's system sends it
        while server.in_loop(lambda: len(server.front.connections)) > 2:
            pass
        begun = threading.Event()
        threading.Timer(0.4, begun.set).start()  # longer than the limit
        assert begun.wait(PATIENCE)
        server.app.go.set()
        assert first.result(PATIENCE).status == 200
        assert late.recv(100).startswith(b"HTTP/1.1 503 ")
        assert server.ask("GET", "/").status == 200
        assert not server.app.entered.acquire(blocking=False)


def test_when_stopping_each_answer_is_the_last_on_its_connection(monkeypatch):
    monkeypatch.setattr(worker, "KEEP_ALIVE", 0.3)
    with Server() as server:
        idle, fresh, half = server.raw(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"), server.raw(), server.raw(HEAD)
        assert b"keep-alive" in idle.recv(10_000)
        busy = server.raw(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        assert server.app.entered.acquire(timeout=PATIENCE)
        while server.in_loop(lambda: len(server.front.connections)) < 4:
            pass
        server.in_loop(server.front.stop)
        assert received(fresh) == b""
        assert received(idle) == b""
        server.app.go.set()
        half.sendall(b"0123456789")
        for connection in (busy, half):
            answer = received(connection)
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b"\r\nConnection: close\r\n" in answer


def test_a_worker_full_of_connections_closes_the_one_that_has_waited_longest(monkeypatch):
    monkeypatch.setattr(worker, "CONNECTIONS", 2)
    with Server() as server:
        first, second = server.raw(HEAD), server.raw(HEAD)
        while server.in_loop(lambda: len(server.front.connections)) < 2:
            pass
        assert server.in_loop(server.front.make_room)
        assert received(first).startswith(b"HTTP/1.1 408 ")
        second.sendall(b"0123456789")
        assert second.recv(100).startswith(b"HTTP/1.1 200 ")


def test_bodies_that_fill_the_memory_push_out_the_one_that_has_been_sent_longest(monkeypatch):
    monkeypatch.setattr(worker, "HELD_BYTES", 1500)
    with Server() as server:
        half = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n" + b"x" * 800
        first = server.raw(half)
        while server.in_loop(lambda: server.front._held) < 800:
            pass
        second = server.raw(half)
        assert received(first).startswith(b"HTTP/1.1 408 ")
        second.sendall(b"x" * 200)
        assert second.recv(100).startswith(b"HTTP/1.1 200 ")
        while server.in_loop(lambda: server.front._held):
            pass


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00", b"400"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\nHost: x\n\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", b"400"),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", b"501"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", b"501"),
        (b"GET /" + b"x" * HEAD_BYTES + b" HTTP/1.1\r\n\r\n", b"431"),
        (b"GET /" + b"x" * HEAD_BYTES, b"431"),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 101 + b"\r\n", b"431"),
    ],
)
def test_what_is_not_http_is_refused_in_one_clear_answer(sent, status, caplog):
    with Server() as server:
        connection = server.raw(sent)
        answer = received(connection)
        assert answer.startswith(b"HTTP/1.1 " + status)
        document = json.loads(answer.partition(b"\r\n\r\n")[2])
        assert document["error"]["message"]
        assert server.refused == {"malformed": 1}
    assert [record.message for record in caplog.records] == []


@pytest.mark.parametrize(
    "rest",
    [b"Transfer-Encoding: gzip\r\n\r\n", b"A: b\r\n" * 101 + b"\r\n", b"Host : x\r\n\r\n"],
    ids=["encoding", "too many headers", "malformed"],
)
def test_a_refusal_has_the_form_of_the_protocol(rest):
    with Server() as server:
        for path, key in ((b"/v2/models/m/infer", "error"), (b"/invocations", "message")):
            answer = received(server.raw(b"POST " + path + b" HTTP/1.1\r\n" + rest))
            assert isinstance(json.loads(answer.partition(b"\r\n\r\n")[2])[key], str)


def test_requests_sent_at_once_are_answered_in_their_order():
    with Server(threads=4) as server:
        connection = server.raw(b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number for number in range(20)))
        connection.shutdown(socket.SHUT_WR)
        answers = received(connection).split(b"HTTP/1.1 200 OK")[1:]
        paths = [json.loads(answer.partition(b"\r\n\r\n")[2])["PATH_INFO"] for answer in answers]
        assert paths == [f"/{number}" for number in range(20)]


def test_a_body_that_is_too_large_reaches_the_application_by_its_length_only():
    with Server(max_body_bytes=100) as server:
        declared = json.loads(server.ask("POST", "/", b"x" * 3_000_000).body)
        assert (declared["CONTENT_LENGTH"], declared["body"]) == ("3000000", "")
        chunked = server.raw(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n96\r\n" + b"x" * 150 + b"\r\n")
        seen = json.loads(received(chunked).partition(b"\r\n\r\n")[2])
        assert int(seen["CONTENT_LENGTH"]) > 100
        assert seen["body"] == ""


def test_the_application_sees_the_request_as_pep_3333_has_it():
    with Server() as server:
        connection = server.raw(
            b"POST http://x/a%2Fb%20c?q=1 HTTP/1.1\r\nHost: x\r\nX-One: 1\r\nX_One: forged\r\nX-One: 2\r\n"
            b"Cookie: a=1\r\nCookie: b=2\r\nContent-Type: text/plain\r\n"
            b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
            b"2\r\nab\r\n1\r\nc\r\n0\r\nX-Late: 1\r\n\r\n"
        )
        seen = json.loads(received(connection).partition(b"\r\n\r\n")[2])
        wanted = {"PATH_INFO": "/a/b c", "QUERY_STRING": "q=1", "HTTP_X_ONE": "1,2", "HTTP_COOKIE": "a=1;b=2"}
        wanted |= {"CONTENT_TYPE": "text/plain", "CONTENT_LENGTH": "3", "body": "abc", "REMOTE_ADDR": "127.0.0.1"}
        assert wanted.items() <= seen.items()
        assert "HTTP_X_LATE" not in seen


@pytest.mark.parametrize(
    ("target", "path"),
    [("http://[/x", "/x"), ("http://x", "/"), ("http://", "/"), ("//x/y", "//x/y"), ("*", "/"), ("/%zz%", "/%zz%")],
)
def test_no_target_ends_a_thread(target, path):
    """There is only one: were it gone, the second request would wait for ever."""
    with Server() as server:
        for _ in range(2):
            connection = server.raw(f"OPTIONS {target} HTTP/1.1\r\nConnection: close\r\n\r\n".encode())
            assert json.loads(received(connection).partition(b"\r\n\r\n")[2])["PATH_INFO"] == path


def test_a_caller_may_wait_for_the_servers_consent_before_the_body():
    with Server() as server:
        connection = server.raw(HEAD[:-2] + b"Expect: 100-continue\r\n\r\n")
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"0123456789")
        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")


def test_an_upgrade_that_the_server_does_not_speak_is_ignored():
    with Server() as server:
        connection = server.raw(b"GET / HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n")
        assert received(connection).startswith(b"HTTP/1.1 200 ")


def test_a_stream_is_sent_in_chunks_and_breaks_off_when_the_application_fails():
    with Server() as server:
        assert len(server.ask("GET", "/stream?5").body) == 500_000
        with pytest.raises(http.client.IncompleteRead):
            server.ask("GET", "/stream?0")
        assert server.app.closed.is_set()
        old = server.raw(b"GET /stream?2 HTTP/1.0\r\n\r\n")
        assert len(received(old).partition(b"\r\n\r\n")[2]) == 200_000


def test_an_application_that_fails_is_a_500_and_a_head_request_has_no_body(caplog):
    with Server() as server:
        assert server.ask("GET", "/fail").status == 500
        assert "as the test wants" in caplog.text
        head = server.ask("HEAD", "/")
        assert (head.status, head.body) == (200, b"")
        assert int(head.headers["Content-Length"]) > 0
