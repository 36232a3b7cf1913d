"""Where a request comes from, if a proxy that is trusted says so.

Everybody can send X-Forwarded-For. So a proxy's headers count only on connections from a trusted address, and only as
far as the trusted proxies have written them. `Forwarded` and `X-Forwarded-Host` are never read.
"""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from service.settings import Network

Address = IPv4Address | IPv6Address
SAID = ("HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_HOST", "HTTP_FORWARDED", "HTTP_X_REAL_IP")
"""What proxies say of a request."""


class Forwarded:
    """Gives an application the caller's address and scheme in place of the proxy's."""

    def __init__(self, application: WSGIApplication, trusted: Sequence[Network]) -> None:
        self._application = application
        self._trusted = trusted

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        peer = parse(environ.get("REMOTE_ADDR", ""))
        if peer is not None and within(peer, self._trusted):
            client = caller(peer, environ.get("HTTP_X_FORWARDED_FOR", ""), self._trusted)
            environ["REMOTE_ADDR"] = str(client)
            scheme = environ.get("HTTP_X_FORWARDED_PROTO", "").rpartition(",")[2].strip().lower()
            if scheme in ("http", "https"):
                environ["wsgi.url_scheme"] = scheme
            for header in SAID:
                environ.pop(header, None)
        return self._application(environ, start_response)


def caller(peer: Address, chain: str, trusted: Sequence[Network]) -> Address:
    """The last address of the way here that is no trusted proxy's; `chain`: X-Forwarded-For, the nearest last."""
    found = peer
    for text in reversed(chain.split(",")):
        if not within(found, trusted):
            break
        address = parse(text)
        if address is None:  # what stands before it was said by nobody who is trusted
            break
        found = address
    return found


def parse(text: str) -> Address | None:
    """The address, which may have a port; an IPv4 address that IPv6 contains as IPv4. None if it is none."""
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def within(address: Address, networks: Sequence[IPv4Network | IPv6Network]) -> bool:
    """Whether the address is in one of the networks."""
    return any(address in network for network in networks)
