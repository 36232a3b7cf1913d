"""`atlas ci …`: steps of the GitHub workflows; each of them can also be run by hand."""

import json
from pathlib import Path
from typing import Any

import click

from infra.ci import container, github, pipeline, report
from infra.ci.changelog import notes_of
from infra.cli.common import guarded, say, stack_of, stack_option
from infra.cli.dvc import use_remote
from infra.engine.stack import AtlasStack
from infra.engine.workspace import REPOSITORY
from infra.errors import FailedError, SettingsError, StepError
from infra.settings import AwsSettings

MODEL = Path(".atlas/ci/model.json")
"""The file in which `atlas ci repro` stores its results for the report, relative to the repository."""

base_option = click.option(
    "--base",
    default=None,
    help="The revision to compare with; default: the pull request's base branch, else the previous commit.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def ci() -> None:
    """Steps of the GitHub workflows; each of them can also be run by hand.

    Example: atlas ci repro
    """


@ci.command()
@stack_option
@guarded
def pull(stack: str) -> None:
    """Fetch the outputs in dvc.lock from the stack's bucket, or, if it has none, from DVC's default remote.

    If the remote doesn't exist yet, or some outputs are missing, this is reported, but isn't a failure: the pipeline
    makes them again.

    Example: atlas ci pull --stack dev
    """
    _use_remote(stack_of(stack, makes=False))
    click.echo(f"dvc pull: {pipeline.pull(REPOSITORY)}")


@ci.command()
@stack_option
@guarded
def push(stack: str) -> None:
    """Push data and models to the stack's bucket, so that other machines can pull them.

    Example: atlas ci push --stack dev
    """
    opened = stack_of(stack, makes=False)
    if _use_remote(opened) is None and isinstance(opened.settings, AwsSettings):
        raise SettingsError(f"the stack {stack} has no bucket yet: `atlas up --stack {stack}` makes it")
    click.echo(f"dvc push: {pipeline.push(REPOSITORY)}")


def _use_remote(stack: AtlasStack) -> str | None:
    url = use_remote(stack)
    if url is not None:
        say(f"DVC's remote is {url}")
    return url


@ci.command()
@guarded
def lock() -> None:
    """Fail unless dvc.lock belongs to this commit's code, parameters and data; names the command that fixes it.

    Example: atlas ci lock
    """
    pipeline.check_lock(REPOSITORY)
    click.echo("dvc.lock belongs to this commit")


@ci.command()
@base_option
@guarded
def repro(base: str | None) -> None:
    """Run the pipeline, compare its results with the committed results, and store figures and plots for the report.

    Differences that another machine's floating-point arithmetic can cause are only reported; others are a failure.

    Example: atlas ci repro --base origin/main
    """
    note = REPOSITORY / MODEL
    note.parent.mkdir(parents=True, exist_ok=True)
    note.unlink(missing_ok=True)
    since = pipeline.base_of(REPOSITORY, base)
    try:
        rerun = pipeline.reproduce(REPOSITORY)
    except StepError as error:
        note.write_text(json.dumps(report.Model(since, error=str(error)).document(), indent=1))
        raise
    model = report.Model(
        since,
        figures=pipeline.moved(pipeline.metrics_since(REPOSITORY, since)) if since else {},
        plots=pipeline.plots_since(REPOSITORY, since),
        rerun=rerun,
    )
    note.write_text(json.dumps(model.document(), indent=1))
    if not rerun.differs:
        click.echo("every output is, byte for byte, what dvc.lock names")
        return
    click.echo(f"differs from dvc.lock by no more than arithmetic: {', '.join(rerun.differs)}")
    for name, (there, here) in sorted(rerun.figures.items()):
        click.echo(f"  {name}: {there:g} as committed, {here:g} here")


@ci.command("report")
@click.option(
    "--preview",
    "previewed",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file of `atlas preview --save FILE`; if it doesn't exist, the report says that the preview didn't run.",
)
@click.option("--summary", is_flag=True, help="Also append the report to the job's summary (GITHUB_STEP_SUMMARY).")
@click.option("--comment", is_flag=True, help="Also write the report as the pull request's comment (GITHUB_TOKEN).")
@guarded
def show(previewed: Path | None, summary: bool, comment: bool) -> None:
    """Print a report about a change, as Markdown: figures and curves from `atlas ci repro`, and the stack's preview.

    Example: atlas ci report --preview .atlas/ci/preview.json
    """
    noted = REPOSITORY / MODEL
    model = report.Model.of(json.loads(noted.read_text())) if noted.is_file() else None
    foreseen: dict[str, Any] | None = None
    if previewed is not None:
        foreseen = json.loads(previewed.read_text()) if previewed.is_file() else {}
    text = report.render(model, foreseen, github.link())
    click.echo(text, nl=False)
    if summary:
        github.summarise(text)
    if comment:
        say(f"the comment: {github.comment(github.pull_request(), text, report.MARK)}")


@ci.command()
@click.argument("previewed", type=click.Path(dir_okay=False, path_type=Path))
@guarded
def drift(previewed: Path) -> None:
    """Open, update or close the issue about a stack that differs from what was deployed (GITHUB_TOKEN).

    PREVIEWED is the file of `atlas preview --save FILE`, run with --deployed and --refresh.

    Example: atlas ci drift .atlas/ci/drift.json
    """
    if not previewed.is_file():
        raise FailedError(
            [f"there is no {previewed}: the preview failed before it wrote this file; its output says why"]
        )
    foreseen = json.loads(previewed.read_text())
    stack = foreseen["stack"]
    wanted = bool(foreseen["steps"] or foreseen["errors"])
    text = report.drift(foreseen, github.link())
    github.summarise(text if wanted else f"{stack} is as it was deployed.\n")
    title = f"The stack {stack} isn't as it was deployed"
    click.echo(github.keep_issue(title, text, report.drift_mark(stack), wanted=wanted))


@ci.command("container")
@click.argument("image")
@guarded
def try_container(image: str) -> None:
    """Run the image as a cluster would, request a prediction, and check that it stops within its grace period.

    Example: atlas ci container atlas
    """
    tried = container.smoke(image)
    click.echo(
        f"{image}: ready after {tried.ready:.1f} s, answered {json.dumps(tried.answer)}, "
        f"stopped {tried.stopped:.1f} s after SIGTERM"
    )


@ci.command()
@click.argument("tag")
@click.option("--publish", is_flag=True, help="Create the tag's release on GitHub with these notes (GITHUB_TOKEN).")
@guarded
def release(tag: str, publish: bool) -> None:
    """Print the release's notes: the first lines of the commits since the previous tag.

    Example: atlas ci release v1.2.0
    """
    notes = notes_of(REPOSITORY, tag)
    click.echo(notes, nl=False)
    if publish:
        say(f"the release: {github.release(tag, notes)}")
