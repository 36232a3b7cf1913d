"""What the documents tell somebody to type is typed: on a copy of the repository, in their order."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from infra.engine.install import ensure
from tests.docs.documents import Document
from tests.docs.test_commands import commands_in
from tests.infra.conftest import Checkout, checkout  # noqa: F401 - a fixture
from tests.infra.recording import sdk_internals
from tests.infra.recording.run import REPOSITORY
from tests.infra.support.aws import up

pytestmark = pytest.mark.slow


@pytest.mark.timeout(600)
def test_local_stack_is_operated_as_the_readme_says(checkout: Checkout) -> None:  # noqa: F811
    (block,) = re.findall(
        r"^(?: {4}.*\n)+", Document(REPOSITORY / "README.md").section("Operate the stack"), re.MULTILINE
    )
    typed = [words[1:] for words in commands_in(block)]
    assert [words[0] for words in typed] == ["preview", "up", "status", "logs", "destroy"]
    for words in typed:
        checkout.atlas(*words)
        if words[0] == "up":
            restore_the_state(checkout)
    checkout.assert_nothing_left()


def restore_the_state(checkout: Checkout) -> None:  # noqa: F811
    """As docs/day-2.md has it: a version of the stack's file becomes what `pulumi stack import` takes."""
    file = checkout.path / ".atlas/state/.pulumi/stacks/atlas/local.json"
    kept = json.loads(file.read_text())
    deployment = {"version": kept["version"], "deployment": kept["checkpoint"]["latest"]}
    (checkout.path / "deployment.json").write_text(json.dumps(deployment))
    file.unlink()  # the worst: it is gone
    state = {"PULUMI_BACKEND_URL": f"file://{checkout.path}/.atlas/state", "PULUMI_CONFIG_PASSPHRASE": ""}
    for command in ("stack init local", "stack import --stack local --file deployment.json"):
        subprocess.run(
            [ensure(lambda _: None), *command.split(), "--non-interactive"],
            cwd=checkout.path, env=os.environ | state, timeout=60, check=True,
        )  # fmt: skip
    changes = json.loads(checkout.atlas("preview", "--json").stdout)["resources"]
    assert changes == {}, "what was made is known again"


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("title", "replaced"),
    [
        (
            "Rotate Grafana's password",
            {
                "randomPassword:RandomPassword::grafana-admin",
                "secretVersion:SecretVersion::grafana-admin",
                "instance:Instance::grafana-instance",
                "metricAlarm:MetricAlarm::atlas-dev-grafana-status",  # of the host's id
            },
        ),
        (
            "Replace a monitoring host",
            {
                "instance:Instance::prometheus-instance",
                "volumeAttachment:VolumeAttachment::prometheus-data",
                "metricAlarm:MetricAlarm::atlas-dev-prometheus-status",
            },
        ),
    ],
)
def test_what_is_tainted_is_what_up_replaces(title: str, replaced: set[str], tmp_path: Path) -> None:
    made = up("base").copy(tmp_path)
    text = Document(REPOSITORY / "docs/day-2.md").whole(title)
    for words in (words for block in re.findall(r"```\n(.*?)```", text, re.DOTALL) for words in commands_in(block)):
        if words[0] == "pulumi":
            sdk_internals.run_pulumi(made.stack, words[1:])
    done = made.up()
    assert done.errors == []
    assert {key.rpartition("/")[2] for key in done.steps} == replaced
    assert set(done.steps.values()) == {"replace"}
