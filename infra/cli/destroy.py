"""`atlas destroy`: back to nothing."""

import click
from pulumi import automation as auto

from infra.cli.common import guarded, raise_reported, say, settings_of, stack_option
from infra.engine.workspace import REPOSITORY, Progress, open_stack
from infra.local.supervisor import Stack as Processes
from infra.settings import AwsSettings

KEPT = "data/, models/, .atlas/mlflow and .atlas/dvc-remote stay"


@click.command()
@stack_option
@guarded
def destroy(stack: str) -> None:
    """Stop and remove everything that `up` made. Data, models and MLflow's records stay.

    Example: atlas destroy --stack local
    """
    settings = settings_of(stack, makes=False)
    opened = open_stack(stack, settings, lambda: None, REPOSITORY, say)
    progress = Progress(say)
    try:
        if isinstance(settings, AwsSettings):
            # A protected stack is refused here; the destroy alone would first take down all around what is protected.
            opened.preview_destroy(on_event=Progress(lambda _: None), suppress_outputs=True, color="never")
        opened.destroy(on_event=progress, suppress_outputs=True, color="never")
    except auto.CommandError:
        raise_reported(progress)
        raise
    removed = ", ".join(sorted(progress.changes)) or "nothing (there was nothing)"
    if isinstance(settings, AwsSettings):
        click.echo(f"Removed: {removed}.")
        return
    # What a killed `up` started before the engine could note it.
    ended = Processes(REPOSITORY / settings.directory)
    left = ended.end_orphans()
    if left:
        say(f"  ended {len(left)} processes that no run had noted: {', '.join(map(str, left))}")
    click.echo(f"Removed: {removed}. {KEPT}.")
