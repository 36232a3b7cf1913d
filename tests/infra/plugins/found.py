"""Finds a Docker engine, a registry and a cluster on this machine; tests are skipped if they are missing."""

import json
import os
import shutil
import subprocess
import urllib.request
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

REGISTRY = os.environ.get("ATLAS_TEST_REGISTRY", "127.0.0.1:5555")
"""A registry without a password; both Docker and the cluster use this name."""
BASE_IMAGE = os.environ.get("ATLAS_TEST_BASE_IMAGE", f"{REGISTRY}/python:3.11-slim")
"""Python 3.11 on Debian, in that registry."""


def registry() -> str:
    """Its host and port; skips the test if it doesn't answer, or if there is no Docker engine to push to it."""
    if shutil.which("docker") is None or _exit("docker", "buildx", "inspect") != 0:
        pytest.skip("no Docker engine with buildx")
    repository, tag = BASE_IMAGE.removeprefix(f"{REGISTRY}/").rsplit(":", 1)
    try:
        manifest(repository, tag)
    except OSError as error:
        pytest.skip(f"no registry with {BASE_IMAGE} (ATLAS_TEST_REGISTRY, ATLAS_TEST_BASE_IMAGE): {error}")
    return REGISTRY


def manifest(repository: str, reference: str) -> tuple[str, Any]:
    """Digest and manifest of an image in the registry. Raises OSError (HTTPError) when it's not there."""
    kinds = ("oci.image.index.v1", "oci.image.manifest.v1")
    docker = ("distribution.manifest.v2", "distribution.manifest.list.v2")
    accepted = [*(f"application/vnd.{kind}+json" for kind in kinds)]
    accepted += [f"application/vnd.docker.{kind}+json" for kind in docker]
    request = urllib.request.Request(
        f"http://{REGISTRY}/v2/{repository}/manifests/{reference}", headers={"Accept": ", ".join(accepted)}
    )
    with urllib.request.urlopen(request, timeout=5) as response:
        return str(response.headers["Docker-Content-Digest"]), json.load(response)


@cache
def kubeconfig() -> dict[str, Any]:
    """The kubeconfig of a cluster for tests; skips the test if there is none, or if it doesn't answer."""
    path = os.environ.get("KUBECONFIG", "")
    if not path or not Path(path).is_file():
        pytest.skip("no cluster: KUBECONFIG names no file")
    document: dict[str, Any] = yaml.safe_load(Path(path).read_text())
    from kubernetes import client, config

    try:
        settings = client.Configuration()
        settings.retries = 1
        config.load_kube_config_from_dict(document, client_configuration=settings)
        api = client.ApiClient(settings)
        client.VersionApi(api).get_code(_request_timeout=5)
        api.rest_client.pool_manager.clear()
    except Exception as error:  # whatever the reason: there's no cluster to test with
        pytest.skip(f"the cluster at KUBECONFIG doesn't answer: {error}")
    return document


def _exit(*command: str) -> int:
    return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode
