"""The service's image: built from the Dockerfile with the bundle baked in, pushed, known by digest from then on."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import pulumi
import pulumi_aws as aws
import pulumi_docker_build as docker_build

from infra.bundle import bundle_manifest
from infra.components.registry import Registry
from infra.names import IMAGE_TYPE

CONTEXT = ("Dockerfile", ".dockerignore", "requirements", "ml", "service")
"""What the image is made from, beside the bundle; .dockerignore lets less through."""
EPOCH = "0"
"""The time of everything in the image, in seconds since 1970: with a real one no two builds would agree."""


@dataclass(frozen=True, slots=True)
class ImageArgs:
    """What the image needs to know."""

    repository: Path
    """The repository's root: the build's context."""
    bundle: str
    """The bundle to bake in, relative to the root or absolute."""
    base_image: str | None
    registry: Registry


class Image(pulumi.ComponentResource):
    """A pushed image.

    Outputs:
        reference: REPOSITORY@sha256:…, which the Deployment uses.
        tag: the hash of what it was made from.
    """

    reference: pulumi.Output[str]
    tag: str

    def __init__(self, name: str, args: ImageArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(IMAGE_TYPE, name, None, opts)

        manifest = bundle_manifest(args.repository / args.bundle)
        # Content alone decides. The commit is not among these: each would be a change in a preview, and another image.
        # The engine notes it with every update: `pulumi stack history --json`, git.head.
        build_args = {
            "BUNDLE_VERSION": manifest["version"],
            "SOURCE_DATE_EPOCH": EPOCH,
        }
        if args.base_image is not None:
            build_args["BASE_IMAGE"] = args.base_image
        # The slim image can't run a model that didn't compile (ml/bundle.py).
        target = "full" if manifest.get("runtime") == "sklearn" else "slim"
        # Of the content, since the repository refuses to move a tag.
        settings = json.dumps([build_args, target], sort_keys=True)
        self.tag = context_hash(args.repository, args.repository / args.bundle, settings)
        token = aws.ecr.get_authorization_token_output(
            registry_id=args.registry.registry_id, opts=pulumi.InvokeOutputOptions(parent=self)
        )
        image = docker_build.Image(
            f"{name}-build",
            # Relative, or the state would name this machine's folders; the engine runs plugins in infra/, as `main` in
            # Pulumi.yaml says.
            # The bundle is a context of its own, since .dockerignore knows only where DVC puts one.
            context={"location": "..", "named": {"bundle": {"location": str(Path("..") / args.bundle)}}},
            dockerfile={"location": "../Dockerfile"},
            target=target,
            build_args=build_args,
            platforms=[docker_build.Platform.LINUX_AMD64],
            tags=[args.registry.url.apply(lambda url: f"{url}:{self.tag}")],
            # Instead of `push`, which knows no options: files get the epoch too. Whoever builds this content then gets
            # this digest, and whoever repeats an `up` finds the tag, which can't be moved, on the very same image.
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
            # Its manifest may be what runs: the repository's lifecycle removes it, not this program.
            opts=pulumi.ResourceOptions(parent=self, retain_on_delete=True),
        )

        self.reference = pulumi.Output.concat(args.registry.url, "@", image.digest)
        self.register_outputs({"reference": self.reference})


def context_hash(repository: Path, bundle: Path, settings: str) -> str:
    """32 hex digits of the hash over names and contents of all that goes into the image, and how it is built.

    Where the bundle is makes no difference.
    """
    named = [(file.relative_to(repository), file) for part in CONTEXT for file in _files(repository / part)]
    # As the Dockerfile has it, which drops the gate's part.
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
    """The file itself, or what is below the folder but for Python's leftovers."""
    if path.is_file():
        return [path]
    return sorted(file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
