"""What the documents tell somebody to type is typed: on a copy of the repository, in their order."""

import json
import os
import re
import subprocess

import pytest

from infra.engine.install import ensure
from tests.docs.documents import Document, documents
from tests.docs.test_commands import commands_in
from tests.infra.aws import up
from tests.infra.conftest import Checkout, checkout  # noqa: F401 - a fixture
from tests.infra.recording.run import REPOSITORY


@pytest.mark.timeout(600)
def test_local_stack_is_operated_as_the_readme_says(checkout: Checkout) -> None:  # noqa: F811
    (block,) = re.findall(
        r"^(?: {4}.*\n)+", Document(REPOSITORY / "README.md").section("Operate the stack"), re.MULTILINE
    )
    typed = [words[1:] for words in commands_in(block)]
    assert [words[0] for words in typed] == ["preview", "up", "status", "destroy"]
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


def test_resources_that_documents_name_are_there() -> None:
    named = {urn for document in documents() for urn in re.findall(r"urn:pulumi:[^\s'`]+", document.text)}
    made = {resource["urn"] for resource in up("base").state()}
    assert named
    assert {urn.split("::", 2)[2] for urn in named} <= {urn.split("::", 2)[2] for urn in made}
