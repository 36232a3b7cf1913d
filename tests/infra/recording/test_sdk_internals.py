"""The private parts of the Pulumi SDK that tests use: of which version they are known, and that they stay together."""

import re
from importlib.metadata import version
from pathlib import Path

from tests.infra.recording import sdk_internals

REPOSITORY = Path(__file__).parents[3]
PRIVATE = re.compile(r"pulumi[\w.]*\._[a-z]|\._run_pulumi|_CallbackServicer|_GRPC_CHANNEL_OPTIONS")


def test_the_sdk_has_the_version_whose_internals_were_read() -> None:
    installed = version("pulumi")
    to_read = "\n".join(f"  {file}: {use}" for file, use in sdk_internals.LOOK_AT.items())
    assert installed == sdk_internals.CHECKED, (
        f"pulumi is {installed}, but its internals were last read in {sdk_internals.CHECKED}. Read these, correct "
        f"tests/infra/recording/sdk_internals.py, then set CHECKED there:\n{to_read}"
    )


def test_no_other_file_uses_private_parts_of_the_sdk() -> None:
    own = {Path(sdk_internals.__file__), Path(__file__)}
    files = [file for folder in ("infra", "service", "tests") for file in (REPOSITORY / folder).rglob("*.py")]
    assert not [str(file) for file in files if file not in own and PRIVATE.search(file.read_text())]
