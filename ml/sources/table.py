"""Reads any table from its address: a file, s3:// or https://; CSV or Parquet."""

from pathlib import PurePosixPath

import pandas as pd

from ml.params import DataParams


class SourceError(Exception):
    """A table that can't be read; the message names its address and the remedy."""


def read(params: DataParams) -> pd.DataFrame:
    """The table at `params.uri`, with the types of the file; times in CSV files stay text until preprocessing.

    Raises SourceError when it can't be read.
    """
    uri = params.uri
    ending = "".join(PurePosixPath(uri.split("?", 1)[0]).suffixes[-2:]).lower()
    kind = params.format or (
        "parquet" if ".parquet" in ending or ".pq" in ending else "csv" if ".csv" in ending else None
    )
    if kind is None:
        raise SourceError(f"{uri}: the format is unknown; set data.format in params.yaml to csv or parquet")
    try:
        table = pd.read_parquet(uri) if kind == "parquet" else pd.read_csv(uri)
    except FileNotFoundError:
        raise SourceError(f"{uri} not found: check data.uri in params.yaml") from None
    except Exception as error:  # readers raise many kinds of errors: bad CSV, no credentials, no route to the host
        raise SourceError(
            f"{uri} can't be read as {kind}: {' '.join(str(error).split()) or type(error).__name__}"
        ) from error
    if not len(table.columns) or not len(table):
        raise SourceError(f"{uri} contains no rows")
    return table
