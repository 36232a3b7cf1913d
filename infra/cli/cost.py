"""`atlas cost`: a stack's monthly cost, and how to reduce it."""

import json
from dataclasses import asdict

import click

from infra.cli.common import guarded, json_option
from infra.cost.prices import prices
from infra.cost.table import savings, table, total
from infra.engine.workspace import REPOSITORY, stack_settings
from infra.settings import AwsSettings, LocalSettings

WIDTH = 58


@click.command()
@click.option("--stack", default="dev", show_default=True, help="The stack; its settings are in Pulumi.<stack>.yaml.")
@click.option(
    "--traffic-gb", default=10.0, show_default=True, type=click.FloatRange(0, 1e6),
    help="Assumed monthly traffic in GB through the load balancer, and the same through NAT.",
)  # fmt: skip
@json_option
@guarded
def cost(stack: str, traffic_gb: float, as_json: bool) -> None:
    """Print the stack's monthly cost, computed from its settings and AWS's on-demand prices; it needs no account.

    Example: atlas cost --stack prod --traffic-gb 200
    """
    settings = stack_settings(stack, REPOSITORY)
    known = prices()
    if isinstance(settings, LocalSettings):
        if as_json:
            click.echo(json.dumps({"total": 0.0, "lines": [], "savings": []}))
        else:
            click.echo(f"The stack {stack} costs nothing: it runs on this machine.")
        return
    lines = table(settings, traffic_gb)
    month = total(lines)
    less, least = savings(settings, traffic_gb) if isinstance(settings, AwsSettings) else ([], month)
    if as_json:
        document = {
            "stack": stack,
            "currency": "USD",
            "prices": {"date": known.date, "region": known.region},
            "total": round(month, 2),
            "lines": [{"part": one.part, "what": one.what, "monthly": round(one.monthly, 2)} for one in lines],
            "least": round(least, 2),
            "savings": [{**asdict(one), "monthly": round(one.monthly, 2)} for one in less],
        }
        click.echo(json.dumps(document, indent=1))
        return
    part = ""
    for line in sorted(lines, key=lambda one: one.part):
        click.echo(f"{line.part if line.part != part else '':<12}{line.what:<{WIDTH}}{line.monthly:>9.2f}")
        part = line.part
    click.echo(f"{'':<12}{'USD a month':<{WIDTH}}{month:>9.2f}")
    if less:
        click.echo("\nLess by:")
        for saving in less:
            click.echo(f"{saving.monthly:>9.2f}  {saving.monthly / month:>4.0%}  {saving.change}")
        halved = "less than half" if least < month / 2 else "not half: no setting makes the rest less"
        click.echo(f"{least:>9.2f}        with all of these together, {halved}")
    if isinstance(settings, AwsSettings) and settings.budget_usd is not None and month > settings.budget_usd:
        click.echo(f"\nIt passes atlas:budgetUsd ({settings.budget_usd}).")
    click.echo(
        f"\nOn-demand prices of {known.region} as of {known.date}, without taxes and free tiers: infra/cost/prices.yml"
    )
    if settings.region != known.region:
        click.echo(f"This stack is in {settings.region}, where most prices are a few to some twenty per cent higher.")
