"""The online store in DynamoDB, which moto plays over HTTP: it has what a file has, also after anything went wrong."""

import json
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event
from typing import Any
from unittest.mock import Mock

import boto3
import msgspec
import pytest
from moto.dynamodb.models import dynamodb_backends

from ml.features import flight_views, materializing
from ml.features.dynamodb import DynamoStore
from ml.features.dynamodb_table import Patience, Table
from ml.features.flights import Events
from ml.features.materializing import Writer, when_free
from ml.features.store import Batch, Clock, OnlineStore, Progress, Row, Span, SqliteStore, StoreError
from ml.features.stores import open_store
from ml.features.views import DAY, HOUR, MINUTE, SECOND, Views
from ml.materialize import Materializer
from service.lookup import Lookup
from service.settings import SettingsError, load_settings
from tests.infra.conftest import moto, moto_server
from tests.infra.support.waiting import eventually
from tests.ml.features.conftest import HORIZON, NOON, SHOP_IN_UTC, events, tables, timed

__all__ = ["events", "moto", "moto_server", "tables", "timed"]

SHOP = SHOP_IN_UTC
FLIGHTS = flight_views.views(HORIZON)
NINE = 9 * HOUR
CALM = Patience(connect=30, read=30, attempts=1, whole=0.2)
"""Machines are noisy: only the tests of slowness have short times."""


def create(name: str = "features", hash_key: str = "entity") -> None:
    boto3.client("dynamodb").create_table(
        TableName=name,
        KeySchema=[{"AttributeName": hash_key, "KeyType": "HASH"}, {"AttributeName": "bucket", "KeyType": "RANGE"}],
        AttributeDefinitions=[
            {"AttributeName": hash_key, "AttributeType": "S"},
            {"AttributeName": "bucket", "AttributeType": "N"},
        ],
        BillingMode="PAY_PER_REQUEST",
    )


@pytest.fixture
def table(moto: str) -> str:
    create()
    return "features"


def made(views: Views = SHOP) -> DynamoStore:
    return DynamoStore("features", views, write=True, patience=CALM)


@pytest.fixture(params=["file", "dynamodb"])
def open_one(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Views], OnlineStore]:
    """Opens the store of a test, in one way or the other."""
    if request.param == "file":
        return lambda views: SqliteStore(tmp_path / "features.db", views, write=True)
    request.getfixturevalue("table")
    return made


Entry = tuple[str, str, int, Sequence[Any]]


def write(store: OnlineStore, since: int, until: int, rows: Sequence[Entry], revision: int) -> None:
    """Replace the rows of both views in this time."""
    batches = [
        Batch(
            view.name, since, until, [((key,), Row(at, values)) for name, key, at, values in rows if name == view.name]
        )
        for view in SHOP.views
    ]
    store.write(batches, Progress(until, revision, None), keep=DAY)


def north(store: OnlineStore, since: int = -DAY, until: int = DAY) -> list[tuple[int, Any]]:
    [rows] = store.read([Span("shop", ("north",), since, until)])
    return [(row.timestamp, row.values[0]) for row in rows]


def test_a_store_without_anything(open_one: Callable[[Views], OnlineStore]) -> None:
    store = open_one(SHOP)
    assert store.progress() is None
    assert store.read([Span("shop", ("north",), 0, DAY), Span("person", ("Ann",), 0, 0)]) == [[], []]
    assert store.read([]) == []


def test_rows_come_back_by_span_in_order(open_one: Callable[[Views], OnlineStore]) -> None:
    store = open_one(SHOP)
    times = [NINE + 5 * HOUR, NINE - 3 * HOUR, NINE - 1, NINE, NINE + 1]
    write(store, -1, DAY, [("shop", "north", at, [float(at), None]) for at in times] + [("person", "Ann", 0, [4.5])], 1)
    assert [at for at, _ in north(store)] == sorted(times)
    assert [at for at, _ in north(store, NINE - 1, NINE)] == [NINE - 1, NINE]
    twice = Span("person", ("Ann",), 0, 0)
    assert store.read([twice, twice, Span("shop", ("south",), 0, DAY)]) == [[Row(0, [4.5])], [Row(0, [4.5])], []]
    assert store.progress() == Progress(DAY, 1, None)


def test_a_write_replaces_all_rows_of_its_time(open_one: Callable[[Views], OnlineStore]) -> None:
    """Also those of entities that it has no rows of."""
    store = open_one(SHOP)
    write(store, 0, DAY, [("shop", key, NINE + n, [1.0, "calm"]) for key in ("north", "south") for n in range(4)], 1)
    write(open_one(SHOP), NINE, NINE + 2, [("shop", "south", NINE + 1, [2.0, None])], 2)
    assert north(store) == [(NINE, 1.0), (NINE + 3, 1.0)]
    [south] = store.read([Span("shop", ("south",), 0, DAY)])
    assert [(row.timestamp, row.values[0]) for row in south] == [(NINE, 1.0), (NINE + 1, 2.0), (NINE + 3, 1.0)]


def test_numbers_texts_and_keys_keep_every_bit(open_one: Callable[[Views], OnlineStore]) -> None:
    store = open_one(SHOP)
    values: list[Any] = [0.1 + 0.2, 5e-324, 1.7976931348623157e308, -0.0, 1 / 3, 7, True, False, None, "", 'ä\x00"\\/']
    keys = [f'ke/y "{n}" ü[]' for n in range(len(values))]
    write(store, -1, 0, [("shop", key, 0, [value, "m"]) for key, value in zip(keys, values, strict=True)], 1)
    found = [row.values[0] for [row] in store.read([Span("shop", (key,), 0, 0) for key in keys])]
    assert [(type(value), str(value)) for value in found] == [(type(value), str(value)) for value in values]


def test_progress_keeps_a_replays_clock(open_one: Callable[[Views], OnlineStore]) -> None:
    store = open_one(SHOP)
    for progress in (Progress(NINE, 1, Clock(1, 2, 0.5)), Progress(NINE + 1, 2, None)):
        store.write([], progress, keep=DAY)
        assert store.progress() == progress


def test_views_of_another_model_have_their_own_rows(open_one: Callable[[Views], OnlineStore]) -> None:
    write(open_one(SHOP), 0, DAY, [("shop", "north", NINE, [1.0, None])], 1)
    other = open_one(SHOP.model_copy(update={"horizon": 2 * HOUR}))
    assert other.progress() is None
    assert north(other) == []
    write(other, 0, DAY, [], 1)
    assert north(open_one(SHOP)) == [(NINE, 1.0)]


def items() -> list[tuple[str, str]]:
    """Entity and rows of each item, from moto's memory: its scans are slow."""
    [backend] = [backends["us-east-1"] for backends in dynamodb_backends.values() if backends["us-east-1"].tables]
    return [
        (item.hash_key.value, item.attrs["rows"].value)
        for partition in backend.tables["features"].items.values()
        for item in partition.values()
        if "rows" in item.attrs
    ]


def contents(store: OnlineStore, path: Path) -> set[tuple[str, str, int, str]]:
    """All rows, as the file has them."""
    if isinstance(store, SqliteStore):
        with closing(sqlite3.connect(path)) as connection:
            return set(connection.execute("SELECT * FROM feature_rows").fetchall())
    found = set()
    for entity, rows in items():
        name, _, keys = entity.partition("/[")
        if keys:
            for at, values in msgspec.json.decode(rows):
                found.add((name, f"[{keys}", at, msgspec.json.encode(values).decode()))
    return found


class KilledError(BaseException):
    """Ends a write as a signal would."""


def killed(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """The next write ends before so many of its calls that write items."""
    put, calls = Table.put, [0]

    def call(table: Table, items: Any) -> None:
        calls[0] += 1
        if calls[0] > after:
            monkeypatch.setattr(Table, "put", put)
            raise KilledError
        put(table, items)

    monkeypatch.setattr(Table, "put", call)


@pytest.mark.slow
def test_materialising_gives_the_rows_that_a_file_has(
    events: Events, table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hours of a storm in steps, by several processes, of which one is killed while it writes."""
    file = SqliteStore(tmp_path / "features.db", FLIGHTS, write=True)
    begin, far = NOON - 6 * HOUR, 1000 * DAY
    steps = [NOON, NOON + 3 * HOUR, NOON + 3 * HOUR + 7 * MINUTE, NOON + 5 * HOUR, NOON + 8 * HOUR]
    for store in (file, made(FLIGHTS)):
        materializer = Materializer(store, HORIZON, far)
        for now in steps[:3]:
            materializer.advance(events, now, begin=begin)
    assert contents(made(), tmp_path) == contents(file, tmp_path / "features.db")
    killed(monkeypatch, after=40)
    with pytest.raises(KilledError):
        Materializer(made(FLIGHTS), HORIZON, far).advance(events, steps[3])
    assert (before := made(FLIGHTS).progress()) is not None
    assert before.watermark == steps[2]
    assert contents(made(), tmp_path) != contents(file, tmp_path / "features.db")
    release(table, FLIGHTS)
    for store in (file, made(FLIGHTS)):
        materializer = Materializer(store, HORIZON, far)
        for now in steps[3:]:
            materializer.advance(events, now)
    found = contents(made(), tmp_path)
    assert found == contents(file, tmp_path / "features.db")
    print(len(found), "rows; bytes of the largest items:", largest())


def largest() -> dict[str, int]:
    """By view, the bytes of the largest item's rows."""
    found: dict[str, int] = {}
    for entity, rows in items():
        _, view, *keys = entity.split("/", 2)
        name = view if keys else f"{view} (list)"
        found[name] = max(found.get(name, 0), len(rows.encode()))
    return found


def release(table: str, views: Views) -> None:
    """End the claim of a killed writer, as time does."""
    boto3.client("dynamodb").update_item(
        TableName=table,
        Key={"entity": {"S": views.fingerprint}, "bucket": {"N": "0"}},
        UpdateExpression="SET #until = :past",
        ExpressionAttributeNames={"#until": "until"},
        ExpressionAttributeValues={":past": {"N": "1"}},
    )


def test_a_killed_writer_keeps_others_out_until_its_claim_ends(table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write(made(), 0, DAY, [("shop", "north", NINE, [1.0, None])], 1)
    killed(monkeypatch, after=2)
    again = [("shop", f"s{n}", NINE + n, [2.0, None]) for n in range(60)]
    with pytest.raises(KilledError):
        write(made(), 0, DAY, again, 2)
    with pytest.raises(StoreError, match=r"another materialiser writes to it, or has written.*wait for 60 seconds"):
        write(made(), 0, DAY, again, 2)
    release(table, SHOP)
    write(made(), 0, DAY, again[50:], 2)  # what the killed writer left is found, and replaced
    name = f"{SHOP.fingerprint}/shop"
    assert contents(made(), Path()) == {(name, f'["s{n}"]', NINE + n, "[2.0,null]") for n in range(50, 60)}


def test_of_two_writers_the_second_loses(table: str) -> None:
    first, second = made(), made()
    write(first, 0, DAY, [("shop", "north", NINE, [1.0, None])], 1)
    with pytest.raises(StoreError, match="run only one"):
        write(second, 0, DAY, [], 1)
    write(second, 0, DAY, [("shop", "north", NINE, [2.0, None])], 2)
    with pytest.raises(StoreError, match="run only one"):
        write(first, 0, DAY, [], 2)
    assert north(first) == [(NINE, 2.0)]


def test_a_writer_that_loses_goes_on_from_what_the_other_wrote(table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(materializing, "CLAIMED_PAUSE", 0.01)
    one, other = (Writer(made()) for _ in range(2))
    said: list[str] = []
    log = Mock(warning=lambda text, *rest: said.append(text % rest))
    for now in (DAY, DAY + 1, DAY + 2):
        for writer in (one, other):
            progress = when_free(partial(writer.write, [], now), writer.reload, Event(), log)
            assert progress is not None
            assert progress.watermark == now
    assert Writer(made()).progress == other.progress
    assert other.progress is not None
    assert other.progress.revision == 6
    # Once for each write that found another.
    assert len(said) == 5
    stopped = Event()
    stopped.set()
    assert when_free(partial(one.write, [], DAY + 3), one.reload, stopped, log) is None


def test_a_writer_whose_claim_was_taken_over_ends(table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was suspended while it wrote, say."""
    first, put = made(), Table.put

    def overtaken(self: Table, items: Any) -> None:
        put(self, items)
        monkeypatch.setattr(Table, "put", put)
        release(table, SHOP)
        write(made(), 0, DAY, [("shop", "north", NINE, [2.0, None])], 1)

    monkeypatch.setattr(Table, "put", overtaken)
    with pytest.raises(StoreError, match="run only one"):
        write(first, 0, DAY, [("shop", "north", NINE + 1, [1.0, None])], 1)
    assert made().progress() == Progress(DAY, 1, None)


def test_a_writer_whose_last_answer_was_lost_writes_again(table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store, call = made(), Table.call

    def lost(self: Table, operation: str, **arguments: Any) -> Any:
        answer = call(self, operation, **arguments)
        if operation == "update_item" and "#watermark" in arguments["UpdateExpression"]:
            monkeypatch.setattr(Table, "call", call)
            raise StoreError("lost")
        return answer

    monkeypatch.setattr(Table, "call", lost)
    with pytest.raises(StoreError, match="lost"):
        write(store, 0, DAY, [("shop", "north", NINE, [1.0, None])], 1)
    write(store, 0, DAY + 1, [("shop", "north", NINE, [2.0, None])], 1)
    assert store.progress() == Progress(DAY + 1, 1, None)
    assert north(store) == [(NINE, 2.0)]


def test_items_expire_when_nobody_can_ask_for_them(table: str) -> None:
    store, now = made(), 1_700_000_000 * SECOND
    batch = Batch("shop", now - 1, now, [(("north",), Row(now, [1.0, None]))])
    person = Batch("person", -1, now, [(("Ann",), Row(0, [1.0]))])

    store.write([person], Progress(now, 1, None), keep=DAY)
    end = (now // (2 * HOUR) + 2) * 2 * HOUR + DAY
    store.write([batch], Progress(now, 2, None), keep=DAY)
    items = boto3.client("dynamodb").scan(TableName=table)["Items"]
    found = [int(item["expires"]["N"]) for item in items if "expires" in item]
    assert found == [end // SECOND] * 2  # rows and list; what is always true stays
    half = Clock(simulated=now, real=now + 1000 * DAY, speed=2.0)
    store.write([batch._replace(rows=[(("south",), Row(now, [1.0, None]))])], Progress(now, 3, half), keep=DAY)
    items = boto3.client("dynamodb").scan(TableName=table)["Items"]
    found = [int(item["expires"]["N"]) for item in items if "expires" in item and "south" in item["rows"]["S"]]
    assert found == [(now + 1000 * DAY + (end - now) // 2) // SECOND]


def test_a_bucket_that_is_too_large_for_an_item_is_refused(table: str) -> None:
    store = made()
    rows = [("shop", "north", at, [1.0, "x" * 500]) for at in range(1000)]
    with pytest.raises(StoreError, match=r"'.*/shop/\[\"north\"\]' would have 5\d\d,\d+ bytes.*a shorter ttl"):
        write(store, -1, DAY, rows, 1)
    with pytest.raises(StoreError, match=r"more than 2048 bytes"):
        write(store, -1, DAY, [("shop", "n" * 2048, 0, [1.0, None])], 1)


def test_keys_that_are_too_long_or_strange_have_no_rows(table: str) -> None:
    asked = [Span("shop", (key,), 0, DAY) for key in ("n" * 3000, "ä" * 1500, "\x00", "/", "\u2028")]
    assert made().read(asked) == [[]] * 5


def test_many_items_are_read_in_as_few_calls_as_possible(table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [f"s{n}" for n in range(120)]
    store = made()
    write(store, -1, DAY, [("shop", key, NINE, [1.0, None]) for key in keys], 1)
    sizes: list[int] = []
    call = Table.call

    def counted(self: Table, operation: str, **arguments: Any) -> Any:
        sizes.append(len(arguments["RequestItems"]["features"]["Keys"]))
        return call(self, operation, **arguments)

    monkeypatch.setattr(Table, "call", counted)
    found = store.read([Span("shop", (key,), NINE - 2 * HOUR + 1, NINE) for key in keys])
    assert found == [[Row(NINE, [1.0, None])]] * 120
    assert sizes == [100, 100, 40]


def test_what_dynamodb_leaves_undone_is_asked_for_again(table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does one item of a call at a time."""
    call = Table.call

    def lazy(self: Table, operation: str, **arguments: Any) -> Any:
        if operation == "batch_write_item":
            first, *others = arguments["RequestItems"][self.name]
            call(self, operation, RequestItems={self.name: [first]})
            return {"UnprocessedItems": {self.name: others} if others else {}}
        if operation == "batch_get_item":
            asked = arguments["RequestItems"][self.name]
            first, *others = asked["Keys"]
            answer = call(self, operation, RequestItems={self.name: asked | {"Keys": [first]}})
            return answer | {"UnprocessedKeys": {self.name: asked | {"Keys": others}} if others else {}}
        return call(self, operation, **arguments)

    monkeypatch.setattr(Table, "call", lazy)
    store = DynamoStore("features", SHOP, write=True, patience=CALM._replace(whole=30))
    keys = ("a", "b", "c")
    write(store, -1, DAY, [("shop", key, 0, [1.0, None]) for key in keys], 1)
    assert store.read([Span("shop", (key,), 0, 0) for key in keys]) == [[Row(0, [1.0, None])]] * 3


class Answers:
    """A DynamoDB that answers as a test decides."""

    def __init__(self) -> None:
        self.status = 200
        self.body: Any = {}
        self.answered = threading.Event()  # not set: it waits
        self.answered.set()
        self.progress: dict[str, Any] | None = None


@pytest.fixture
def answers(moto: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Answers]:
    given = Answers()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = self.headers["X-Amz-Target"]
            body: Any
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if given.progress is not None and asked.endswith(".GetItem"):
                status, body = 200, {"Item": given.progress}
            else:
                given.answered.wait(30)
                status, body = given.status, dict(given.body)
                if body.get("UnprocessedKeys") == "all":
                    body["UnprocessedKeys"] = request.get("RequestItems", {})
            content = json.dumps(body).encode()
            with suppress(OSError):  # the client may be gone
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", f"http://127.0.0.1:{server.server_port}")
        yield given
        given.answered.set()
        server.shutdown()
        thread.join()


def reason_of(store: DynamoStore) -> str:
    """The error of both reads, one line; a look-up answers in spite of it."""
    with pytest.raises(StoreError) as error:
        store.read([Span("shop", ("north",), 0, 0)])
    found = Lookup(SHOP, ("bought", "queue", "mood", "age"), store, deadline=0.1, real=lambda: NINE)
    with closing(found.memory):
        answer = found.find({"bought": "1970-01-01T10:00", "shop": "north"})
    assert (answer.values, answer.trouble) == ({}, "down")
    text = str(error.value)
    assert text.startswith("the feature store dynamodb://features can't be used (")
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        ("AccessDeniedException", "the service's role needs dynamodb:GetItem and dynamodb:BatchGetItem"),
        ("UnrecognizedClientException", "give this process a role"),
        ("ExpiredTokenException", "give this process a role"),
        ("ProvisionedThroughputExceededException", "give the table more capacity"),
        ("ThrottlingException", "give the table more capacity"),
        ("InternalServerError", "see what DynamoDB says"),
    ],
)
def test_refusals_are_a_line_with_a_remedy(answers: Answers, error: str, remedy: str) -> None:
    answers.status, answers.body = 400, {"__type": f"com.amazonaws.dynamodb.v20120810#{error}", "message": "Because."}
    text = reason_of(made())
    assert "Because." in text
    assert remedy in text


def test_keys_that_stay_undone_are_throttling(answers: Answers) -> None:
    answers.body = {"Responses": {}, "UnprocessedKeys": "all"}
    with pytest.raises(StoreError, match=r"DynamoDB is throttling.*more capacity"):
        made().read([Span("shop", ("north",), 0, 0)])


def test_a_slow_table_is_a_line_and_costs_a_request_its_deadline(
    answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers.progress = {"revision": {"N": "1"}, "watermark": {"N": str(NINE)}}
    answers.answered.clear()
    quick = DynamoStore("features", SHOP, patience=CALM._replace(read=0.05))
    with pytest.raises(StoreError, match=r"Read timeout.*answers too slowly"):
        quick.read([Span("shop", ("north",), 0, 0)])
    asked = {"bought": "1970-01-01T10:00", "shop": "north"}
    found = Lookup(SHOP, ("bought", "queue", "mood", "age"), made(), deadline=0.005, real=lambda: NINE)
    with closing(found.memory):
        assert (found.find(asked).values, found.find(asked).trouble) == ({}, "slow")
        row = {"entity": {"S": f'{SHOP.fingerprint}/shop/["north"]'}, "bucket": {"N": "4"}}
        row |= {"rows": {"S": f"[[{NINE - HOUR},[7.0,null]]]"}}
        answers.body = {"Responses": {"features": [row]}}
        answers.answered.set()
        # What came late is there for the next request.
        eventually(lambda: found.find(asked).values, pause=0.01)


def test_a_missing_table_and_one_with_other_keys(moto: str) -> None:
    assert "create the table with partition key `entity` (S), sort key `bucket` (N)" in reason_of(made())
    create(hash_key="id")
    assert "the table must have partition key `entity`" in reason_of(made())


def test_without_credentials_until_there_are_some(table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = made()
    with monkeypatch.context() as without:
        without.delenv("AWS_ACCESS_KEY_ID")
        without.delenv("AWS_SECRET_ACCESS_KEY")
        assert "Unable to locate credentials): give this process a role" in reason_of(store)
    assert store.progress() is None


def test_without_a_region_or_a_listener(table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    assert "add ?region=REGION" in reason_of(made())
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", f"http://127.0.0.1:{unused.getsockname()[1]}")
        store = DynamoStore("features", SHOP, region="eu-west-1", patience=CALM)
        assert "is there a way to it from here" in reason_of(store)


def test_items_of_something_else(table: str) -> None:
    store = made()
    key = {"entity": {"S": f'{SHOP.fingerprint}/shop/["north"]'}, "bucket": {"N": "0"}}
    for rows in ({}, {"rows": {"S": "no JSON"}}):
        boto3.client("dynamodb").put_item(TableName=table, Item=key | rows)
        with pytest.raises(StoreError, match="does something else write to it"):
            store.read([Span("shop", ("north",), 0, 0)])


@pytest.mark.parametrize(
    ("address", "table", "region"),
    [
        ("dynamodb://Atlas_features.dev-1", "Atlas_features.dev-1", None),
        ("dynamodb://features?region=us-west-2", "features", "us-west-2"),
    ],
)
def test_addresses_of_tables(address: str, table: str, region: str | None) -> None:
    store = open_store(address, SHOP)
    assert isinstance(store, DynamoStore)
    assert (store._table.name, store._table._region) == (table, region)


@pytest.mark.parametrize(
    "address", ["dynamodb://", "dynamodb://ab", "dynamodb://features/x", "dynamodb://features?zone=1", "redis://host"]
)
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(StoreError, match="is no feature store: give a file, dynamodb://TABLE or"):
        open_store(address, SHOP)
    with pytest.raises(SettingsError, match=r"FEATURE_STORE.*a feature store is a file, dynamodb://TABLE or"):
        load_settings({"FEATURE_STORE": address})


def test_a_file_needs_no_sdk(tmp_path: Path) -> None:
    code = "import sys; from ml.features.stores import open_store; import service.app; print('botocore' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
