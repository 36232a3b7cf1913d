"""Pulumi's docker-build provider, as the image component uses it: pushes, gives a digest, never builds in a preview."""

import uuid
from pathlib import Path
from typing import Any

import pulumi
import pulumi_docker_build as docker_build
import pytest

from tests.infra.plugins import found
from tests.infra.plugins.build import DOCKER_BUILD, docker_build_plugin
from tests.infra.recording.run import Life

REPOSITORY = f"atlas-test/docker-build-{uuid.uuid4().hex[:8]}"  # a registry remembers earlier runs
IMAGE = "docker-build:index:Image::image"

# The first time, the provider is built
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_image_is_pushed_once_changes_with_its_context_and_outlives_the_stack(tmp_path: Path) -> None:
    registry = found.registry()
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("ARG BASE\nFROM ${BASE}\nCOPY note /note\nUSER 10001\n")
    (context / ".dockerignore").write_text("*\n!note\n")
    (context / "note").write_text(tmp_path.name)
    given: dict[str, Any] = {"tag": "one", "password": "first"}

    def program() -> None:
        image = docker_build.Image(
            "image",
            context={"location": "../context"},
            dockerfile={"location": "../context/Dockerfile"},
            build_args={"BASE": found.BASE_IMAGE},
            platforms=[docker_build.Platform.LINUX_AMD64],
            tags=[f"{registry}/{REPOSITORY}:{given['tag']}"],
            push=True,
            build_on_preview=False,
            registries=[{"address": registry, "username": "AWS", "password": given["password"]}],
            opts=pulumi.ResourceOptions(retain_on_delete=True),
        )
        pulumi.export("digest", image.digest)
        pulumi.export("ref", image.ref)

    life = Life(tmp_path, program, {}, packages=(), more_path=[docker_build_plugin()])
    foreseen = life.preview()
    assert (foreseen.errors, foreseen.steps.get(IMAGE)) == ([], "create")
    with pytest.raises(OSError, match="404"):
        found.manifest(REPOSITORY, f"{tmp_path.name}-none")

    done = life.up()
    assert done.errors == []
    first = life.outputs()
    assert found.manifest(REPOSITORY, "one")[0] == first["digest"]
    assert first["ref"].endswith(f"@{first['digest']}")

    # Another login, or a file that .dockerignore excludes, changes nothing.
    given["password"] = "second"
    (context / "elsewhere").write_text("changed")
    assert (life.preview().steps, life.up().steps) == ({}, {})

    given["tag"] = "two"
    (context / "note").write_text("changed")
    assert life.preview().steps == {IMAGE: "update"}
    with pytest.raises(OSError, match="404"):
        found.manifest(REPOSITORY, "two")  # not by the preview
    done = life.up()
    assert (done.errors, done.steps) == ([], {IMAGE: "update"})
    second = life.outputs()
    assert second["digest"] != first["digest"]
    assert found.manifest(REPOSITORY, "two")[0] == second["digest"]

    (context / "Dockerfile").write_text("FROM scratch\nCOPY missing /\n")
    broken = life.up()
    assert broken.failed
    assert any("missing" in error for error in broken.errors), broken.errors
    assert found.manifest(REPOSITORY, "two")[0] == second["digest"]

    assert life.destroy().errors == []
    assert life.state() == []
    for told in (first, second):
        assert found.manifest(REPOSITORY, told["digest"])[0] == told["digest"]  # retained


def test_go_module_has_the_python_packages_version() -> None:
    pinned = f"github.com/pulumi/pulumi-docker-build v{DOCKER_BUILD.version} "
    assert pinned in (DOCKER_BUILD.sources / "go.mod").read_text()
