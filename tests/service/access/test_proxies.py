"""The caller's address is the connection's, unless a trusted proxy says another."""

from collections.abc import Callable
from ipaddress import ip_address, ip_network

import flask
import hypothesis.strategies as st
import pytest
from hypothesis import given

from service.access.proxies import Forwarded, caller
from tests.service.keyring import KeyRing, bearer

TRUSTED = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


@pytest.mark.parametrize(
    ("peer", "chain", "found"),
    [
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),  # not a proxy's connection: what it says doesn't count
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "192.0.2.66, 198.51.100.1", "198.51.100.1"),  # the caller itself sent the first
        ("10.0.0.1", "192.0.2.66, 198.51.100.1, 10.0.0.2", "198.51.100.1"),  # two proxies
        ("10.0.0.1", "192.0.2.66, unknown, 10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1:4711", "198.51.100.1"),
        ("10.0.0.1", "[2001:db8::1]:4711", "2001:db8::1"),
        ("10.0.0.1", '"[2001:db8::1]"', "2001:db8::1"),
        ("fd00::1", "2001:db8::1", "2001:db8::1"),
        ("10.0.0.1", "::ffff:198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "198.51.100.1,,", "10.0.0.1"),
    ],
)
def test_the_address_is_the_last_that_a_trusted_proxy_saw(peer: str, chain: str, found: str) -> None:
    assert caller(ip_address(peer), chain, TRUSTED) == ip_address(found)


@given(st.text(), st.sampled_from(["10.0.0.1", "203.0.113.9"]))
def test_a_caller_cannot_choose_its_address(said: str, peer: str) -> None:
    """Whatever a caller sends, a proxy appends the caller's real address."""
    real = ip_address("198.51.100.1")
    expected = real if peer == "10.0.0.1" else ip_address(peer)
    assert caller(ip_address(peer), f"{said}, {real}", TRUSTED) == expected


SAID = {
    "HTTP_X_FORWARDED_FOR": "192.0.2.1", "HTTP_X_FORWARDED_PROTO": "https", "HTTP_X_FORWARDED_HOST": "evil.example",
    "HTTP_FORWARDED": "for=192.0.2.2;host=evil.example;proto=https", "HTTP_X_REAL_IP": "192.0.2.3",
}  # fmt: skip


@pytest.mark.parametrize("peer", ["203.0.113.9", "10.0.0.1"])
def test_without_the_setting_nothing_that_a_proxy_says_counts(
    make_app: Callable[..., flask.Flask], caplog: pytest.LogCaptureFixture, peer: str
) -> None:
    caplog.set_level("INFO", "service")
    answer = (
        make_app()
        .test_client()
        .get("/", environ_overrides={"PATH_INFO": "/v2//models/stats", "REMOTE_ADDR": peer, **SAID})
    )
    assert answer.headers["Location"] == "http://localhost/v2/models/stats"
    assert caplog.records[-1].__dict__["fields"]["client"] == peer


def test_with_it_the_address_and_the_scheme_count_but_never_the_host(
    make_app: Callable[..., flask.Flask], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "service")
    client = make_app(trusted_proxies="10.0.0.0/8").test_client()
    for peer, address, scheme in (("10.0.0.1", "192.0.2.1", "https"), ("203.0.113.9", "203.0.113.9", "http")):
        answer = client.get("/", environ_overrides={"PATH_INFO": "/v2//models/stats", "REMOTE_ADDR": peer, **SAID})
        assert answer.headers["Location"] == f"{scheme}://localhost/v2/models/stats"
        assert caplog.records[-1].__dict__["fields"]["client"] == address


def test_an_address_that_is_none_changes_nothing() -> None:
    seen = {}
    Forwarded(lambda environ, _: seen.update(environ) or [], TRUSTED)({"REMOTE_ADDR": "", **SAID}, lambda *_: None)  # type: ignore[arg-type]
    assert seen["REMOTE_ADDR"] == ""


NEAR = {"REMOTE_ADDR": "127.0.0.1"}
FAR = {"REMOTE_ADDR": "203.0.113.9"}


def test_metrics_are_for_the_named_networks(make_app: Callable[..., flask.Flask]) -> None:
    client = make_app(metrics_networks="127.0.0.0/8,::1/128").test_client()
    for peer in ("127.0.0.1", "::1", "::ffff:127.0.0.1"):
        assert client.get("/metrics", environ_overrides={"REMOTE_ADDR": peer}).status_code == 200
    ways = [FAR | {"PATH_INFO": path} for path in ("//metrics", "///metrics", "/metrics")]
    for environ in (*ways, {"REMOTE_ADDR": ""}, NEAR | {"HTTP_X_FORWARDED_FOR": "127.0.0.1"}, NEAR | SAID):
        refused = client.get("/metrics", environ_overrides=environ)
        assert (refused.status_code, refused.json["error"]["code"]) == (403, "forbidden")  # type: ignore[index]
    assert client.get("/version", environ_overrides=FAR).status_code == 200
    page = client.get("/metrics", environ_overrides=NEAR).text
    assert 'atlas_requests_refused_total{reason="network"} 6.0' in page


def test_metrics_are_for_the_named_networks_or_a_key(
    make_app: Callable[..., flask.Flask], ring: KeyRing, every_look: None
) -> None:
    client = make_app(metrics_networks="127.0.0.1", api_keys_file=ring.path, trusted_proxies="10.0.0.1").test_client()
    token = ring.add("prometheus")
    assert client.get("/metrics", environ_overrides=NEAR).status_code == 200
    assert client.get("/metrics", environ_overrides=FAR).status_code == 401
    assert client.get("/metrics", environ_overrides=FAR, headers=bearer(token)).status_code == 200
    through = {"REMOTE_ADDR": "10.0.0.1", "HTTP_X_FORWARDED_FOR": "127.0.0.1, 203.0.113.9"}
    assert client.get("/metrics", environ_overrides=through).status_code == 401
    ring.path.write_text("{")
    assert "atlas_api_keys_file_broken 1.0" in client.get("/metrics", environ_overrides=NEAR).text


def test_docs_can_be_off(make_app: Callable[..., flask.Flask]) -> None:
    client = make_app(docs="false").test_client()
    for path in ("/docs", "/docs/swagger-ui.css", "/openapi.json"):
        assert client.get(path).status_code == 404
    page = client.get("/").text
    assert "/docs" not in page
    assert "/metrics" in page
