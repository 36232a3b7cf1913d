"""Opens the online store at an address: a file, or a table in DynamoDB."""

import re
from pathlib import Path
from urllib.parse import parse_qsl

from ml.features.dynamodb import DynamoStore
from ml.features.store import OnlineStore, SqliteStore, StoreError
from ml.features.views import Views

ADDRESSES = "a file, dynamodb://TABLE or dynamodb://TABLE?region=REGION"
_DYNAMODB = re.compile(r"dynamodb://(?P<table>[A-Za-z0-9_.-]{3,255})(\?(?P<query>region=[a-z0-9-]+))?")


def is_address(text: str) -> bool:
    """Whether an online store can be at this address."""
    return "://" not in text or _DYNAMODB.fullmatch(text) is not None


def open_store(address: str, views: Views, *, write: bool = False) -> OnlineStore:
    """The online store at a file's path or `dynamodb://TABLE?region=REGION`; without a region, it is the environment's.

    Raises StoreError when it isn't an address, or a file that is to be written, and can't be.
    """
    if not is_address(address):
        raise StoreError(f"{address!r} is no feature store: give {ADDRESSES}")
    if (found := _DYNAMODB.fullmatch(address)) is None:
        return SqliteStore(Path(address), views, write=write)
    region = dict(parse_qsl(found["query"] or "")).get("region")
    return DynamoStore(found["table"], views, region=region, write=write)
