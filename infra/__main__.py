"""What `pulumi` by hand runs: find out what the program must know, then run it. `atlas` does both by itself."""

import sys

import pulumi
import pulumi.runtime

from infra.errors import AtlasError
from infra.program import NOTHING, REPOSITORY, Facts, declare, given_settings
from infra.settings import AnySettings, AwsSettings, BootstrapSettings, LocalSettings

SHOWN = 32
"""The exit status by which Pulumi's Python host knows that the program has shown why it ended, and adds nothing."""


def facts_of(settings: AnySettings) -> Facts:
    """Look at the account, and check that the stack can be made.

    Raises an AtlasError that says what is missing.
    """
    if isinstance(settings, AwsSettings):
        from infra.deployment.account import check_account
        from infra.deployment.checks import check
        from infra.deployment.images import refuse_missing

        # A preview needs neither Docker nor access to the cluster.
        check(settings, changes=not pulumi.runtime.is_dry_run())
        refuse_missing(pulumi.get_stack(), settings)
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


def run() -> None:
    """Declare the stack that the engine runs; an error that a person can mend ends it with its own lines alone."""
    try:
        given = given_settings()
        declare(given, facts_of(given))
    except AtlasError as error:
        # After a pulumi.RunError, the host would add that the program ended with a status other than 0.
        pulumi.log.error("\n".join(error.lines))
        sys.exit(SHOWN)


if __name__ == "__main__":
    run()
