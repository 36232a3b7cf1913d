"""`python -m tests.infra.plugins.build`: the providers that a real cluster and a real Docker engine need, in a cache.

docker-build is Pulumi's own, built from its Go module with the machine's Go (some 4 minutes, once). kubernetes is in
Python, beside this file: Pulumi's is no Go module that a proxy serves.
"""

import hashlib
import os
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

from infra.tools import cache_folder, find_go, go_environment

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[2]
MODULE = "github.com/pulumi/pulumi-docker-build/provider"
BINARY = "pulumi-resource-docker-build"


class BuildError(Exception):
    """A provider isn't available; the message says why."""


def cache() -> Path:
    """The cache of providers: NAME/VERSION/pulumi-resource-NAME."""
    return cache_folder() / "plugins"


def docker_build_folder() -> Path:
    """The folder with Pulumi's own docker-build provider, of the version that the Python package has; built if need be.

    Raises BuildError where there is no Go, or it can't build it.
    """
    wanted = version("pulumi_docker_build")
    # Other modules give another binary.
    modules = b"".join((HERE / name).read_bytes() for name in ("go.mod", "go.sum"))
    folder = cache() / "docker-build" / f"{wanted}-{hashlib.sha256(modules).hexdigest()[:8]}"
    target = folder / BINARY
    if target.exists():
        return folder
    go = find_go()
    if go is None:
        raise BuildError(f"{BINARY} {wanted} is built with Go, and there is none (go.dev)")
    if f"{MODULE.removesuffix('/provider')} v{wanted}" not in (HERE / "go.mod").read_text():
        raise BuildError(f"{HERE / 'go.mod'} names another version than the Python package's {wanted}")
    folder.mkdir(parents=True, exist_ok=True)
    fresh = folder / f"new-{os.getpid()}"
    flags = f"-s -w -X {MODULE}.Version={wanted}"
    # With low priority, because the build takes minutes and other tests run at the same time.
    command = [
        "nice",
        "-n",
        "10",
        go,
        "build",
        "-trimpath",
        "-ldflags",
        flags,
        "-o",
        str(fresh),
        f"{MODULE}/cmd/{BINARY}",
    ]
    done = subprocess.run(command, cwd=HERE, env=go_environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        tail = "\n".join(done.stderr.splitlines()[-10:])
        raise BuildError(f"building {BINARY} {wanted} failed:\n{tail}")
    fresh.replace(target)
    return folder


def kubernetes_folder() -> Path:
    """The folder with a kubernetes provider that applies objects to the cluster in its kubeconfig."""
    digest = hashlib.sha256(f"{REPOSITORY} {sys.executable}".encode()).hexdigest()[:8]
    folder = cache() / "kubernetes" / f"{version('pulumi_kubernetes')}-{digest}"
    folder.mkdir(parents=True, exist_ok=True)
    fresh = folder / f"new-{os.getpid()}"
    # PYTHONPATH is needed, because the engine starts plugins in the program's folder.
    fresh.write_text(
        f"#!/bin/sh\nPYTHONPATH={REPOSITORY} exec {sys.executable} -W ignore "
        '-m tests.infra.plugins.kubernetes_provider "$@"\n'
    )
    fresh.chmod(0o755)
    fresh.replace(folder / "pulumi-resource-kubernetes")
    return folder


def docker_build_plugin() -> Path:
    """The folder to put on PATH; skips the test if it isn't available."""
    import pytest

    try:
        return docker_build_folder()
    except BuildError as error:
        pytest.skip(str(error))


def kubernetes_plugin() -> Path:
    """The folder to put on PATH."""
    return kubernetes_folder()


def main() -> int:
    begun = time.monotonic()
    try:
        folders = [kubernetes_folder(), docker_build_folder()]
    except BuildError as error:
        print(f"plugins: {error}", file=sys.stderr)
        return 1
    print(f"plugins: {', '.join(map(str, folders))} ({time.monotonic() - begun:.1f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
