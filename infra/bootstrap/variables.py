"""GitHub's variables, and lines for the stack files, which follow from bootstrap's outputs."""

from collections.abc import Mapping
from typing import Any

from infra.names import PROJECT
from infra.settings import AwsSettings, BootstrapSettings


def variables_of(
    settings: BootstrapSettings, stacks: Mapping[str, AwsSettings], outputs: Mapping[str, Any]
) -> dict[str, dict[str, str]]:
    """GitHub's variables: environment ("" for the whole repository) -> name -> value."""
    variables = {
        "": {
            "PULUMI_BACKEND_URL": str(outputs["backend"]),
            "AWS_REGION": settings.region,
            "ATLAS_DRIFT_ROLE": str(outputs["driftRole"]),
            "ATLAS_SESSION_SECONDS": str(settings.session_hours * 3600),
        }
    }
    if "previewRole" in outputs:
        variables[""] |= {"ATLAS_PREVIEW_ROLE": str(outputs["previewRole"])}
    for stack, own in stacks.items():
        variables[stack] = {"ATLAS_DEPLOY_ROLE": str(outputs[f"{stack}DeployRole"])}
        if own.disposable:
            variables[f"{stack}-destroy"] = {"ATLAS_DESTROY_ROLE": str(outputs[f"{stack}DestroyRole"])}
    return variables


def missing(stack: str, own: AwsSettings, outputs: Mapping[str, Any]) -> list[str]:
    """Lines missing in the stack's file: the deploy role may only create roles with the permissions boundary, and
    GitHub's roles need access to the cluster."""
    lines = []
    if own.permissions_boundary != outputs[f"{stack}PermissionsBoundary"]:
        lines.append(f"{PROJECT}:permissionsBoundary: {outputs[f'{stack}PermissionsBoundary']}")
    roles = [outputs[name] for name in (f"{stack}DeployRole", f"{stack}DestroyRole") if name in outputs]
    absent = [str(role) for role in roles if role not in own.admin_principals]
    if absent:
        lines.append(f"{PROJECT}:adminPrincipals: […, {', '.join(absent)}]")
    return lines
