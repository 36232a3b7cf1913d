"""The online store in a table of DynamoDB.

An item holds the rows of an entity in a bucket of time as long as the view's ttl, so that a look-up reads at most two
items of a view: the bucket of the moment, and the bucket before. Items of three kinds have the partition key `entity`
and the sort key `bucket`:

    FINGERPRINT                     0       how far the materialiser has come, and who writes
    FINGERPRINT/VIEW                bucket  the entities with rows in the bucket, so that the writer finds them
    FINGERPRINT/VIEW/["key", ...]   bucket  rows, as a JSON array of [event timestamp, values]

`expires` is for DynamoDB's time to live, which deletes what nobody can ask for any more.

There is one writer. A write claims the item of the progress, changes the other items, and then the progress, whose
revision must be the one that this writer knows. If a write ends early, readers may see a part of its rows: those are
true, too, and the next write writes them again, with the same result.
"""

import json
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from ml.features.dynamodb_table import (
    LARGEST_ITEM,
    LONGEST_ENTITY,
    MOST_WRITTEN,
    Item,
    Key,
    Patience,
    RefusedError,
    Table,
    size_of,
)
from ml.features.store import Batch, ClaimedError, Clock, Progress, Row, Span, as_json
from ml.features.views import SECOND, Value, Views

READING = Patience(connect=0.05, read=0.05, attempts=1, whole=0.1)
"""The service's: what comes after its deadline is too late for the request, but a slow call must not hold a thread."""
WRITING = Patience(connect=5.0, read=10.0, attempts=5, whole=60.0)
LEASE = 60.0
"""Seconds for which a writer claims the table; a killed writer's claim ends then."""

_REVISION = (
    "#revision = :old OR (#revision = :new AND #writer = :writer) OR (attribute_not_exists(#revision) AND :new = :one)"
)
"""The progress is what this writer knows; or it is already what it writes, and the answer was lost."""

_Rows = dict[int, Sequence[Value]]
_Given = list[tuple[tuple[Value, ...], Row]]


class DynamoStore:
    """An online store in DynamoDB. Safe to read from several threads; open it in the process that uses it."""

    round_trip = 0.02
    """DynamoDB answers a batch within some 10 milliseconds, nearly always."""

    def __init__(
        self,
        table: str,
        views: Views,
        *,
        region: str | None = None,
        write: bool = False,
        patience: Patience | None = None,
    ) -> None:
        """Without a region, it is the environment's. `write`: wait longer. Nothing is called yet."""
        self._write = write
        self._table = Table(table, region, patience or (WRITING if write else READING))
        self._fingerprint = views.fingerprint
        self._ttl = {view.name: view.ttl for view in views.views}
        self._id, self._claimed = uuid.uuid4().hex, 0.0
        # What this writer has read or written: nobody else writes as long as the progress has its revision.
        self._known: dict[Key, str | None] = {}

    def progress(self) -> Progress | None:
        """As OnlineStore.progress.

        The service's read needn't be consistent, at half the price: it polls, and as the rows' reads are consistent,
        they are never older than the progress.
        """
        item = self._table.one(self._progress_key, consistent=self._write)
        if item is None or "revision" not in item:  # the first write hasn't ended yet
            return None
        try:
            clock = Clock(*json.loads(item["clock"]["S"])) if "clock" in item else None
            return Progress(int(item["watermark"]["N"]), int(item["revision"]["N"]), clock)
        except (KeyError, TypeError, ValueError) as error:
            why = f"its progress has another form: {error!r}"
            raise self._table.failed(why, "does something else write to it?") from None

    def read(self, asked: Sequence[Span]) -> list[list[Row]]:
        """As OnlineStore.read, in one call for up to 100 items."""
        wanted = [self._keys(span) for span in asked]
        found = self._table.get(list(dict.fromkeys(key for keys in wanted for key in keys)))
        return [
            [
                Row(timestamp, values)
                for key in keys
                for timestamp, values in self._decoded(found.get(key))
                if span.since <= timestamp <= span.until
            ]
            for span, keys in zip(asked, wanted, strict=True)
        ]

    def write(self, batches: Sequence[Batch], progress: Progress, keep: int) -> None:
        """As OnlineStore.write; what has expired is left to DynamoDB's time to live."""
        given = [(batch, list(batch.rows)) for batch in batches]
        try:
            self._claim(progress)
            known, self._known = self._known, {}  # it counts as unknown until the write has ended
            lists, items = self._changed(given, known)
            for changes in (lists, items):  # an entity with rows is always in its list
                self._put({key: text for key, text in changes.items() if text != known.get(key)}, progress, keep)
            self._end(progress)
            self._known = {**lists, **items}
        except RefusedError:
            refused = self._table.failed(
                "another materialiser writes to it, or has written",
                f"run only one; after one was killed, wait for {LEASE:.0f} seconds",
            )
            raise ClaimedError(refused) from None

    def _changed(
        self, batches: Sequence[tuple[Batch, _Given]], known: dict[Key, str | None]
    ) -> tuple[dict[Key, str | None], dict[Key, str | None]]:
        """The lists and the items that batches touch, as they shall be; `known` then has what they were."""
        lists: dict[Key, set[str]] = {}
        items: dict[Key, _Rows] = {}
        for batch, given in batches:
            name = self._name(batch.view)
            here = [Key(name, bucket) for bucket in self._buckets(batch.view, batch.since + 1, batch.until)]
            self._learn(here, known)
            for key in here:
                lists.setdefault(key, set(self._decoded(known[key])))
            touched = [Key(f"{name}/{entity}", key.bucket) for key in here for entity in lists[key]]
            self._learn([key for key in touched if key not in items], known)
            for key in touched:
                rows = items[key] if key in items else dict(self._decoded(known[key]))
                items[key] = {at: row for at, row in rows.items() if not batch.since < at <= batch.until}
            for keys, row in given:
                entity, [bucket] = as_json(keys), self._buckets(batch.view, row.timestamp, row.timestamp)
                lists.setdefault(Key(name, bucket), set()).add(entity)
                key = Key(f"{name}/{entity}", bucket)
                known.setdefault(key, None)  # it wasn't in the list
                items.setdefault(key, {})[row.timestamp] = row.values
        return (
            {key: as_json(sorted(entities)) if entities else None for key, entities in lists.items()},
            {key: as_json(sorted(rows.items())) if rows else None for key, rows in items.items()},
        )

    def _learn(self, keys: Iterable[Key], known: dict[Key, str | None]) -> None:
        """Read what isn't known yet."""
        unknown = [key for key in keys if key not in known]
        found = self._table.get(unknown)
        known.update({key: found.get(key) for key in unknown})

    def _put(self, changes: Mapping[Key, str | None], progress: Progress, keep: int) -> None:
        items = {
            key: None if text is None else Item(text, self._expires(key, progress, keep))
            for key, text in changes.items()
        }
        for key, item in items.items():
            if len(key.entity.encode()) > LONGEST_ENTITY:
                raise self._table.failed(
                    f"the key {key.entity[:80]!r}… has more than {LONGEST_ENTITY} bytes", "shorten it"
                )
            if item is not None and (size := size_of(key, item)) > LARGEST_ITEM:
                why = f"{key.entity!r} would have {size:,} bytes in a bucket, more than an item's {LARGEST_ITEM:,}"
                raise self._table.failed(why, "give the view a shorter ttl, or fewer rows")
        keys = list(items)
        for first in range(0, len(keys), MOST_WRITTEN):
            if time.monotonic() - self._claimed > LEASE / 3:
                self._claim(progress)
            self._table.put({key: items[key] for key in keys[first : first + MOST_WRITTEN]})

    def _claim(self, progress: Progress) -> None:
        """Become the writer, or remain it.

        Raises RefusedError if there is another, or the progress isn't what this writer knows.
        """
        now = time.time()
        self._table.update(
            self._progress_key,
            "SET #writer = :writer, #until = :until",
            f"({_REVISION}) AND (attribute_not_exists(#until) OR #until < :now OR #writer = :writer)",
            self._revisions(progress) | {":until": _number(int(now + LEASE)), ":now": _number(int(now))},
        )
        self._claimed = time.monotonic()

    def _end(self, progress: Progress) -> None:
        """Write the progress, and give up the claim."""
        clock = {":clock": {"S": json.dumps(progress.clock)}} if progress.clock else {}
        self._table.update(
            self._progress_key,
            "SET #revision = :new, #watermark = :watermark"
            + (", #clock = :clock REMOVE #until" if clock else " REMOVE #until, #clock"),
            f"({_REVISION}) AND #writer = :writer",
            self._revisions(progress) | {":watermark": _number(progress.watermark)} | clock,
        )

    def _revisions(self, progress: Progress) -> dict[str, Any]:
        return {
            ":old": _number(progress.revision - 1),
            ":new": _number(progress.revision),
            ":one": _number(1),
            ":writer": {"S": self._id},
        }

    def _expires(self, key: Key, progress: Progress, keep: int) -> int | None:
        """By the wall clock, in seconds since 1970, when nobody asks for an item any more; None: never."""
        ttl = self._ttl[key.entity.split("/")[1]]
        if ttl is None:
            return None
        end, clock = (key.bucket + 2) * ttl + keep, progress.clock
        if clock is None:
            return end // SECOND
        return int(clock.real + (end - clock.simulated) / clock.speed) // SECOND if clock.speed else None

    @property
    def _progress_key(self) -> Key:
        return Key(self._fingerprint, 0)

    def _name(self, view: str) -> str:
        return f"{self._fingerprint}/{view}"

    def _buckets(self, view: str, since: int, until: int) -> range:
        """The buckets of these times."""
        ttl = self._ttl[view]
        return range(1) if ttl is None else range(since // ttl, until // ttl + 1)

    def _keys(self, span: Span) -> list[Key]:
        """The items with a span's rows; none if its entity can't have any, because callers can invent keys."""
        entity = f"{self._name(span.view)}/{as_json(span.keys)}"
        if len(entity.encode()) > LONGEST_ENTITY:
            return []
        return [Key(entity, bucket) for bucket in self._buckets(span.view, span.since, span.until)]

    def _decoded(self, text: str | None) -> Any:
        """An item's rows, or a list's entities; nothing if the item doesn't exist."""
        try:
            return [] if text is None else msgspec.json.decode(text)
        except msgspec.DecodeError as error:
            raise self._table.failed(f"an item has another form: {error}", "does something else write to it?") from None


def _number(value: int) -> dict[str, str]:
    return {"N": str(value)}
