"""The ports of the local stack: which are free, who holds the others, and which port each part gets."""

import socket
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from infra.errors import LocalError
from infra.local.processes import PROGRAM, marked
from infra.loopback import LOOPBACK
from infra.settings import LocalSettings

PARTS = ("service", "mlflow", "prometheus", "grafana", "materializer")
"""The parts of the stack, each with a setting for its port."""
AIRPLAY = frozenset({5000, 7000})
"""The ports of macOS's AirPlay receiver, which is on by default."""


def choose_ports(
    settings: LocalSettings, home: Path, say: Callable[[str], None], parts: Iterable[str] = PARTS
) -> dict[str, int]:
    """Part -> its port: what the stack file names, else its default; if another process uses that, the next free port.

    A part that runs on such a port keeps it while the other process uses the default.
    `say` gets a line for each port that differs from the default because another process uses it.
    Raises LocalError when the stack file names a port that another process uses.
    """
    own = own_ports(home)
    # An own process may hold the port of another part: the engine stops it before it starts the other.
    ours = {port for ports in own.values() for port in ports}
    defaults = {part: int(getattr(settings, f"{part}_port")) for part in PARTS}
    named = {part for part in PARTS if f"{part}_port" in settings.model_fields_set}
    chosen = {part: defaults[part] for part in parts if part in named}
    for part, port in chosen.items():
        if port not in ours:
            refuse_used_port(part, f"http://{LOOPBACK}:{port}")
    reserved = {defaults[part] for part in named}
    for part in parts:
        if part in named:
            continue
        port = defaults[part]
        if port not in ours and in_use(port):
            taken = reserved | set(defaults.values()) | set(chosen.values())
            mine = (other for other in sorted(own.get(part, ())) if other not in reserved)
            free = (other for other in range(port + 1, 65536) if other not in taken | ours and not in_use(other))
            chosen[part] = next(mine, None) or next(free, port)
            say(
                f"port {port} is used by {_holder(port)}: {part} gets port {chosen[part]} "
                f"(atlas:{part}Port in the stack file sets another)"
            )
        else:
            chosen[part] = port
        reserved.add(chosen[part])
    return chosen


def own_ports(home: Path) -> dict[str, set[int]]:
    """Program -> the ports on which its processes listen, for the stack whose files are below `home`."""
    found: dict[str, set[int]] = {}
    for process in marked(home):
        try:
            name = process.environ().get(PROGRAM)
            listening = [known for known in process.net_connections("tcp") if known.status == psutil.CONN_LISTEN]
        except (psutil.Error, OSError):
            continue
        if name:
            found.setdefault(name, set()).update(known.laddr.port for known in listening)
    return found


def refuse_used_port(name: str, url: str) -> None:
    """Raise LocalError when the port of the program's URL is in use; the message says by whom, and which setting to
    change."""
    address = urlsplit(url)
    port = address.port or 80
    if why := in_use(port, address.hostname or LOOPBACK):
        raise LocalError(
            f"{name} needs port {port}, which {_holder(port)} uses ({why}): "
            f"stop it, or choose another port in the stack file (atlas:{name}Port)"
        )


def accepts(url: str) -> bool:
    """Whether a process accepts connections at the URL's port."""
    address = urlsplit(url)
    return listens(address.port or 80, address.hostname or LOOPBACK)


def in_use(port: int, host: str = LOOPBACK) -> str | None:
    """Why the port can't be used; None if it is free."""
    if listens(port, host):
        # On macOS a bind can succeed beside a process that listens on all addresses.
        return "Address already in use"
    with socket.socket() as probe:
        # Like servers do, so that a port in TIME_WAIT counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.strerror or str(error)
    return None


def listens(port: int, host: str = LOOPBACK) -> bool:
    """Whether a process accepts connections at this port."""
    with socket.socket() as probe:
        probe.settimeout(5)
        # The system can connect a socket with itself if it gives it the very port to which it connects.
        return probe.connect_ex((host, port)) == 0 and probe.getsockname() != probe.getpeername()


def _holder(port: int) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                return f"process {connection.pid} ({psutil.Process(connection.pid).name()})"
    except psutil.Error:
        pass
    if sys.platform == "darwin" and port in AIRPLAY:
        return "another process, probably the AirPlay receiver (System Settings > General > AirDrop & Handoff)"
    return "another process"
