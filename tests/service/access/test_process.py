"""`python -m service` with API keys: two workers under gunicorn, and callers with real sockets."""

import http.client
import json
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from service.access.keys import new_token
from tests.bundles import EXAMPLE
from tests.service.keyring import KeyRing, bearer
from tests.service.test_process import PATIENCE, Service, receive, start, wait_until

__all__ = ["start"]

pytestmark = pytest.mark.slow

BODY = json.dumps({"rows": [EXAMPLE]}).encode()
JSON = {"Content-Type": "application/json"}


class Caller:
    """A caller whose connection stays open as long as the service lets it."""

    def __init__(self, service: Service, token: str) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=PATIENCE)
        self.headers = JSON | bearer(token)

    def predict(self) -> int:
        self.connection.request("POST", "/predict", BODY, self.headers)
        response = self.connection.getresponse()
        response.read()
        return response.status


@pytest.fixture
def call() -> Iterator[Callable[[Service, str], Caller]]:
    """Makes callers, and closes their connections at the end."""
    made: list[Caller] = []

    def make(service: Service, token: str) -> Caller:
        made.append(Caller(service, token))
        return made[-1]

    yield make
    for caller in made:
        caller.connection.close()


def test_a_rotation_reaches_open_connections_of_all_workers_and_fails_nobody_else(
    start, ring: KeyRing, call: Callable[[Service, str], Caller]
) -> None:
    old, other = ring.add("shop"), ring.add("other")
    service = start(API_KEYS_FILE=ring.path)
    callers = [call(service, old) for _ in range(6)]
    steady, ended, statuses = call(service, other), threading.Event(), set()

    def ask() -> None:
        while not ended.is_set():
            statuses.add(steady.predict())

    def first_process_knows(changes: int) -> bool:
        """gunicorn's first process writes the log lines; workers that start later get its keys."""
        return service.log.read_text().count("the API keys have changed") == changes

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        assert {caller.predict() for caller in callers} == {200}
        new = ring.add("shop")
        fresh = [call(service, new) for _ in range(6)]
        wait_until(lambda: all(caller.predict() == 200 for caller in fresh), service)
        wait_until(lambda: first_process_knows(1), service)
        assert {caller.predict() for caller in callers} == {200}
        ring.entries = [entry for entry in ring.entries if entry is not ring.entries[0]]
        ring.write()
        wait_until(lambda: all(caller.predict() == 401 for caller in callers), service)
        wait_until(lambda: first_process_knows(2), service)
        assert {caller.predict() for caller in fresh} == {200}
        ring.path.write_text('{"keys": [')  # as a hand would leave it
        wait_until(lambda: "can't be used" in service.log.read_text(), service)
        assert {caller.predict() for caller in fresh} == {200}
    finally:
        ended.set()
        thread.join()
    # A worker that starts now begins with the newest keys that could be used, not with those of the start.
    for worker in (killed := service.workers()):
        worker.kill()
    wait_until(lambda: not set(killed) & set(service.workers()) and len(service.workers()) == 2, service)
    assert {call(service, new).predict() for _ in range(6)} == {200}
    assert {call(service, old).predict() for _ in range(6)} == {401}
    text = service.log.read_text()
    assert text.count("the API keys have changed") == 2
    assert text.count("can't be used, the old keys stay in force") == 1
    assert statuses == {200}
    for token in (old, new, other):
        assert token not in text


def test_workers_share_a_limit_exactly(start, ring: KeyRing, call: Callable[[Service, str], Caller]) -> None:
    token = ring.add("shop", per_second=0.0001, burst=25)
    service = start(API_KEYS_FILE=ring.path)
    statuses = [call(service, token).predict() for _ in range(40)]
    assert (statuses.count(200), statuses.count(429)) == (25, 15)


def test_pipelined_requests_are_asked_for_their_own_keys(start, ring: KeyRing) -> None:
    token = ring.add("shop")
    service = start(API_KEYS_FILE=ring.path)
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" % len(BODY)
    good = head + b"Authorization: Bearer %s\r\n\r\n" % token.encode() + BODY
    answers = receive(service.raw(good + head + b"\r\n" + BODY + good))
    assert re.findall(rb"HTTP/1.1 (\d+)", answers) == [b"200", b"401"], "nothing is read behind a request without key"
    twice = head + b"Authorization: Bearer %s\r\n" % token.encode() * 2 + b"\r\n"
    assert receive(service.raw(twice + BODY)).startswith(b"HTTP/1.1 401 ")
    underscore = head + b"X_API_Key: %s\r\n\r\n" % token.encode() + BODY
    assert receive(service.raw(underscore)).startswith(b"HTTP/1.1 401 ")
    folded = head + b"Authorization: Bearer\r\n %s\r\n\r\n" % token.encode() + BODY
    assert not receive(service.raw(folded)).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("token", ["", new_token()], ids=["no key", "an unknown key"])
def test_a_body_without_a_known_key_is_not_waited_for(start, ring: KeyRing, token: str) -> None:
    service = start(API_KEYS_FILE=ring.path)
    for body in (
        b"Content-Length: 1000000",
        b"Transfer-Encoding: chunked",
        b"Content-Length: 9\r\nExpect: 100-continue",
    ):
        head = b"POST /predict HTTP/1.1\r\nHost: x\r\nX-API-Key: %s\r\n%s\r\n\r\n" % (token.encode(), body)
        connection = service.raw(head)
        answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 401 ")
        assert b"Connection: close" in answer
        connection.shutdown(socket.SHUT_RDWR)
        connection.close()


def test_a_key_as_large_as_a_head_may_be_is_refused_and_a_larger_one_ends_the_connection(start, ring: KeyRing) -> None:
    service = start(API_KEYS_FILE=ring.path)
    for size, status in ((30_000, b"401"), (1_000_000, b"431")):
        with service.raw(b"GET /version HTTP/1.1\r\nHost: x\r\nX-API-Key: ") as connection:
            try:
                connection.sendall(b"a" * size + b"\r\n\r\n")
            except OSError:
                assert status == b"431"
            assert connection.recv(65536).split()[1] == status


def test_it_does_not_start_without_its_keys(start, ring: KeyRing) -> None:
    ring.path.write_text("{")
    with pytest.raises(AssertionError, match=r"service: API_KEYS_FILE: .*keys.json: "):
        start(API_KEYS_FILE=ring.path)


def test_a_reload_keeps_the_limits(start, ring: KeyRing, call: Callable[[Service, str], Caller]) -> None:
    token = ring.add("shop", per_second=0.0001, burst=3)
    service = start(API_KEYS_FILE=ring.path)
    assert [call(service, token).predict() for _ in range(3)] == [200, 200, 200]
    service.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "the bundle is the same as before" in service.log.read_text(), service)
    assert call(service, token).predict() == 429
