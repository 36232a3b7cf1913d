"""Stage 1: load the raw table and check it against the data contract."""

import sys
from datetime import UTC, datetime

import pandas as pd

from ml.contract import Checked, ContractError, check, check_names
from ml.files import CONTRACT_REPORT, SET_ASIDE, TABLE, VIEW_ROWS
from ml.logs import stage_logger
from ml.params import Params, ParamsError, load_params
from ml.schema import SchemaError
from ml.sources import flights, table, view_files
from ml.sources.reading import Read, SourceError
from ml.tables import read_parquet, write_parquet


def read_source(params: Params) -> Read:
    """The raw table that params.yaml names, with the features of its views.

    Raises SourceError or FileNotFoundError when it can't be read.
    """
    if params.data.source == "flights" and params.data.horizon is not None:
        return Read(flights.read(pd.Timedelta(params.data.horizon)))
    found = table.read(params.data)
    rows = {name: read_parquet(VIEW_ROWS / f"{name}.parquet") for name in params.data.views}
    return Read(view_files.joined(found.table, params.data, rows), found.assumed)


def write(checked: Checked) -> None:
    """Write the kept rows, the rows that were set aside, and the report."""
    write_parquet(checked.kept, TABLE)
    write_parquet(checked.set_aside, SET_ASIDE)
    CONTRACT_REPORT.parent.mkdir(parents=True, exist_ok=True)
    CONTRACT_REPORT.write_text(checked.report.model_dump_json(indent=1) + "\n")


def main() -> int:
    log = stage_logger("data_ingestion")
    try:
        params = load_params()
        found = read_source(params)
        raw = found.table
        log.info("%d rows, %d columns from %s", len(raw), len(raw.columns), params.data.source)
        for sentence in found.assumed:
            log.warning("assumed: %s", sentence)
        check_names(list(raw.columns), params.data)
        now = datetime.now(UTC).replace(tzinfo=None)
        checked = check(raw, params.contract, params.data.id, params.data.time, now, found.assumed, params.data)
    except (ParamsError, ContractError, SchemaError, SourceError, FileNotFoundError) as error:
        print(f"data_ingestion: {error}", file=sys.stderr)
        return 1
    for breach in checked.report.breaches:
        log.warning("%s: %s: %d rows set aside (%s)", breach.column, breach.rule, breach.rows, CONTRACT_REPORT)
    write(checked)
    log.info("%d rows kept, %d set aside", len(checked.kept), len(checked.set_aside))
    return 0


if __name__ == "__main__":
    sys.exit(main())
