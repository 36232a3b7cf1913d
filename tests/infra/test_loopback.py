"""This machine is never asked through a proxy."""

import http.server
import threading
import urllib.error

import pytest

from infra.loopback import open_url, spare_loopback

OURS = "127.0.0.1,localhost,::1"


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"the machine itself")

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.slow
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_url_of_this_machine_is_opened_directly(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with open_url(f"http://{host}:{server.server_port}/", timeout=10) as response:
            assert response.read() == b"the machine itself"
        server.shutdown()
    with pytest.raises(urllib.error.URLError, match="refused"):
        open_url("http://elsewhere.invalid/", timeout=10)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, None),
        ({"NO_PROXY": "corp.example"}, "corp.example"),
        ({"http_proxy": "http://p:1"}, OURS),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "corp.example"}, f"corp.example,{OURS}"),
        ({"http_proxy": "http://p:1", "no_proxy": "localhost, .corp"}, "localhost, .corp,127.0.0.1,::1"),
        ({"http_proxy": "http://p:1", "no_proxy": "*"}, "*"),
    ],
)
def test_no_proxy_gets_this_machine_where_there_is_a_proxy(given: dict[str, str], expected: str | None) -> None:
    environment = dict(given)
    spare_loopback(environment)
    assert environment.get("no_proxy", environment.get("NO_PROXY")) == expected
    if environment != given:
        assert environment["no_proxy"] == environment["NO_PROXY"]
    again = dict(environment)
    spare_loopback(again)
    assert again == environment
