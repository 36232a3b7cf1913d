"""The software that the hosts install: pinned releases for linux-amd64, with SHA-256 checksums and addresses.

A mirror (`atlas:downloadMirror`) is a base address that serves each file below its release's name:

    MIRROR/prometheus/prometheus-3.14.0.linux-amd64.tar.gz
    MIRROR/alertmanager/alertmanager-0.33.1.linux-amd64.tar.gz
    MIRROR/node_exporter/node_exporter-1.12.1.linux-amd64.tar.gz
    MIRROR/grafana/grafana-13.2.0.linux-amd64.tar.gz
    MIRROR/aws-cli/awscli-exe-linux-x86_64-2.36.31.zip

The mirror must serve the official files: the checksums are always verified.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Release:
    """A file to download."""

    name: str
    version: str
    base: str
    """The official address, without the path."""
    path: str
    """The path below `base`; a mirror serves the file under NAME/FILE."""
    sha256: str

    def url(self, mirror: str | None) -> str:
        """The official address, or MIRROR/NAME/FILE."""
        file = self.path.rsplit("/", 1)[-1]
        return f"{self.base}/{self.path}" if mirror is None else f"{mirror.rstrip('/')}/{self.name}/{file}"


def _prometheus_project(name: str, version: str, sha256: str) -> Release:
    file = f"{name}-{version}.linux-amd64.tar.gz"
    return Release(
        name, version, "https://github.com", f"prometheus/{name}/releases/download/v{version}/{file}", sha256
    )


# The origin of the checksums: unrelated public repositories (package recipes, Makefiles, Ansible roles, installers;
# looked up in November 2026) pin the same checksums from the releases' sha256sums.txt: ten or more repositories for
# Prometheus, Alertmanager and node_exporter, three for Grafana. AWS publishes a signature for the AWS CLI, but no
# checksum: this is the newest version for which two unrelated repositories have the same checksum. For a newer version,
# take the checksum from the release's sha256sums.txt, and verify the AWS CLI's signature by hand.
PROMETHEUS = _prometheus_project(
    "prometheus", "3.14.0", "f665c6da19eb7ba399c915d30c7d9793c9b417bf8a749b504bc470678631478d"
)
ALERTMANAGER = _prometheus_project(
    "alertmanager", "0.33.1", "93d802cba6a8d27239d747ce117df7648d326ab67394e32247540b030e9842ba"
)
NODE_EXPORTER = _prometheus_project(
    "node_exporter", "1.12.1", "b51d8a76aa2a9156a55d501aca6276fae09e262259a5e4e831d2c2222f084e63"
)
GRAFANA = Release(
    "grafana",
    "13.2.0",
    "https://dl.grafana.com",
    "oss/release/grafana-13.2.0.linux-amd64.tar.gz",
    "4669384cdb0bb5b4a3f804927e57490d17f4cc47258cd1698fc124e99ee58265",
)
AWS_CLI = Release(
    "aws-cli",
    "2.36.31",
    "https://awscli.amazonaws.com",
    "awscli-exe-linux-x86_64-2.36.31.zip",
    "96ab904b1fec2b49972685aecc1d2e8c0fd0c981d7a81f5dc5d2dd725ace05f1",
)
RELEASES: Mapping[str, tuple[Release, ...]] = {
    "prometheus": (AWS_CLI, NODE_EXPORTER, PROMETHEUS, ALERTMANAGER),
    "grafana": (AWS_CLI, NODE_EXPORTER, GRAFANA),
}
