"""docs/policy.md lists every rule with the meaning, level and ids of the code."""

from infra.policy.pack import ALL
from tests.infra.recording.run import REPOSITORY

FILE = REPOSITORY / "docs" / "policy.md"


def table() -> str:
    """The rules as the document shows them."""
    head = ["| rule | meaning | level | ids |", "| --- | --- | --- | --- |"]
    rows = [f"| `{rule.name}` | {rule.meaning} | {rule.level} | {', '.join(rule.ids)} |" for rule in ALL]
    return "\n".join([*head, *rows]) + "\n"


def test_every_rule_is_listed() -> None:
    assert table() in FILE.read_text(), f"put this into {FILE.name}:\n{table()}"
