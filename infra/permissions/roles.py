"""The policies of each role: label -> policy document.

Each is a separate managed policy, because IAM limits their size.
"""

from collections.abc import Sequence

from infra.permissions import cluster, data, identity, network, state
from infra.permissions.grant import Scope, document


def preview_policies(scopes: Sequence[Scope]) -> dict[str, str]:
    """Reads these stacks and changes none; reads no secrets, and in S3 only state, hosts' configuration and DVC's data.

    It can decrypt these stacks' state and the secrets in it, because a preview needs them.
    """
    return {
        "state": document(state.read(scopes)),
        **{f"{label}-{scope.stack}": policy for scope in scopes for label, policy in _look(scope).items()},
    }


def deploy_policies(scope: Scope, sources: Sequence[Scope]) -> dict[str, str]:
    """Creates and changes the stack; this includes deleting resources that a change removes.

    `sources`: stacks whose images can be promoted to it.
    """
    copied = data.copy(sources) if sources else []
    return {
        "state": document([*state.read([scope, *sources]), *state.write(scope), *copied]),
        **_look(scope),
        "remove": _remove(scope),
        "network": document(network.change(scope)),
        "cluster": document([*cluster.change(scope), *identity.change(scope)]),
        "data": document(data.change(scope)),
    }


def destroy_policies(scope: Scope) -> dict[str, str]:
    """Destroys the stack and deletes what it leaves behind; creates nothing."""
    return {
        "state": document([*state.read([scope]), *state.write(scope)]),
        **_look(scope),
        "remove": _remove(scope),
        "sweep": document(network.sweep(scope)),
    }


def _look(scope: Scope) -> dict[str, str]:
    return {
        "see": document([*network.read(scope), *cluster.read(scope)]),
        "read": document([*data.read(scope), *identity.read(scope)]),
    }


def _remove(scope: Scope) -> str:
    return document([*network.remove(scope), *cluster.remove(scope), *data.remove(scope), *identity.remove(scope)])
