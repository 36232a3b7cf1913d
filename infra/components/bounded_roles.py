"""Where the stack's IAM roles are, and the most they can be given: what lets GitHub's deploy role make roles safely."""

from typing import Any

import pulumi

from infra.names import role_path


def bound_roles(stack: str, boundary: str | None) -> None:
    """Put every role that the program makes from here on under the path and the boundary, also those of components that
    run elsewhere (pulumi-eks makes the cluster's role).

    `boundary`: ARN of a managed policy; None: no boundary.
    """

    def bounded(args: pulumi.ResourceTransformArgs) -> pulumi.ResourceTransformResult | None:
        if args.type_ not in ("aws:iam/role:Role", "aws:iam/instanceProfile:InstanceProfile"):
            return None
        props: dict[str, Any] = {**args.props, "path": role_path(stack)}
        if boundary is not None and args.type_ == "aws:iam/role:Role":
            props["permissionsBoundary"] = boundary
        return pulumi.ResourceTransformResult(props=props, opts=args.opts)

    pulumi.runtime.register_resource_transform(bounded)
