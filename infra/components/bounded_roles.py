"""Path and permissions boundary of the stack's IAM roles, so that GitHub's deploy role can create roles safely."""

from typing import Any

import pulumi

from infra.names import role_path


def bound_roles(stack: str, boundary: str | None) -> None:
    """Add path and boundary to every role that the program declares after this call.

    This includes the roles of remote components: pulumi-eks declares the cluster's role. `boundary`: ARN of a managed
    policy; None: no boundary.
    """

    def bounded(args: pulumi.ResourceTransformArgs) -> pulumi.ResourceTransformResult | None:
        if args.type_ not in ("aws:iam/role:Role", "aws:iam/instanceProfile:InstanceProfile"):
            return None
        props: dict[str, Any] = {**args.props, "path": role_path(stack)}
        if boundary is not None and args.type_ == "aws:iam/role:Role":
            props["permissionsBoundary"] = boundary
        return pulumi.ResourceTransformResult(props=props, opts=args.opts)

    pulumi.runtime.register_resource_transform(bounded)
