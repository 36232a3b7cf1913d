"""User data of a monitoring host: cloud-config that writes scripts and systemd units, and starts atlas-install.service.

The scripts are in files/: atlas-install downloads the pinned releases, atlas-config the configuration, and systemd
keeps everything running. A failed unit prints cause and remedy on the console and is tried again; `cloud-init status`
reports the result of the first try.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from infra.hosts.versions import RELEASES, Release
from infra.names import (
    ALERTMANAGER_PORT,
    GRAFANA_HEALTH,
    GRAFANA_PORT,
    NODE_EXPORTER_PORT,
    PROMETHEUS_PORT,
    PROMETHEUS_READY,
)

FILES = Path(__file__).with_name("files")
LIMIT = 16 * 1024
"""EC2's limit for user data, in bytes."""


@dataclass(frozen=True, slots=True)
class HostBoot:
    """The values that a host needs at its first start; none of them is secret."""

    role: Literal["prometheus", "grafana"]
    region: str
    config_uri: str
    """s3://BUCKET/PREFIX of its configuration."""
    cluster: str | None = None
    """The EKS cluster whose kubelets Prometheus scrapes."""
    volume_id: str | None = None
    """The EBS volume for Prometheus's data; None: the data is on the root disk."""
    secret_arn: str | None = None
    """The secret with Grafana's admin password; Grafana doesn't start without one."""
    mirror: str | None = None
    """A mirror for downloads instead of the official addresses: MIRROR/NAME/FILE (infra/hosts/versions.py)."""
    endpoint_url: str | None = None
    """An endpoint for all AWS services instead of the public endpoints, such as a private gateway."""
    releases: Sequence[Release] | None = None
    """The releases to install; None: the pinned releases of the role."""


def user_data(boot: HostBoot) -> str:
    """The cloud-config document.

    Raises ValueError when it exceeds EC2's limit, or when a host with it couldn't work or wouldn't be safe.
    """
    _check(boot)
    files = [
        _file("/etc/atlas/host.env", _environment(boot)),
        _file("/etc/atlas/releases", _releases(boot)),
        *([_file("/etc/atlas/grafana.ini", _read("grafana.ini"))] if boot.role == "grafana" else []),
        *(_file(f"/usr/local/sbin/{name}", _read(name), mode="0755") for name in _scripts(boot)),
        *(_file(f"/etc/systemd/system/{name}", _unit(name)) for name in _unit_files(boot)),
    ]
    document = {
        "write_files": files,
        # systemd retries the unit until it succeeds; cloud-init waits for the first try and reports its result.
        "runcmd": [
            "systemctl daemon-reload",
            "systemctl enable atlas-install.service",
            "systemctl start atlas-install.service",
        ],
    }
    text = "#cloud-config\n" + yaml.dump(document, Dumper=_Literal, sort_keys=False, width=1000)
    if len(text.encode()) > LIMIT:
        raise ValueError(
            f"user data has {len(text.encode())} bytes, but EC2's limit is {LIMIT}: shorten infra/hosts/files"
        )
    return text


def _check(boot: HostBoot) -> None:
    if not re.fullmatch(r"s3://[a-z0-9.-]+/.+", boot.config_uri):
        raise ValueError(f"config_uri is {boot.config_uri!r}, not s3://BUCKET/PREFIX")
    if boot.role == "grafana" and boot.secret_arn is None:
        raise ValueError("secret_arn is missing: without it Grafana would start with its default password")
    if boot.volume_id is not None and not re.fullmatch(r"vol-[0-9a-f]+", boot.volume_id):
        raise ValueError(f"volume_id is {boot.volume_id!r}, not the id of an EBS volume (vol-…)")


def _environment(boot: HostBoot) -> str:
    """A file that both bash and systemd read; both understand this quoting."""
    given = {
        "ROLE": boot.role,
        "AWS_REGION": boot.region,
        "AWS_DEFAULT_REGION": boot.region,
        "AWS_ENDPOINT_URL": boot.endpoint_url,
        "CONFIG_URI": boot.config_uri,
        "CLUSTER": boot.cluster,
        "VOLUME": boot.volume_id and boot.volume_id.replace("-", ""),
        "SECRET_ARN": boot.secret_arn,
        "UNITS": " ".join(_units(boot)),
        "ANSWERS": " ".join(f"http://127.0.0.1:{address}" for address in _answers(boot)),
    }
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in given.items() if value is not None)


def _releases(boot: HostBoot) -> str:
    chosen = RELEASES[boot.role] if boot.releases is None else boot.releases
    return "".join(f"{r.name} {r.version} {r.sha256} {r.url(boot.mirror)}\n" for r in chosen)


def _units(boot: HostBoot) -> list[str]:
    """The units that run after the installation, in the order of their start."""
    if boot.role == "grafana":
        own = ["atlas-grafana-password.service", "grafana.service"]
    else:
        volume = ["atlas-volume.service"] if boot.volume_id else []
        token = ["atlas-kubelet-token.timer"] if boot.cluster else []
        own = [*volume, *token, "prometheus.service", "alertmanager.service"]
    return ["node_exporter.service", *own, "atlas-config.timer"]


def _answers(boot: HostBoot) -> list[str]:
    own = (
        [f"{GRAFANA_PORT}{GRAFANA_HEALTH}"]
        if boot.role == "grafana"
        else [f"{port}{PROMETHEUS_READY}" for port in (PROMETHEUS_PORT, ALERTMANAGER_PORT)]
    )
    return [f"{NODE_EXPORTER_PORT}/metrics", *own]


def _unit_files(boot: HostBoot) -> list[str]:
    running = _units(boot)
    by_timer = [name.replace(".timer", ".service") for name in running if name.endswith(".timer")]
    return ["atlas-install.service", *running, *by_timer]


def _scripts(boot: HostBoot) -> list[str]:
    units = [Path(name).stem for name in _unit_files(boot) if name.endswith(".service")]
    return [name for name in units if name.startswith("atlas-")]


def _unit(name: str) -> str:
    return _read(name).replace("@HARDENING@\n", _read("hardening"))


def _read(name: str) -> str:
    return (FILES / name).read_text()


def _file(path: str, content: str, mode: str = "0644") -> Mapping[str, Any]:
    return {"path": path, "permissions": mode, "content": content}


class _Literal(yaml.SafeDumper):
    """Writes multi-line texts as blocks, so that people can read them."""


def _block(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Literal.add_representer(str, _block)
