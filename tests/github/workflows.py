"""Parses the workflows: jobs, steps, and the subject of GitHub's token in each job."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).parents[2]
FOLDER = REPOSITORY / ".github" / "workflows"
SETUP = REPOSITORY / ".github" / "actions" / "setup" / "action.yml"


class _Loader(yaml.SafeLoader):
    """YAML as GitHub reads it: `on` is not a boolean."""


_Loader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:bool" or letter in "tTfF"]
    for letter, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read(path: Path) -> dict[str, Any]:
    """A workflow, or an action."""
    found: dict[str, Any] = yaml.load(path.read_text(), _Loader)
    return found


@dataclass(frozen=True)
class Job:
    """A job of a workflow."""

    workflow: str
    name: str
    on: Mapping[str, Any]
    body: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.workflow}.{self.name}"

    @property
    def steps(self) -> list[dict[str, Any]]:
        return list(self.body["steps"])

    @property
    def runs(self) -> list[str]:
        """The commands of its `run:` steps."""
        return [str(step["run"]) for step in self.steps if "run" in step]

    @property
    def role(self) -> str | None:
        """The expression of the role that it assumes."""
        for step in self.steps:
            if str(step.get("uses", "")).startswith("aws-actions/configure-aws-credentials@"):
                return str(step["with"]["role-to-assume"])
        return None

    @property
    def subjects(self) -> set[str]:
        """The subjects of GitHub's token, for each way in which the job can start.

        After docs.github.com, "OpenID Connect reference": the environment, else `pull_request`, else the ref.
        """
        environment = self.body.get("environment")
        if environment:
            return {f"environment:{name}" for name in expanded(str(environment))}
        found = set()
        for event, given in self.on.items():
            if event == "pull_request":
                found.add("pull_request")
            elif event == "push" and given and "tags" in given:
                found |= {f"ref:refs/tags/{tag}" for tag in given["tags"]}
            elif event == "push":
                found |= {f"ref:refs/heads/{branch}" for branch in (given or {}).get("branches", ["*"])}
            elif event == "workflow_dispatch":
                # It can be started by hand on any branch, unless the job has a condition.
                only = re.search(r"github\.ref == 'refs/heads/([\w-]+)'", str(self.body.get("if", "")))
                found.add(f"ref:refs/heads/{only[1] if only else '*'}")
            elif event == "schedule":
                found.add("ref:refs/heads/main")  # the default branch, always
            else:
                raise AssertionError(f"{self}: what subject has {event}?")
        return found


def expanded(environment: str) -> list[str]:
    """The environments that an expression can name: `inputs.stack` may be any disposable stack, here dev."""
    return [re.sub(r"\$\{\{ inputs\.stack \|\| '(\w+)' \}\}", r"\1", environment)]


def files() -> list[Path]:
    return sorted(FOLDER.glob("*.yml"))


def jobs() -> list[Job]:
    """All jobs of all workflows."""
    return [
        Job(path.stem, name, document["on"], body)
        for path in files()
        for document in [read(path)]
        for name, body in document["jobs"].items()
    ]


def used() -> Iterator[tuple[str, str, str]]:
    """File, action@ref and comment of all used actions."""
    for path in (*files(), SETUP):
        for line in path.read_text().splitlines():
            found = re.match(r"\s*-?\s*uses: (\S+)(?: # (.*))?$", line)
            if found:
                yield str(path.relative_to(REPOSITORY)), found[1], found[2] or ""
