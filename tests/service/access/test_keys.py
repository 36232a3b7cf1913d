"""The key file: what it may contain, and what happens when it changes."""

import json
import logging
import os
import re
from pathlib import Path

import pytest

from service.access.keys import TOKEN, KeyFile, KeysError, hashed, new_token, parse_keys
from service.access.limits import Limit
from tests.service.keyring import KeyRing

HASH = "a" * 64


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_key_has_256_random_bits_and_is_found_by_its_hash():
    tokens = {new_token() for _ in range(200)}
    assert len(tokens) == 200
    assert all(TOKEN.fullmatch(token) and len(token) == 49 for token in tokens)
    assert {character for token in tokens for character in token[6:]} >= set("abcXYZ019_-")


def test_a_file_contains_what_is_needed_to_recognise_a_key():
    token = new_token()
    content = {"keys": [{"name": "shop", "sha256": hashed(token), "per_second": 2.5}]}
    found = parse_keys(json.dumps(content).encode(), Limit.of(9)).find(token)
    assert found is not None
    assert (found.name, found.limit, found.expires) == ("shop", Limit(2.5, 3), float("inf"))
    assert parse_keys(b'{"keys": []}').find(token) is None


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "truncated"),
        (b"\xff\xfe", "malformed|Invalid"),
        (b"[]", "object"),
        (b"{}", "keys"),
        (b'{"keys": [], "more": 1}', "more"),
        ({"name": "a b", "sha256": HASH}, r"regex.*keys\[0\]\.name"),
        ({"name": "", "sha256": HASH}, "name"),
        ({"name": "../up", "sha256": HASH}, "name"),
        ({"name": "shop\n", "sha256": HASH}, "name"),
        ({"name": "shop", "sha256": HASH.upper()}, "sha256"),
        ({"name": "shop", "sha256": HASH[1:]}, "sha256"),
        ({"name": "shop", "key": "atlas_x"}, "key"),
        ({"name": "shop", "sha256": HASH, "expires": "2027-01-01T00:00:00"}, "timezone"),
        ({"name": "shop", "sha256": HASH, "expires": "soon"}, "expires"),
        ({"name": "shop", "sha256": HASH, "per_second": 0}, "per_second"),
        ({"name": "shop", "sha256": HASH, "burst": 3}, "burst needs per_second"),
        ({"name": "shop", "sha256": HASH, "per_second": 1, "burst": 0}, "burst"),
    ],
)
def test_what_cannot_be_used_is_refused_without_being_quoted(content, says):
    if isinstance(content, dict):
        content = json.dumps({"keys": [content]}).encode()
    with pytest.raises(KeysError, match=says) as refused:
        parse_keys(content)
    assert HASH[:20] not in str(refused.value)
    assert "atlas_x" not in str(refused.value)


def test_a_hash_that_is_there_twice_and_too_many_keys_are_refused():
    entry = {"name": "shop", "sha256": HASH}
    with pytest.raises(KeysError, match=r"keys\[1\], shop: another entry has the same hash"):
        parse_keys(json.dumps({"keys": [entry, entry]}).encode())
    many = [{"name": "shop", "sha256": f"{number:064x}"} for number in range(1001)]
    with pytest.raises(KeysError, match="length <= 1000"):
        parse_keys(json.dumps({"keys": many}).encode())


def test_a_service_does_not_start_without_its_keys(tmp_path: Path):
    with pytest.raises(KeysError, match=r"none\.json: No such file"):
        KeyFile(tmp_path / "none.json")
    (tmp_path / "large.json").write_bytes(b" " * 1_048_577)
    with pytest.raises(KeysError, match="more than 1048576 bytes"):
        KeyFile(tmp_path / "large.json")


def test_a_changed_file_counts_within_a_second_and_is_not_read_more_often(ring: KeyRing):
    clock = Clock()
    file = KeyFile(ring.path, clock=clock)
    token = ring.add("shop")
    clock.now += 0.9
    assert file.current().find(token) is None
    clock.now += 0.2
    assert file.current().find(token) is not None
    ring.remove("shop")
    clock.now += 1.1
    assert file.current().find(token) is None


def test_a_symbolic_link_that_is_exchanged_counts_as_kubernetes_exchanges_it(ring: KeyRing, tmp_path: Path):
    """A mounted Secret is keys.json -> ..data/keys.json, and ..data -> a new folder for each change."""
    clock, mount = Clock(), tmp_path / "mount"
    for number in range(2):
        (mount / f"..{number}").mkdir(parents=True)
    ring.path = mount / "..0/keys.json"
    old = ring.add("shop")
    (mount / "..data").symlink_to("..0")
    (mount / "keys.json").symlink_to("..data/keys.json")
    file = KeyFile(mount / "keys.json", clock=clock)
    ring.path, ring.entries = mount / "..1/keys.json", []
    new = ring.add("shop")
    os.utime(ring.path, (0, 0))  # as old as it may say
    (mount / "..data_tmp").symlink_to("..1")
    (mount / "..data_tmp").rename(mount / "..data")
    clock.now += 1.1
    assert (file.current().find(old), file.current().find(new) is not None) == (None, True)


@pytest.mark.parametrize("broken", [b"{", b'{"keys": [{"name": "shop"}]}', None])
def test_a_broken_file_leaves_the_old_keys_in_force_and_says_so_once(
    ring: KeyRing, caplog: pytest.LogCaptureFixture, broken: bytes | None
):
    caplog.set_level(logging.INFO)
    clock = Clock()
    seen: list[bool] = []
    token = ring.add("shop")
    file = KeyFile(ring.path, clock=clock)
    file.watchers.append(seen.append)
    if broken is None:
        ring.path.unlink()
    else:
        ring.path.write_bytes(broken)
    for _ in range(3):
        clock.now += 1.1
        assert file.current().find(token) is not None
    ring.write()
    clock.now += 1.1
    assert file.current().find(token) is not None
    assert seen == [True, True, True, False]
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]
    fields = caplog.records[0].__dict__["fields"]
    assert fields["file"] == str(ring.path)
    assert re.search("No such file|truncated|missing required field", fields["reason"])


def test_another_process_says_it_instead(ring: KeyRing, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    file = KeyFile(ring.path)
    file.logs = False
    ring.add("shop")
    file.refresh()
    assert not caplog.records
