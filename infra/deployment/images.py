"""A stack's images in ECR: which are known to work, and how they are copied into another stack's repository."""

import base64
import json
import re
import subprocess
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from infra.components.registry import GOOD
from infra.errors import AwsError, ImageError, SettingsError, one_line
from infra.names import image_repository
from infra.settings import AwsSettings

MANIFESTS = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
]


@dataclass(frozen=True, slots=True)
class Image:
    """An image in ECR, by digest."""

    account: str
    region: str
    repository: str
    digest: str
    """sha256:…"""

    @property
    def host(self) -> str:
        """The registry's host name."""
        return f"{self.account}.dkr.ecr.{self.region}.amazonaws.com"

    def __str__(self) -> str:
        return f"{self.host}/{self.repository}@{self.digest}"


def image_of(reference: str) -> Image | None:
    """The image for ACCOUNT.dkr.ecr.REGION.amazonaws.com/REPOSITORY@sha256:…; None if it isn't in ECR."""
    found = re.fullmatch(r"(\d{12})\.dkr\.ecr\.([a-z0-9-]+)\.amazonaws\.com/([^@]+)@(sha256:[0-9a-f]{64})", reference)
    return Image(*found.groups()) if found else None


def known_good(image: Image) -> list[str]:
    """Digests in the image's repository that have answered, the most recent first.

    Raises AwsError when ECR can't be asked.
    """
    dated = []
    for found in _images(image):
        marks = [tag for tag in found.get("imageTags", []) if tag.startswith(GOOD)]
        if marks:
            dated.append((max(marks), str(found["imageDigest"])))
    return [digest for _, digest in sorted(dated, reverse=True)]


def is_there(image: Image) -> bool:
    """Whether the image is in its repository."""
    return image.digest in {str(found["imageDigest"]) for found in _images(image)}


def refuse_missing(stack: str, settings: AwsSettings) -> None:
    """Refuse a setting atlas:image whose image isn't in the stack's own repository: its pods would wait for it.

    Other repositories aren't checked: the caller may have no permission to read them.
    Raises SettingsError when the image isn't there, AwsError when ECR can't be asked.
    """
    image = image_of(settings.image or "")
    own = (settings.region, image_repository(stack, settings.app_name))
    if image is None or (image.region, image.repository) != own:
        return
    if not is_there(image):
        raise SettingsError(
            f"{image.repository} has no {image.digest}, which atlas:image in Pulumi.{stack}.yaml names: nothing changed"
        )


def mark_good(image: Image) -> None:
    """Tag the image as good, because it has answered; nothing happens if it is already the most recent good image.

    Raises AwsError when ECR refuses, ImageError when the image isn't there.
    """
    if known_good(image)[:1] == [image.digest]:
        return
    client = _client(image)
    try:
        found = client.batch_get_image(
            registryId=image.account,
            repositoryName=image.repository,
            imageIds=[{"imageDigest": image.digest}],
            acceptedMediaTypes=MANIFESTS,
        )["images"]
        if not found:
            raise ImageError(f"{image} is no longer in its repository")
        client.put_image(
            registryId=image.account,
            repositoryName=image.repository,
            imageManifest=found[0]["imageManifest"],
            imageTag=f"{GOOD}{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}",
        )
    except (BotoCoreError, ClientError) as error:
        raise AwsError(f"ECR refuses to tag an image of {image.repository} as good ({one_line(error)})") from None


def repository_is_there(image: Image) -> bool:
    """Whether the image's repository exists."""
    client = _client(image)
    try:
        client.describe_repositories(registryId=image.account, repositoryNames=[image.repository])
    except client.exceptions.RepositoryNotFoundException:
        return False
    except (BotoCoreError, ClientError) as error:
        raise AwsError(f"ECR can't be asked for {image.repository} ({one_line(error)})") from None
    return True


def copy(source: Image, target: Image) -> None:
    """Copy the image into the target's repository, byte for byte; layers that are already there aren't sent again.

    Docker's own tool copies from registry to registry. Raises ImageError with its error message.
    """
    if source.digest != target.digest:
        raise ValueError("a copy has its original's digest")
    auths = {host.host: _login(host) for host in (source, target)}
    tag = f"{target.host}/{target.repository}:promoted-{source.digest.removeprefix('sha256:')[:32]}"
    copy_between(str(source), tag, auths)
    if not is_there(target):
        raise ImageError(f"the copy {tag} doesn't have the digest {source.digest}: nothing was deployed; try again")


def copy_between(source: str, target: str, auths: dict[str, str]) -> None:
    """Copy the image `source` (by digest) to `target` (by tag); `auths`: registry -> base64 of user:password.

    Raises ImageError with the error message of Docker's tool.
    """
    with tempfile.TemporaryDirectory(prefix="atlas-docker-") as folder:
        # A separate configuration: the user's logins stay unchanged, and the password isn't in a command line.
        config = Path(folder, "config.json")
        config.touch(mode=0o600)
        config.write_text(json.dumps({"auths": {host: {"auth": auth} for host, auth in auths.items()}}))
        plugins = Path.home() / ".docker" / "cli-plugins"
        if plugins.is_dir():
            Path(folder, "cli-plugins").symlink_to(plugins)
        command = ["docker", "--config", folder, "buildx", "imagetools", "create", "--prefer-index=false"]
        try:
            done = subprocess.run(
                [*command, "--tag", target, source], capture_output=True, text=True, timeout=1800, check=False
            )
        except FileNotFoundError:
            raise ImageError("docker is not on PATH; it is needed, with buildx, to copy images") from None
        except subprocess.TimeoutExpired:
            raise ImageError(f"copying {source} took more than half an hour: is the registry far away?") from None
    if done.returncode != 0:
        raise ImageError(f"{source} can't be copied to {target}: {one_line(done.stderr)[-400:]}")


def _login(image: Image) -> str:
    try:
        data = _client(image).get_authorization_token()["authorizationData"][0]
    except (BotoCoreError, ClientError) as error:
        raise AwsError(f"ECR refuses a token for {image.host} ({one_line(error)})") from None
    token = str(data["authorizationToken"])
    base64.b64decode(token, validate=True)
    return token


def _images(image: Image) -> list[dict[str, Any]]:
    client = _client(image)
    try:
        pages = client.get_paginator("describe_images").paginate(
            registryId=image.account, repositoryName=image.repository
        )
        return [found for page in pages for found in page["imageDetails"]]
    except client.exceptions.RepositoryNotFoundException:
        return []
    except (BotoCoreError, ClientError) as error:
        raise AwsError(f"ECR can't be asked for {image.repository} ({one_line(error)})") from None


def _client(image: Image) -> Any:
    return boto3.client("ecr", region_name=image.region)
