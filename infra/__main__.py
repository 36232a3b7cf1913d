"""What `pulumi` by hand runs: find out what the program must know, then run it. `atlas` does both by itself."""

import pulumi
import pulumi.runtime

from infra.program import NOTHING, REPOSITORY, Facts, declare, given_settings
from infra.settings import AnySettings, AwsSettings, BootstrapSettings, LocalSettings


def facts_of(settings: AnySettings) -> Facts:
    """Look at the account, and check that the stack can be made.

    Raises an AtlasError that says what is missing.
    """
    if isinstance(settings, AwsSettings):
        from infra.deployment.account import check_account
        from infra.deployment.checks import check

        changes = not pulumi.runtime.is_dry_run()
        check(settings, changes=changes)
        if changes:
            for line in check_account(pulumi.get_stack(), settings):
                pulumi.log.warn(line)
    elif isinstance(settings, LocalSettings):
        from infra.local.machine import look as look_around

        # `atlas` puts Prometheus and Grafana in place; `pulumi` uses what is there.
        return Facts(machine=look_around(settings, REPOSITORY, pulumi.log.info, install=False))
    elif isinstance(settings, BootstrapSettings):
        from infra.bootstrap.account import look
        from infra.engine.workspace import bootstrapped

        return Facts(stacks=bootstrapped(settings, REPOSITORY), foreign_provider=look(settings).foreign_provider)
    return NOTHING


if __name__ == "__main__":
    given = given_settings()
    declare(given, facts_of(given))
