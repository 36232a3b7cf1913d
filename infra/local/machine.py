"""What the local stack's program must know about this machine: its ports, and where Prometheus and Grafana are."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from infra.errors import ToolError
from infra.local.ports import PARTS, choose_ports
from infra.local.releases import PROGRAMS, Found, find
from infra.settings import LocalSettings


@dataclass(frozen=True, slots=True)
class Machine:
    """What was found on this machine."""

    ports: Mapping[str, int] = field(default_factory=dict)
    """Part -> its port."""
    programs: Mapping[str, Found] = field(default_factory=dict)
    """prometheus and grafana, where they are."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """The others -> why they aren't there, and how to get them."""


def look(settings: LocalSettings, repository: Path, say: Callable[[str], None], *, install: bool) -> Machine:
    """Look for free ports and for Prometheus and Grafana; `install`: download or build them if necessary.

    Raises LocalError when the stack file names a port that another process uses.
    """
    programs, missing = {}, {}
    # The ports come first: they are a matter of milliseconds, a download is not.
    choose_ports(settings, repository / settings.directory, lambda _: None, ["service", "mlflow"])
    for name in PROGRAMS:
        try:
            programs[name] = find(name, say, mirror=settings.download_mirror, install=install)
        except ToolError as error:
            missing[name] = str(error)
    parts = [part for part in PARTS if part not in missing]
    return Machine(choose_ports(settings, repository / settings.directory, say, parts), programs, missing)
