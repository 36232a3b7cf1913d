"""The image registry: one ECR repository whose tags never change and whose images are scanned."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.names import COMPONENT_TAG, REGISTRY_TYPE

GOOD = "good-"
"""Beginning of the tag that says: this image was deployed, and answered. Tags can't be moved, but there can be more."""


@dataclass(frozen=True, slots=True)
class RegistryArgs:
    """What the registry needs to know."""

    repository: str
    """Its name in the account."""
    disposable: bool
    """Let `pulumi destroy` delete the images too; otherwise the repository is protected."""
    kept: int
    """Images that stay; older ones expire."""
    tags: Mapping[str, str]


class Registry(pulumi.ComponentResource):
    """The repository and its lifecycle.

    Outputs:
        url: ACCOUNT.dkr.ecr.REGION.amazonaws.com/NAME.
        registry_id: the account that holds it.
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
                            # What a rule selects no later one expires: one that answered outlives many that didn't.
                            "rulePriority": 1,
                            "description": f"Keep the last {args.kept} images that answered: a rollback has a target",
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
                            "description": f"Keep the last {args.kept} of the others",
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
