"""`atlas bootstrap`: creates what an account needs before the first stack and after the last, and removes it again."""

import json
import shlex
from collections.abc import Mapping
from typing import Any

import click

from infra.bootstrap.home import STACK, Home
from infra.bootstrap.variables import missing, variables_of
from infra.cli.common import agree, guarded, json_option, say
from infra.engine.workspace import REPOSITORY, bootstrapped, stack_settings
from infra.errors import SettingsError
from infra.settings import AwsSettings, BootstrapSettings


@click.command()
@json_option
@click.option(
    "--destroy", is_flag=True, help="Delete bucket, key and roles. Refuses while other stacks have resources."
)
@click.option("--yes", is_flag=True, help="With --destroy: don't ask for confirmation.")
@guarded
def bootstrap(as_json: bool, destroy: bool, yes: bool) -> None:
    """Create the state bucket, its key and GitHub's roles, and move the state there. A second run changes nothing.

    Example: atlas bootstrap
    """
    settings = stack_settings(STACK, REPOSITORY)
    if not isinstance(settings, BootstrapSettings):
        raise SettingsError(f"Pulumi.{STACK}.yaml: atlas:environment must be bootstrap")
    stacks = bootstrapped(settings, REPOSITORY)
    home = Home(settings, stacks, say)
    if destroy:
        removed = home.close(lambda question: agree(question, yes=yes, command="atlas bootstrap --destroy --yes"))
        told = f"Removed: {', '.join(removed) or 'nothing (there was nothing)'}."
        click.echo(json.dumps({"removed": removed}, indent=1) if as_json else told)
        return
    outputs, changes = home.make()
    ready = home.init_stacks()
    variables = variables_of(settings, stacks, outputs)
    if as_json:
        click.echo(
            json.dumps({"outputs": outputs, "changes": changes, "initialised": ready, "variables": variables}, indent=1)
        )
        return
    _explain(settings, stacks, outputs, variables)


def _explain(
    settings: BootstrapSettings,
    stacks: Mapping[str, AwsSettings],
    outputs: Mapping[str, Any],
    variables: Mapping[str, Mapping[str, str]],
) -> None:
    """Print the remaining steps, which a person must do."""
    click.echo("# On this machine `atlas` knows the bucket. For `pulumi` itself, and on other machines:")
    click.echo(f"export PULUMI_BACKEND_URL={shlex.quote(variables['']['PULUMI_BACKEND_URL'])}")
    for stack, own in stacks.items():
        lines = missing(stack, own, outputs)
        if lines:
            click.echo(f"\n# GitHub's roles can work on the stack {stack} once Pulumi.{stack}.yaml says:")
            click.echo("\n".join(f"#   {line}" for line in lines))
    owner_and_name = "/".join(part.split("@")[0] for part in settings.repository.removeprefix("repo:").split("/"))
    click.echo("\n# For GitHub's workflows, once, by somebody who administers the repository. Only jobs on main get an")
    click.echo("# environment, and so its role; in a private repository this needs GitHub Pro, Team or Enterprise:")
    for place, values in variables.items():
        if place:
            environment = f"repos/{owner_and_name}/environments/{place}"
            click.echo(
                f"gh api --method PUT {environment} -F 'deployment_branch_policy[protected_branches]=false' "
                "-F 'deployment_branch_policy[custom_branch_policies]=true'"
            )
            click.echo(f"gh api --method POST {environment}/deployment-branch-policies -f name=main")
        for name, value in values.items():
            where = f" --env {place}" if place else ""
            click.echo(f"gh variable set {name} --repo {owner_and_name}{where} --body {shlex.quote(value)}")
