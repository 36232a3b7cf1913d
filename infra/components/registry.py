"""The image registry: an ECR repository with immutable tags, whose images are scanned."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.names import COMPONENT_TAG, REGISTRY_TYPE

GOOD = "good-"
"""Prefix of the tag for an image that was deployed and answered. Tags can't be moved, so each time gets a new tag."""


@dataclass(frozen=True, slots=True)
class RegistryArgs:
    """The inputs of the component Registry."""

    repository: str
    """Its name in the account."""
    disposable: bool
    """Let `pulumi destroy` delete the images too; otherwise the repository is protected."""
    kept: int
    """Number of images that are kept; older images expire."""
    tags: Mapping[str, str]


class Registry(pulumi.ComponentResource):
    """The repository and its lifecycle.

    Outputs:
        url: ACCOUNT.dkr.ecr.REGION.amazonaws.com/NAME.
        registry_id: the id of its account.
        arn: its ARN.
    """

    url: pulumi.Output[str]
    registry_id: pulumi.Output[str]
    arn: pulumi.Output[str]

    def __init__(self, name: str, args: RegistryArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(REGISTRY_TYPE, name, None, opts)

        repository = aws.ecr.Repository(
            f"{name}-repository",
            name=args.repository,
            image_tag_mutability="IMMUTABLE",
            image_scanning_configuration={"scan_on_push": True},
            encryption_configurations=[{"encryption_type": "AES256"}],
            force_delete=args.disposable,
            tags={**args.tags, COMPONENT_TAG: "registry"},
            opts=pulumi.ResourceOptions(parent=self, protect=not args.disposable),
        )
        aws.ecr.LifecyclePolicy(
            f"{name}-lifecycle",
            repository=repository.name,
            policy=json.dumps(
                {
                    "rules": [
                        {
                            # ECR applies rules by priority: an image kept by rule 1 can't be expired by rule 2. So
                            # images that answered are kept, even if many later images didn't answer.
                            "rulePriority": 1,
                            "description": f"Keep the last {args.kept} images that answered, for rollbacks",
                            "selection": {
                                "tagStatus": "tagged",
                                "tagPrefixList": [GOOD],
                                "countType": "imageCountMoreThan",
                                "countNumber": args.kept,
                            },
                            "action": {"type": "expire"},
                        },
                        {
                            "rulePriority": 2,
                            "description": f"Keep the last {args.kept} other images",
                            "selection": {
                                "tagStatus": "any",
                                "countType": "imageCountMoreThan",
                                "countNumber": args.kept,
                            },
                            "action": {"type": "expire"},
                        },
                    ]
                }
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )

        self.url = repository.repository_url
        self.registry_id = repository.registry_id
        self.arn = repository.arn
        self.register_outputs({"url": self.url, "registry_id": self.registry_id, "arn": self.arn})
