"""An AWS stack's Prometheus on a real cluster: finds pods and scrapes kubelets with the declared permissions."""

import base64
import json
import shlex
import ssl
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from infra.monitoring.prometheus import RULES, aws_jobs, prometheus_config
from tests.infra.conftest import free_ports
from tests.infra.monitoring.kubelet import DISKS, SERIES
from tests.infra.monitoring.rendered import of_a_cluster, queries
from tests.infra.monitoring.running import api, hosts_own, prometheus, query, text
from tests.infra.plugins import found
from tests.infra.support.waiting import eventually

pytestmark = pytest.mark.slow

NAMESPACE, APP = "atlas-monitoring-test", "flask-app"
BUSY = """
import http.server, os, threading
class Metrics(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/exit":
            os._exit(1)
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(b"atlas_stand_in 1\\n")
    def log_message(self, *_):
        pass
threading.Thread(target=http.server.HTTPServer(("", 5000), Metrics).serve_forever, daemon=True).start()
while True:
    sum(range(1_000_000))
"""
"""Answers like the service, and always uses more CPU than its limit."""
IDLE = "import time; time.sleep(86400)"
"""Wants none: on a busy machine all pods share little, and the pod that is measured must be able to reach its limit."""
LOOK = ["get", "list", "watch"]
KUBELET_LOOKS = 900
"""Seconds after which a rate is given up. It needs two looks of the kubelet at the container, whose time the kubelet
chooses: tens of seconds when it is idle, minutes when the machine is busy."""


@dataclass(frozen=True, slots=True)
class Watched:
    port: int
    core: Any
    """The cluster's core API, with administrator permissions."""


def pod(name: str, app: str, ports: list[dict[str, Any]], code: str = IDLE) -> dict[str, Any]:
    container = {
        "name": "service",
        "image": found.BASE_IMAGE,
        "command": ["python3", "-c", code],
        "ports": ports,
        "resources": {"requests": {"cpu": "50m", "memory": "32Mi"}, "limits": {"cpu": "50m", "memory": "64Mi"}},
    }
    return {
        "metadata": {"name": name, "labels": {"app.kubernetes.io/name": app}},
        "spec": {"automountServiceAccountToken": False, "containers": [container], "terminationGracePeriodSeconds": 1},
    }


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Prometheus with the stack's jobs, and an account with the permissions of its IAM role's Kubernetes group."""
    binary = hosts_own("prometheus")
    admin = found.kubeconfig()
    found.registry()
    from kubernetes import client, config

    folder = tmp_path_factory.mktemp("cluster")
    settings = client.Configuration()
    config.load_kube_config_from_dict(admin, client_configuration=settings)
    session = client.ApiClient(settings)
    core: Any = client.CoreV1Api(session)
    rbac: Any = client.RbacAuthorizationV1Api(session)
    remove(core, rbac)
    try:
        core.create_namespace({"metadata": {"name": NAMESPACE}})
        core.create_namespaced_service_account(NAMESPACE, {"metadata": {"name": "prometheus"}})
        permit(rbac)
        request = {"spec": {"expirationSeconds": 3600, "audiences": None}}
        token = core.create_namespaced_service_account_token("prometheus", NAMESPACE, request).status.token
        http = [{"name": "http", "containerPort": 5000}]
        core.create_namespaced_pod(NAMESPACE, pod("mine", APP, http, BUSY))
        core.create_namespaced_pod(NAMESPACE, pod("another", "another-app", http))
        core.create_namespaced_pod(NAMESPACE, pod("portless", APP, [{"name": "other", "containerPort": 5000}]))
        write_access(folder, admin, token)
        (port,) = free_ports(1)
        jobs = aws_jobs(
            namespace=NAMESPACE,
            app=APP,
            prometheus="127.0.0.1",
            grafana="127.0.0.1",
            folder=str(folder),
            token_file=str(folder / "token"),
        )
        jobs = [job for job in jobs if "kubernetes_sd_configs" in job]
        address = core.list_node().items[0].status.addresses[0].address
        for job in jobs:
            if "tls_config" in job:
                job["tls_config"] |= trust(address, folder / "cluster-ca.crt")
        with prometheus(folder, binary, prometheus_config("2s", str(RULES), jobs), port):
            eventually(lambda: query(port, 'up{job="service", pod="mine"} == 1'), "pod", 120)
            yield Watched(port, core)
    finally:
        remove(core, rbac)
        session.rest_client.pool_manager.clear()  # or its sockets are found open later


def permit(rbac: Any) -> None:
    subject = [{"kind": "ServiceAccount", "name": "prometheus", "namespace": NAMESPACE}]
    named = {"metadata": {"name": NAMESPACE}}
    rbac.create_namespaced_role(
        NAMESPACE, named | {"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": LOOK}]}
    )
    nodes = [
        {"apiGroups": [""], "resources": ["nodes"], "verbs": LOOK},
        {"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]},
    ]
    rbac.create_cluster_role(named | {"rules": nodes})

    def refer(kind: str) -> dict[str, Any]:
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": NAMESPACE}
        return named | {"roleRef": role, "subjects": subject}

    rbac.create_namespaced_role_binding(NAMESPACE, refer("Role"))
    rbac.create_cluster_role_binding(refer("ClusterRole"))


def remove(core: Any, rbac: Any) -> None:
    from kubernetes.client import ApiException

    for delete in (core.delete_namespace, rbac.delete_cluster_role, rbac.delete_cluster_role_binding):
        with suppress(ApiException):
            delete(NAMESPACE)
    names = lambda: {space.metadata.name for space in core.list_namespace().items}  # noqa: E731
    eventually(lambda: NAMESPACE not in names(), "namespace still there")


def write_access(folder: Path, admin: dict[str, Any], token: str) -> None:
    """The files of a host: a kubeconfig whose plugin returns a token, the token for kubelets, and the CA."""
    cluster = admin["clusters"][0]["cluster"]
    (folder / "token").write_text(token)
    (folder / "cluster-ca.crt").write_bytes(base64.b64decode(cluster["certificate-authority-data"]))
    credential = {
        "apiVersion": "client.authentication.k8s.io/v1beta1",
        "kind": "ExecCredential",
        "status": {"token": token},
    }
    plugin = {
        "apiVersion": credential["apiVersion"],
        "command": "sh",
        "args": ["-c", f"echo {shlex.quote(json.dumps(credential))}"],
        "interactiveMode": "Never",
    }
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "it", "cluster": cluster}],
        "users": [{"name": "role", "user": {"exec": plugin}}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "role"}}],
        "current-context": "it",
    }
    (folder / "kubeconfig").write_text(yaml.safe_dump(document))


def trust(address: str, authority: Path) -> dict[str, Any]:
    """The TLS settings for this cluster's kubelet; EKS's kubelets have a certificate of the cluster's CA."""
    import socket

    context = ssl.create_default_context(cafile=str(authority))
    context.check_hostname = False
    try:
        with (
            socket.create_connection((address, 10250), timeout=5) as plain,
            context.wrap_socket(plain, server_hostname=address) as wrapped,
        ):
            certificate: Any = wrapped.getpeercert()
    except ssl.SSLCertVerificationError:
        return {"insecure_skip_verify": True}
    names = [name for _, name in certificate["subjectAltName"]]
    return {} if address in names else {"server_name": names[0]}


@pytest.mark.parametrize("expression", [found for found in queries("infrastructure.json") if of_a_cluster(found)])
def test_query_about_pods_and_nodes_has_data(watched: Watched, expression: str) -> None:
    if "node:disk" in expression and not query(watched.port, next(iter(DISKS))):
        pytest.skip("this cluster's kubelet measures no disks (localStorageCapacityIsolation: false)")
    assert eventually(lambda: query(watched.port, expression), expression)


def test_just_the_apps_pods_are_asked_each_at_its_own_address(watched: Watched) -> None:
    (target,) = [
        target for target in api(watched.port, "targets", state="active")["activeTargets"]
        if target["labels"]["job"] == "service"
    ]  # fmt: skip
    mine = watched.core.read_namespaced_pod("mine", NAMESPACE)
    assert target["labels"] == {
        "job": "service",
        "instance": f"{mine.status.pod_ip}:5000",
        "namespace": NAMESPACE,
        "pod": "mine",
        "node": mine.spec.node_name,
    }
    assert urlsplit(target["scrapeUrl"]).path == "/metrics"


def test_kubelets_answer_with_the_declared_permissions(watched: Watched) -> None:
    nodes = len(watched.core.list_node().items)
    for job in ("kubelet", "resource", "cadvisor"):
        assert eventually(lambda: len(query(watched.port, f'up{{job="{job}"}} == 1')) == nodes, job)  # noqa: B023


def test_series_of_the_kubelet_are_there_and_few(watched: Watched) -> None:
    own = '{job=~"kubelet|resource|cadvisor"}'
    names = {json.loads(labels)["__name__"] for labels in query(watched.port, own)}
    meta = {name for name in names if name == "up" or name.startswith(("scrape_", "ALERTS"))}
    assert names - meta - SERIES == set()
    assert SERIES - names in ({*()}, DISKS)
    # Pods of other namespaces aren't scraped.
    assert {json.loads(labels).get("namespace") for labels in query(watched.port, own)} == {None, NAMESPACE}


@pytest.mark.timeout(2 * KUBELET_LOOKS)
def test_held_back_container_shows(watched: Watched) -> None:
    throttled = 'pod:cpu_throttled:ratio5m{pod="mine"} > 0.25'
    ratio = eventually(lambda: query(watched.port, throttled), "throttling", KUBELET_LOOKS)
    assert len(ratio) == 1
    used = 'pod:cpu_cores:rate5m{pod="mine"} > 0'
    (cores,) = eventually(lambda: query(watched.port, used), "cores", KUBELET_LOOKS).values()
    assert 0 < cores < 0.08  # of a limit of 0.05; less, as the five minutes have just begun
    (memory,) = eventually(lambda: query(watched.port, 'pod:memory:ratio{pod="mine"}'), "memory").values()
    assert 0.01 < memory < 1


def test_restarted_container_is_counted_and_a_first_start_is_not(watched: Watched) -> None:
    restarts = 'pod:restarts:1h{pod="mine"}'
    assert list(query(watched.port, restarts).values()) == [0]
    address = watched.core.read_namespaced_pod("mine", NAMESPACE).status.pod_ip
    with pytest.raises(OSError, match="closed"):
        text(f"http://{address}:5000/exit")
    eventually(lambda: list(query(watched.port, restarts).values()) == [1], "restart", 90)

    def counted() -> bool:
        (container,) = watched.core.read_namespaced_pod("mine", NAMESPACE).status.container_statuses
        return bool(container.restart_count == 1)

    eventually(counted, "another cause")


def test_permissions_reach_no_further(watched: Watched) -> None:
    from kubernetes import client

    def may(verb: str, resource: str, namespace: str = NAMESPACE, subresource: str = "") -> bool:
        attributes = {"verb": verb, "resource": resource, "namespace": namespace, "subresource": subresource}
        spec = {"user": f"system:serviceaccount:{NAMESPACE}:prometheus", "resourceAttributes": attributes}
        reviews: Any = client.AuthorizationV1Api(watched.core.api_client)
        return bool(reviews.create_subject_access_review({"spec": spec}).status.allowed)

    assert may("list", "pods")
    assert may("get", "nodes", "", "metrics")
    assert not may("list", "pods", "kube-system")
    assert not may("get", "secrets")
    assert not may("get", "nodes", "", "proxy")
    assert not may("create", "pods", subresource="exec")
