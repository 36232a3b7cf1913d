"""Reads and writes items of a table in DynamoDB; whatever goes wrong is one StoreError with cause and remedy."""

import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from ml.features.store import StoreError

LONGEST_ENTITY = 2048
"""Bytes of a partition key; DynamoDB's limit."""
LARGEST_ITEM = 400 * 1024
"""Bytes of an item with the names of its attributes; DynamoDB's limit."""
MOST_READ, MOST_WRITTEN = 100, 25
"""Items of a BatchGetItem and of a BatchWriteItem; DynamoDB's limits."""
BACKOFF = 0.01
"""Seconds before what DynamoDB left undone is asked for again; doubled each time, and random below that."""
LONGEST_WAIT = 1.0

KEYS = "partition key `entity` (S), sort key `bucket` (N)"
READER = "dynamodb:GetItem and dynamodb:BatchGetItem"
WRITER = "dynamodb:GetItem, dynamodb:BatchGetItem, dynamodb:UpdateItem and dynamodb:BatchWriteItem"
CAPACITY = "wait, or give the table more capacity (best: on demand)"
_CREDENTIALS = "give this process a role, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_WAY = "is there a way to it from here (a VPC endpoint, a NAT gateway)?"
_REMEDIES = {
    "ResourceNotFoundException": f"create the table with {KEYS}, or correct its name or region",
    "AccessDeniedException": f"the service's role needs {READER}, the materialiser's {WRITER}",
    "UnrecognizedClientException": _CREDENTIALS,
    "InvalidSignatureException": _CREDENTIALS,
    "ExpiredTokenException": _CREDENTIALS,
    "NoCredentialsError": _CREDENTIALS,
    "PartialCredentialsError": _CREDENTIALS,
    "ProvisionedThroughputExceededException": CAPACITY,
    "RequestLimitExceeded": CAPACITY,
    "ThrottlingException": CAPACITY,
    "ValidationException": f"the table must have {KEYS}",
    "NoRegionError": "add ?region=REGION to its address, or set AWS_DEFAULT_REGION",
    "ReadTimeoutError": "it answers too slowly; is it in this region?",
    "ConnectTimeoutError": _WAY,
    "EndpointConnectionError": _WAY,
}


class Key(NamedTuple):
    """An item's key."""

    entity: str
    bucket: int


class Item(NamedTuple):
    """What a key has; both are attributes of the item."""

    rows: str
    expires: int | None
    """When DynamoDB may delete the item, in seconds since 1970; None: never."""


class Patience(NamedTuple):
    """How long a caller waits."""

    connect: float
    read: float
    """Seconds for a connection, and for an answer."""
    attempts: int
    """Of a single call, by the SDK."""
    whole: float
    """Seconds in which what DynamoDB left undone is asked for again."""


class RefusedError(Exception):
    """The item doesn't meet the condition of an update."""


class Table:
    """A table with items of our form. Safe to call from several threads; open it in the process that uses it."""

    def __init__(self, name: str, region: str | None, patience: Patience) -> None:
        """Without a region, it is the environment's. Nothing is called yet."""
        self.name, self._region, self._patience = name, region, patience
        self._lock = threading.Lock()
        self._session: Any = None
        self._made: Any = None

    def get(self, keys: Sequence[Key]) -> dict[Key, str]:
        """The rows of those items that exist, by consistent reads: what was written before is in them."""
        found: dict[Key, str] = {}
        for first in range(0, len(keys), MOST_READ):
            request: Any = {
                self.name: {
                    "Keys": [_key(key) for key in keys[first : first + MOST_READ]],
                    "ProjectionExpression": "#entity, #bucket, #rows",  # `bucket` and `rows` are reserved words
                    "ExpressionAttributeNames": {"#entity": "entity", "#bucket": "bucket", "#rows": "rows"},
                    "ConsistentRead": True,
                }
            }
            self._until_done("batch_get_item", request, "UnprocessedKeys", found)
        return found

    def put(self, items: Mapping[Key, Item | None]) -> None:
        """Write up to MOST_WRITTEN items, in no order; None: delete it."""
        requests = [
            {"DeleteRequest": {"Key": _key(key)}}
            if item is None
            else {"PutRequest": {"Item": _key(key) | _attributes(item)}}
            for key, item in items.items()
        ]
        self._until_done("batch_write_item", {self.name: requests}, "UnprocessedItems", {})

    def one(self, key: Key, *, consistent: bool) -> dict[str, Any] | None:
        """All attributes of an item, in DynamoDB's notation; None if it doesn't exist."""
        return self.call("get_item", TableName=self.name, Key=_key(key), ConsistentRead=consistent).get("Item")

    def update(self, key: Key, expression: str, condition: str, values: Mapping[str, Any]) -> None:
        """Update an item's attributes, or create it, if the condition holds; else raise RefusedError."""
        names = {f"#{name}": name for name in ("revision", "watermark", "clock", "writer", "until")}
        text = expression + condition
        self.call(
            "update_item",
            TableName=self.name,
            Key=_key(key),
            UpdateExpression=expression,
            ConditionExpression=condition,
            ExpressionAttributeNames={mark: name for mark, name in names.items() if mark in text},
            ExpressionAttributeValues=dict(values),
        )

    def call(self, operation: str, **arguments: Any) -> Any:
        """One call of the SDK."""
        with self._said():
            return getattr(self._client(), operation)(**arguments)

    def failed(self, why: str, remedy: str) -> StoreError:
        """The error that says so."""
        return StoreError(f"the feature store dynamodb://{self.name} can't be used ({why}): {remedy}")

    def _until_done(self, operation: str, request: Any, undone: str, found: dict[Key, str]) -> None:
        """Call until nothing is left undone; what comes back goes into `found`."""
        end, wait = time.monotonic() + self._patience.whole, BACKOFF
        while request:
            answer = self.call(operation, RequestItems=request)
            for item in answer.get("Responses", {}).get(self.name, ()):
                try:
                    found[Key(item["entity"]["S"], int(item["bucket"]["N"]))] = item["rows"]["S"]
                except (KeyError, ValueError):
                    raise self.failed("an item of it has no rows", "does something else write to it?") from None
            request = answer.get(undone)
            if request:
                pause = random.uniform(0, wait)  # noqa: S311  # no secret
                if time.monotonic() + pause > end:
                    raise self.failed("DynamoDB is throttling", CAPACITY)
                time.sleep(pause)
                wait = min(2 * wait, LONGEST_WAIT)

    def _client(self) -> Any:
        """The SDK's client; made at the first call."""
        with self._lock:
            if self._made is None:
                from botocore.config import Config
                from botocore.session import Session

                self._session = self._session or Session()
                config = Config(
                    connect_timeout=self._patience.connect,
                    read_timeout=self._patience.read,
                    retries={"total_max_attempts": self._patience.attempts, "mode": "standard"},
                    tcp_keepalive=True,
                    parameter_validation=False,  # it takes longer than the rest of a call, and our tests do it
                    user_agent="atlas",  # the SDK puts its own together anew for each call, a tenth of a call's time
                )
                self._made = self._session.create_client("dynamodb", region_name=self._region, config=config)
            return self._made

    @contextmanager
    def _said(self) -> Iterator[None]:
        """Replace the SDK's errors; without credentials, the next call looks for them again."""
        try:
            from botocore.exceptions import BotoCoreError, ClientError
        except ImportError:
            raise self.failed("botocore isn't installed", "install requirements/service.txt") from None
        try:
            yield
        except ClientError as error:
            name = str(error.response.get("Error", {}).get("Code"))
            if name == "ConditionalCheckFailedException":
                raise RefusedError from None
            raise self._error(name, error) from None
        except BotoCoreError as error:
            raise self._error(type(error).__name__, error) from None

    def _error(self, name: str, error: Exception) -> StoreError:
        remedy = _REMEDIES.get(name, "see what DynamoDB says")
        if remedy is _CREDENTIALS:
            self._made = None
        return self.failed(str(error), remedy)


def _key(key: Key) -> dict[str, Any]:
    return {"entity": {"S": key.entity}, "bucket": {"N": str(key.bucket)}}


def _attributes(item: Item) -> dict[str, Any]:
    return {"rows": {"S": item.rows}} | ({} if item.expires is None else {"expires": {"N": str(item.expires)}})


def size_of(key: Key, item: Item) -> int:
    """Bytes of an item at most."""
    return len(key.entity.encode()) + len(item.rows.encode()) + 100  # names and numbers
