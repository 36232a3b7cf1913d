"""User data of a monitoring host: cloud-config that writes a few scripts and units, and starts the first of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from infra.hosts.versions import RELEASES, Release

FILES = Path(__file__).with_name("files")
LIMIT = 16 * 1024
"""EC2's, in bytes."""


@dataclass(frozen=True, slots=True)
class HostBoot:
    """What a host must know at its first start; nothing of it is secret."""

    role: Literal["prometheus", "grafana"]
    region: str
    config_uri: str
    """s3://BUCKET/PREFIX of its configuration."""
    cluster: str | None = None
    """The EKS cluster whose kubelets Prometheus asks."""
    volume_id: str | None = None
    """The EBS volume for Prometheus's data; None keeps it on the root disk."""
    secret_arn: str | None = None
    """The secret with Grafana's admin password."""
    mirror: str | None = None
    """Where software is fetched instead of the official addresses: MIRROR/NAME/FILE."""
    endpoint_url: str | None = None
    """AWS's address where it isn't the public one, such as a VPC endpoint."""
    retention: str = "15d"
    """How long Prometheus keeps samples."""
    releases: Sequence[Release] | None = None
    """What to install; None: the pinned ones of the role."""


def user_data(boot: HostBoot) -> str:
    """The cloud-config document.

    Raises ValueError when it is larger than EC2 takes.
    """
    files = [
        _file("/etc/atlas/host.env", _environment(boot)),
        _file("/etc/atlas/releases", _releases(boot)),
        *(_file(f"/usr/local/sbin/{name}", _read(name), mode="0755") for name in _scripts(boot)),
        *(_file(f"/etc/systemd/system/{name}", _unit(name, boot)) for name in _units(boot)),
    ]
    document = {
        "package_update": True,
        "packages": ["unzip"],
        "write_files": files,
        # The unit is tried again until it succeeds; cloud-init waits for the first try and reports it.
        "runcmd": ["systemctl daemon-reload", "systemctl enable atlas-install", "systemctl start atlas-install"],
    }
    text = "#cloud-config\n" + yaml.dump(document, Dumper=_Literal, sort_keys=False, width=1000)
    if len(text.encode()) > LIMIT:
        raise ValueError(f"user data has {len(text.encode())} bytes, EC2 takes {LIMIT}: shorten infra/hosts/files")
    return text


def _environment(boot: HostBoot) -> str:
    given = {
        "ROLE": boot.role,
        "AWS_REGION": boot.region,
        "AWS_DEFAULT_REGION": boot.region,
        "CONFIG_URI": boot.config_uri,
        "CLUSTER": boot.cluster,
        "VOLUME": (boot.volume_id or "").replace("-", "") or None,
        "SECRET_ARN": boot.secret_arn,
        "AWS_ENDPOINT_URL": boot.endpoint_url,
    }
    return "".join(f"{name}={value}\n" for name, value in given.items() if value is not None)


def _releases(boot: HostBoot) -> str:
    chosen = RELEASES[boot.role] if boot.releases is None else boot.releases
    return "".join(f"{r.name} {r.version} {r.sha256} {r.url(boot.mirror)}\n" for r in chosen)


def _scripts(boot: HostBoot) -> list[str]:
    own = ["atlas-kubelet-token"] if boot.role == "prometheus" else ["atlas-grafana-password"]
    return ["atlas-install", "atlas-config", *own]


def _units(boot: HostBoot) -> list[str]:
    shared = ["atlas-install.service", "atlas-config.service", "atlas-config.timer", "node_exporter.service"]
    if boot.role == "grafana":
        return [*shared, "grafana.service"]
    token = ["atlas-kubelet-token.service", "atlas-kubelet-token.timer"] if boot.cluster else []
    return [*shared, *token, "prometheus.service", "alertmanager.service"]


def _unit(name: str, boot: HostBoot) -> str:
    return _read(name).replace("@RETENTION@", boot.retention)


def _read(name: str) -> str:
    return (FILES / name).read_text()


def _file(path: str, content: str, mode: str = "0644") -> Mapping[str, Any]:
    return {"path": path, "permissions": mode, "content": content}


class _Literal(yaml.SafeDumper):
    """Texts of several lines as blocks, so that a person can read them."""


def _block(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Literal.add_representer(str, _block)
