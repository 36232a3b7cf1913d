"""What an account needs once: the stacks' state bucket and key, and the roles that GitHub's workflows assume."""

from collections.abc import Mapping
from typing import Any

import pulumi
import pulumi_aws as aws

from infra.components.github_role import AUDIENCE, GITHUB, GithubRole, GithubRoleArgs, provider_arn
from infra.components.state import State, StateArgs
from infra.names import BOOTSTRAP, PROJECT, own_tags
from infra.permissions.boundary import boundary
from infra.permissions.grant import Scope, boundary_name, document
from infra.permissions.roles import deploy_policies, destroy_policies, preview_policies
from infra.settings import AwsSettings, BootstrapSettings


def deploy(
    settings: BootstrapSettings, stacks: Mapping[str, AwsSettings], *, adopt: bool, closing: bool = False
) -> dict[str, Any]:
    """Declare the stack; returns its outputs.

    `adopt`: the account already has an identity provider for GitHub, which is used and not changed.
    `closing`: destroy comes next, so the protection of the state is removed.
    """
    tags = own_tags(BOOTSTRAP)
    provider = aws.Provider("aws", region=settings.region, allowed_account_ids=[settings.account_id])
    here = pulumi.ResourceOptions(providers={"aws": provider})
    scopes = {name: Scope(name, own, settings) for name, own in stacks.items()}

    # `atlas promote` copies images from disposable stacks to the others; pull requests are previewed against them.
    tried = [scope for scope in scopes.values() if scope.settings.disposable]

    State(f"{PROJECT}-state", StateArgs(settings.bucket, closing, tags), here)
    github: pulumi.Input[str] = provider_arn(settings.account_id)
    if not adopt:
        github = aws.iam.OpenIdConnectProvider(
            "github",
            url=f"https://{GITHUB}",
            client_id_lists=[AUDIENCE],
            tags=tags,
            opts=pulumi.ResourceOptions(provider=provider),
        ).arn

    def role(name: str, description: str, subjects: list[str], policies: Mapping[str, str]) -> pulumi.Output[str]:
        subjects = [f"{settings.repository}:{subject}" for subject in subjects]
        hours = settings.session_hours
        return GithubRole(name, GithubRoleArgs(description, subjects, github, policies, hours, tags), here).arn

    outputs: dict[str, Any] = {
        "backend": backend_url(settings),
        "driftRole": role(
            f"{PROJECT}-drift",
            "Reads every stack and its state; for jobs on main",
            ["ref:refs/heads/main"],
            preview_policies(list(scopes.values())),
        ),
    }
    if tried:
        # Whoever can push a branch decides what a pull request runs: no secret of a stack that matters.
        outputs["previewRole"] = role(
            f"{PROJECT}-preview",
            "Reads disposable stacks and their state; for pull requests",
            ["pull_request"],
            preview_policies(tried),
        )
    for stack, scope in scopes.items():
        bounds = aws.iam.Policy(
            boundary_name(stack),
            name=boundary_name(stack),
            description=f"The most that roles of the stack {stack} can be given",
            policy=document(boundary(scope)),
            tags=tags,
            opts=pulumi.ResourceOptions(provider=provider),
        )
        outputs[f"{stack}PermissionsBoundary"] = bounds.arn
        outputs[f"{stack}DeployRole"] = role(
            f"{PROJECT}-deploy-{stack}",
            f"Makes and changes the stack {stack}; for jobs in the environment {stack}",
            [f"environment:{stack}"],
            deploy_policies(scope, [] if scope.settings.disposable else tried),
        )
        if scope.settings.disposable:
            outputs[f"{stack}DestroyRole"] = role(
                f"{PROJECT}-destroy-{stack}",
                f"Takes the stack {stack} down; for jobs in the environment {stack}-destroy",
                [f"environment:{stack}-destroy"],
                destroy_policies(scope),
            )
    return outputs


def backend_url(settings: BootstrapSettings) -> str:
    """The address of the stacks' state."""
    return f"s3://{settings.bucket}?region={settings.region}"
