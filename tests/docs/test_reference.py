"""docs/reference.md and docs/runbook.md say all that there is, and nothing that there isn't."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from textwrap import fill
from typing import Any

import click
import pytest
import yaml
from flask.testing import FlaskClient
from pulumi.runtime import mocks
from pydantic import BaseModel
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticUndefined

from infra.cli import COMMANDS, main
from infra.environments import aws, bootstrap, local
from infra.local.machine import Machine
from infra.monitoring.prometheus import RULES
from infra.setting_types import PolicyException
from infra.settings import AwsSettings, BootstrapSettings, LocalSettings
from service.settings import Settings as ServiceSettings
from tests.bundles import make_bundle
from tests.docs.documents import document
from tests.infra.recording.run import REPOSITORY
from tests.infra.support.aws import BASE

REFERENCE = document("reference.md")
RUNBOOK = document("runbook.md")
MARK = "## Commands\n"


def shown(default: Any) -> str:
    """A default as the tables have it."""
    if default is PydanticUndefined:
        return "required"
    if default in (None, ()):
        return "none"
    if isinstance(default, tuple):
        return f"`[{', '.join(default)}]`"
    return f"`{default}`"


@pytest.mark.parametrize(
    ("title", "kind", "spelled"),
    [
        ("Settings of the local stack", LocalSettings, to_camel),
        ("Settings of an AWS stack", AwsSettings, to_camel),
        ("Settings of bootstrap", BootstrapSettings, to_camel),
        ("A policy exception", PolicyException, to_camel),
        ("Settings of the service", ServiceSettings, str.upper),
    ],
)
def test_every_setting_is_there_with_its_default(
    title: str, kind: type[BaseModel], spelled: Callable[[str], str]
) -> None:
    expected = {spelled(name): shown(field.default) for name, field in kind.model_fields.items()}
    assert {name: cells[0] for name, cells in REFERENCE.rows(title).items()} == expected


def described(name: str, command: click.Command) -> str:
    """A command as the document shows it: from the very help that it prints."""
    text, _, example = (command.help or "").rpartition("Example: ")
    paragraphs = [
        fill(" ".join(paragraph.split()), 138, break_on_hyphens=False) for paragraph in text.strip().split("\n\n")
    ]
    lines = [f"### atlas {name}", "", "\n\n".join(paragraphs), "", f"    {example.strip()}", ""]
    options = [option for option in command.params if isinstance(option, click.Option) and not option.hidden]
    if options:
        lines += ["| option | default | meaning |", "| --- | --- | --- |"]
        for option in options:
            default = f"`{option.default}`" if option.show_default else ""
            lines.append(f"| `{', '.join(option.opts)}` | {default} | {option.help} |")
    return "\n".join(lines).rstrip().replace("<", "\\<") + "\n"


def all_commands() -> dict[str, click.Command]:
    """By name as one types it; those of a group after the group."""
    found: dict[str, click.Command] = {}
    for name in COMMANDS:
        command = main.get_command(click.Context(main), name)
        assert command
        found[name] = command
        if isinstance(command, click.Group):
            found |= {f"{name} {part}": inner for part, inner in command.commands.items()}
    return found


def commands() -> str:
    """The whole section."""
    return "\n".join(described(name, command) for name, command in all_commands().items())


def test_commands_stand_there_as_their_help_has_them() -> None:
    """`ATLAS_GOLDEN=write pytest tests/docs` writes them anew."""
    if os.environ.get("ATLAS_GOLDEN") == "write":
        head, _, rest = REFERENCE.path.read_text().partition(MARK)
        _, following, tail = rest.partition("\n## ")
        REFERENCE.path.write_text(f"{head}{MARK}\n{commands()}{following}{tail}")
    assert f"{MARK}\n{commands()}\n## " in REFERENCE.path.read_text(), "ATLAS_GOLDEN=write pytest tests/docs mends it"


@pytest.mark.parametrize("name", all_commands())
def test_every_command_has_an_example(name: str) -> None:
    assert f"Example: atlas {name}" in (all_commands()[name].help or "")


def test_every_route_is_there(client: FlaskClient) -> None:
    routes = set()
    for rule in client.application.url_map.iter_rules():
        path = re.sub(r"<(?:[^:>]*:)?(\w+)>", r"{\1}", rule.rule)
        routes |= {f"{method} {path}" for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}}
    assert REFERENCE.rows("Routes of the service").keys() == routes


def test_every_metric_of_the_service_is_there(client: FlaskClient) -> None:
    row = json.loads(client.get("/openapi.json").text)["paths"]["/predict"]["post"]["requestBody"]["content"]
    assert client.post("/predict", json=row["application/json"]["example"]).status_code == 200
    exposed = set(re.findall(r"^# TYPE (\S+) ", client.get("/metrics").text, re.MULTILINE))
    # Of each counter and histogram the client library says when it began; of itself it tells more than anybody asks.
    own = {name for name in exposed if not name.endswith("_created") and not name.startswith(("python_", "process_"))}
    assert own == REFERENCE.rows("Metrics of the service").keys()


def test_every_metric_of_the_hosts_is_there() -> None:
    written = "".join(file.read_text() for file in (REPOSITORY / "infra/hosts/files").iterdir())
    assert set(re.findall(r"(atlas_[a-z_]+) %s", written)) == REFERENCE.rows("Metrics of the hosts").keys()


class World(mocks.Mocks):
    """Whatever is declared is made."""

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        return f"{args.name}-id", {**args.inputs, "arn": args.name, "name": args.name}

    def call(self, _: mocks.MockCallArgs) -> tuple[dict[Any, Any], list[tuple[str, str]] | None]:
        return {}, []


@pytest.mark.filterwarnings("ignore")  # what is declared is not waited for: only the outputs' names count
def test_every_output_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mocks.set_mocks(World(), project="atlas", stack="dev")
    monkeypatch.setattr(aws, "bound_roles", lambda *_: None)  # mocks know no transforms
    make_bundle(tmp_path / "models/bundle", "binary")
    stack = AwsSettings.model_validate({name: yaml.safe_load(value) for name, value in BASE.items()})
    home = BootstrapSettings(environment="bootstrap", account_id="123456789012", repository="repo:OWNER/REPO")
    nothing = Machine(missing={"prometheus": "not in place", "grafana": "not in place"})
    made = {
        "the local stack": local.deploy(LocalSettings(environment="local"), tmp_path, nothing),
        "an AWS stack": aws.deploy(stack, tmp_path),
        "bootstrap": bootstrap.deploy(home, {"dev": stack}, adopt=False),
    }
    assert {name: REFERENCE.rows(f"Outputs of {name}").keys() for name in made} == {
        name: outputs.keys() for name, outputs in made.items()
    }


def rules_of(kind: str) -> dict[str, dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule[kind]: rule for group in groups for rule in group["rules"] if kind in rule}


def test_every_recorded_metric_is_there() -> None:
    windows: dict[str, str] = {}
    for name in rules_of("record"):
        family, _, window = name.rpartition(":rate")
        key = f"{family}:rate…" if family.startswith("service:") else name
        windows[key] = f"{windows[key]}, {window}" if key in windows else window
    assert REFERENCE.rows("Recorded metrics").keys() == windows.keys()
    for name, listed in windows.items():
        if name.endswith("…"):
            assert f"({listed})" in REFERENCE.rows("Recorded metrics")[name][0]


def test_every_alert_has_its_first_steps() -> None:
    headings = RUNBOOK.rows("All alerts")
    alerts = rules_of("alert")
    assert headings.keys() == alerts.keys()
    for name, rule in alerts.items():
        assert headings[name][0] == rule["labels"]["severity"], name
        assert len(RUNBOOK.section(name).split()) > 15, f"{name} has no first steps"
    assert set(re.findall(r"^### (\w+)$", RUNBOOK.prose, re.MULTILINE)) == alerts.keys()
