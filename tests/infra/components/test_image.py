"""The image component with a real Docker engine, registry and docker-build provider: a small Dockerfile, no cluster."""

import json
import urllib.request
import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pulumi
import pytest

from infra.components.image import Image, ImageArgs
from tests.infra.plugins import found
from tests.infra.plugins.build import docker_build_plugin
from tests.infra.recording.run import Life

IMAGE = "docker-build:index:Image::image-build"

# The first time, the provider is built
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


class Place:
    """A checkout of a repository, and a stack with only its image."""

    def __init__(self, folder: Path, dockerfile: str) -> None:
        self.host, self.name = found.registry(), f"atlas-test/image-{uuid.uuid4().hex[:8]}"
        self.folder = folder
        self.uncached = False
        self.baked = "models/bundle"
        for name in ("requirements", "ml", "service"):
            (folder / name).mkdir(parents=True)
        (folder / "service" / "app.py").write_text(f"# {self.name}\n")  # a builder remembers earlier runs
        (folder / "Dockerfile").write_text(dockerfile)
        (folder / ".dockerignore").write_text("*\n!service\n!models/bundle\n")
        self.make_bundle(folder / self.baked, "one")
        self.life = Life(folder, self.program, {}, packages=("aws",), more_path=[docker_build_plugin()])

    def make_bundle(self, path: Path, version: str) -> None:
        path.mkdir(parents=True)
        (path / "bundle.json").write_text(json.dumps({"version": version}))

    def program(self) -> None:
        def without_cache(args: pulumi.ResourceTransformationArgs) -> pulumi.ResourceTransformationResult | None:
            if args.type_ != "docker-build:index:Image":
                return None
            return pulumi.ResourceTransformationResult({**args.props, "no_cache": self.uncached}, args.opts)

        pulumi.runtime.register_stack_transformation(without_cache)
        url = pulumi.Output.from_input(f"{self.host}/{self.name}")
        registry: Any = SimpleNamespace(url=url, registry_id="123456789012")
        image = Image("image", ImageArgs(self.folder, self.baked, found.BASE_IMAGE, registry))
        pulumi.export("reference", image.reference)
        pulumi.export("tag", image.tag)

    def up(self) -> tuple[str, str]:
        """Digest and tag of the image that an `up` pushed."""
        done = self.life.up()
        assert done.errors == []
        outputs = self.life.outputs()
        digest = outputs["reference"].rpartition("@")[2]
        assert found.manifest(self.name, outputs["tag"])[0] == digest
        return digest, outputs["tag"]

    def configuration(self, digest: str) -> Any:
        """The image's own: labels, times."""
        blob = found.manifest(self.name, digest)[1]["config"]["digest"]
        with urllib.request.urlopen(f"http://{self.host}/v2/{self.name}/blobs/{blob}", timeout=5) as response:
            return json.load(response)


SMALL = """
ARG BASE_IMAGE
FROM scratch AS bundle
COPY models/bundle /
FROM ${BASE_IMAGE} AS slim
# A file with the current time, like those of an installer.
RUN mkdir /made && echo made > /made/file
COPY service /app
COPY --from=bundle / /app/models/bundle
ARG BUNDLE_VERSION
LABEL version="${BUNDLE_VERSION}"
"""


def test_equal_content_is_an_equal_digest_even_when_nothing_is_cached(tmp_path: Path) -> None:
    place = Place(tmp_path, SMALL)
    first = place.up()
    place.uncached = True
    assert place.life.preview().steps == {IMAGE: "update"}
    assert place.up() == first
    times = {entry["created"] for entry in place.configuration(first[0])["history"][-3:]}
    assert times == {"1970-01-01T00:00:00Z"}
    # Another checkout of this content, at another time.
    (tmp_path / "service" / "app.py").touch()
    assert (place.life.preview().steps, place.life.up().steps) == ({}, {})


def test_a_bundle_can_be_anywhere_and_equal_ones_make_equal_images(tmp_path: Path) -> None:
    place = Place(tmp_path / "checkout", SMALL)
    first = place.up()
    place.make_bundle(tmp_path / "checkout" / "elsewhere" / "new", "two")
    place.baked = "elsewhere/new"
    second = place.up()
    assert place.configuration(second[0])["config"]["Labels"]["version"] == "two"
    assert len({*first, *second}) == 4
    # Only the content matters, and each change of it.
    (tmp_path / "checkout" / "elsewhere" / "new").rename(tmp_path / "outside")
    place.baked = str(tmp_path / "outside")
    assert place.up() == second
    place.baked = "../outside"
    assert place.up() == second
    (tmp_path / "outside" / "model.onnx").write_text("another")
    assert not {*place.up()} & {*first, *second}
