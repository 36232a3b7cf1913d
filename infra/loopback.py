"""This machine's own addresses are never asked through a proxy, whatever HTTP_PROXY and NO_PROXY say."""

import urllib.request
from collections.abc import MutableMapping
from http.client import HTTPException, HTTPResponse
from typing import cast
from urllib.parse import urlsplit

LOOPBACK = "127.0.0.1"
HOSTS = (LOOPBACK, "localhost", "::1")
PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def open_url(url: str, timeout: float) -> HTTPResponse:
    """The answer of a GET request; raises like urllib's urlopen."""
    handlers = [urllib.request.ProxyHandler({})] if urlsplit(url).hostname in HOSTS else []
    return cast(HTTPResponse, urllib.request.build_opener(*handlers).open(url, timeout=timeout))


def answers(url: str) -> bool:
    """Whether it answers 200 within five seconds."""
    try:
        with open_url(url, timeout=5) as response:
            return bool(response.status == 200)
    except (OSError, HTTPException):
        return False


def spare_loopback(environment: MutableMapping[str, str]) -> None:
    """Add this machine to NO_PROXY, for gRPC, MLflow and the processes that inherit the environment.

    Without a proxy nothing changes: on macOS, NO_PROXY alone would hide the system's own proxy settings.
    """
    if not any(environment.get(name) or environment.get(name.upper()) for name in PROXIES):
        return
    known = (environment.get("no_proxy") or environment.get("NO_PROXY") or "").strip()
    if known == "*":
        return
    missing = [host for host in HOSTS if host not in known.replace(" ", "").split(",")]
    # Some programs read the one spelling, some the other.
    environment["no_proxy"] = environment["NO_PROXY"] = ",".join(filter(None, [known, *missing]))
