"""The service's image: built from the Dockerfile with the bundle in it, pushed, and deployed by its digest."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import pulumi
import pulumi_aws as aws
import pulumi_docker_build as docker_build

from infra.components.registry import Registry
from infra.image_options import image_options
from infra.names import IMAGE_TYPE

CONTEXT = ("Dockerfile", ".dockerignore", "requirements", "ml", "service")
"""The files that the image is built from, besides the bundle; .dockerignore excludes some of them."""
EPOCH = "0"
"""The time of all files in the image, in seconds since 1970; with the real time, every build would be different."""


@dataclass(frozen=True, slots=True)
class ImageArgs:
    """The inputs of the component Image."""

    repository: Path
    """The repository's root, which is the build context."""
    bundle: str
    """The bundle to put into the image, relative to the root or absolute."""
    base_image: str | None
    registry: Registry


class Image(pulumi.ComponentResource):
    """A pushed image.

    Outputs:
        reference: REPOSITORY@sha256:…, which the Deployment uses.
        tag: the hash of the image's inputs.
    """

    reference: pulumi.Output[str]
    tag: str

    def __init__(self, name: str, args: ImageArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(IMAGE_TYPE, name, None, opts)

        options = image_options(args.repository, args.repository / args.bundle)
        # The image depends only on its content. The commit is no build argument, because each commit would then change
        # the image. The engine records the commit of every update: `pulumi stack history --output json`, git.head.
        build_args = {**options.arguments, "SOURCE_DATE_EPOCH": EPOCH}
        if args.base_image is not None:
            build_args["BASE_IMAGE"] = args.base_image
        # The tag is a hash of the content, because tags in the repository are immutable.
        settings = json.dumps([build_args, options.target], sort_keys=True)
        self.tag = context_hash(args.repository, args.repository / args.bundle, settings)
        token = aws.ecr.get_authorization_token_output(
            registry_id=args.registry.registry_id, opts=pulumi.InvokeOutputOptions(parent=self)
        )
        image = docker_build.Image(
            f"{name}-build",
            # Paths are relative, so that the state doesn't contain this machine's folders. The engine runs plugins in
            # infra/, because of `main` in Pulumi.yaml. The bundle is a separate context, because .dockerignore allows
            # only DVC's place for a bundle.
            context={"location": "..", "named": {"bundle": {"location": str(Path("..") / args.bundle)}}},
            dockerfile={"location": "../Dockerfile"},
            target=options.target,
            build_args=build_args,
            platforms=[docker_build.Platform.LINUX_AMD64],
            tags=[args.registry.url.apply(lambda url: f"{url}:{self.tag}")],
            # `push` has no options, so this is used instead: it also sets the files' times to the epoch. The same
            # content then always gives the same digest, and a repeated `up` finds the immutable tag on the same image.
            exports=[{"raw": "type=registry,rewrite-timestamp=true"}],
            push=False,
            build_on_preview=False,
            registries=[
                {
                    "address": args.registry.url,
                    "username": token.user_name,
                    "password": pulumi.Output.secret(token.password),
                }
            ],
            # The old image may still be running, so the program never deletes it; the repository's lifecycle does.
            opts=pulumi.ResourceOptions(parent=self, retain_on_delete=True),
        )

        self.reference = pulumi.Output.concat(args.registry.url, "@", image.digest)
        self.register_outputs({"reference": self.reference})


def context_hash(repository: Path, bundle: Path, settings: str) -> str:
    """A hash (32 hex digits) of the names and contents of all files in the image, and of the build settings.

    It doesn't depend on the bundle's location.
    """
    named = [(file.relative_to(repository), file) for part in CONTEXT for file in _files(repository / part)]
    # The same files as in the Dockerfile, which removes the gate's part.
    named += [
        (Path("models/bundle") / inside, file)
        for file in _files(bundle)
        if (inside := file.relative_to(bundle)).parts[0] != "evaluated"
    ]
    digest = hashlib.sha256(settings.encode())
    for name, file in named:
        digest.update(f"{name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()[:32]


def _files(path: Path) -> list[Path]:
    """The file itself, or all files below the folder except Python's caches."""
    if path.is_file():
        return [path]
    return sorted(file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
