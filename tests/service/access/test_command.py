"""`python -m service.access`: makes keys that the service takes, and files that it can read."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from service.access.__main__ import main
from service.access.keys import Key, KeyFile, parse_entries
from service.access.limits import Limit


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def made(path: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """The key that the command prints on standard output, alone."""
    capsys.readouterr()
    assert main(["--file", str(path), "new", *options]) == 0
    return capsys.readouterr().out.removesuffix("\n")


def found(path: Path, token: str) -> Key:
    """The key as a service finds it."""
    key = KeyFile(path).current().find(token)
    assert key is not None
    return key


def test_a_key_is_printed_once_and_only_its_hash_is_kept(path, capsys):
    token = made(path, capsys, "shop", "--per-second", "5", "--burst", "9", "--expires", "2999-12-31")
    key = found(path, token)
    assert (key.name, key.limit) == ("shop", Limit(5, 9))
    assert datetime.fromtimestamp(key.expires, UTC) == datetime(3000, 1, 1, tzinfo=UTC), "the day's end"
    assert token not in path.read_text()
    assert token[6:] not in path.read_text()
    assert main(["--file", str(path), "list"]) == 0
    listed = capsys.readouterr().out
    assert listed.startswith("shop  ")
    assert "expires 3000-01-01T00:00Z, 5 requests per second, 9 at once" in listed
    assert token not in listed


def test_a_rotation_keeps_the_old_key_for_a_while_and_the_limit(path, capsys):
    old = made(path, capsys, "shop", "--per-second", "5", "--burst", "7")
    other = made(path, capsys, "other")
    new = made(path, capsys, "shop", "--retire", "7d")
    assert found(path, new).limit == found(path, old).limit == Limit(5, 7)
    assert found(path, new).expires == found(path, other).expires == float("inf")
    until = found(path, old).expires
    left = datetime.fromtimestamp(until, UTC) - datetime.now(UTC)
    assert timedelta(days=6, hours=23) < left <= timedelta(days=7)
    assert main(["--file", str(path), "new", "shop", "--retire", "30d"]) == 0
    assert found(path, old).expires == until, "never later than before"


def test_a_key_is_removed_by_its_hash_or_all_of_a_name(path, capsys):
    first, second = made(path, capsys, "shop"), made(path, capsys, "shop")
    prefix = parse_entries(path.read_bytes())[0].sha256[:12]
    assert main(["--file", str(path), "remove", "shop", "--hash", prefix]) == 0
    keys = KeyFile(path).current()
    assert (keys.find(first), keys.find(second) is not None) == (None, True)
    assert main(["--file", str(path), "remove", "shop"]) == 0
    assert json.loads(path.read_text()) == {"keys": []}
    assert main(["--file", str(path), "remove", "shop"]) == 1
    assert "there is no such key of shop" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["new", "a b"], "name"),
        (["new", "shop", "--expires", "soon"], "'soon' is neither a date"),
        (["new", "shop", "--expires", "xd"], "'xd' is neither a date"),
        (["new", "shop", "--expires", "99999999999d"], "neither a date"),
        (["new", "shop", "--per-second", "-1"], "per_second"),
        (["new", "shop", "--burst", "3"], "burst needs per_second"),
        (["list"], "No such file"),
    ],
)
def test_what_is_wrong_is_said_in_a_line_and_nothing_is_written(path, capsys, arguments, says):
    assert main(["--file", str(path), *arguments]) == 1
    said = capsys.readouterr()
    assert says in said.err
    assert said.err.count("\n") == 1
    assert not said.out
    assert not list(path.parent.iterdir())


def test_a_broken_file_is_left_as_it_is(path, capsys):
    path.write_text("{")
    assert main(["--file", str(path), "new", "shop"]) == 1
    assert path.read_text() == "{"
    assert [file.name for file in path.parent.iterdir()] == ["keys.json"]


def test_a_file_keeps_its_mode(path, capsys):
    made(path, capsys, "shop")
    assert path.stat().st_mode & 0o777 == 0o644
    path.chmod(0o600)
    made(path, capsys, "shop")
    assert path.stat().st_mode & 0o777 == 0o600
