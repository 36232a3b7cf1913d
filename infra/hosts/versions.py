"""The software that the hosts install: pinned releases for linux-amd64, with SHA-256 checksums and addresses.

A local stack uses the same versions of Prometheus and Grafana, for its own platform.

A mirror (`atlas:downloadMirror`) is a base address that serves each file below its release's name:

    MIRROR/prometheus/prometheus-3.14.0.linux-amd64.tar.gz
    MIRROR/alertmanager/alertmanager-0.33.1.linux-amd64.tar.gz
    MIRROR/node_exporter/node_exporter-1.12.1.linux-amd64.tar.gz
    MIRROR/grafana/grafana-13.2.0.linux-amd64.tar.gz
    MIRROR/aws-cli/awscli-exe-linux-x86_64-2.36.31.zip

The mirror must serve the official files: the checksums are always verified.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Release:
    """A file to download."""

    name: str
    version: str
    base: str
    """The official address, without the path."""
    path: str
    """The path below `base`; a mirror serves the file under NAME/FILE."""
    sha256: str | None
    """None: not known; then only the publisher's own checksum counts, from PATH.sha256 at the official address."""

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

# From the same kind of repositories: six for each platform of Prometheus, one for Grafana on linux-arm64 (its checksum
# for linux-amd64 is the above). For Grafana on macOS there was none.
ELSEWHERE: Mapping[tuple[str, str, str], str] = {
    ("prometheus", "3.14.0", "linux-arm64"): "077f3781ab7245dc04c9a3c9b78ba120fc8e41aa0dc97489b0af67247e50ba83",
    ("prometheus", "3.14.0", "darwin-amd64"): "a14307b9726e66cadb81be9a544732623af26dabeb7702c987aa9c3c062ada34",
    ("prometheus", "3.14.0", "darwin-arm64"): "a9623f7f4fe65b1b171b423c1a72bbf23dfdf41a171dcb33e7dd302af80dc01c",
    ("grafana", "13.2.0", "linux-arm64"): "28c0dfeedf4334e2170b423589224745ea5da6c709f2e401f11289f3381bcfb4",
}
"""Name, version and platform -> the checksum, for platforms other than the hosts'."""


def release_for(release: Release, platform: str) -> Release:
    """The same version for another platform, such as darwin-arm64."""
    if platform == "linux-amd64":
        return release
    path = release.path.replace("linux-amd64", platform)
    return replace(release, path=path, sha256=ELSEWHERE.get((release.name, release.version, platform)))
