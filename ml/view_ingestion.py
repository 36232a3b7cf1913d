"""Stage 0, once for each view of `data.views`: read its file, and check its keys and times.

python -m ml.view_ingestion NAME
"""

import sys

from ml.files import VIEW_ROWS
from ml.logs import stage_logger
from ml.params import ParamsError, load_params
from ml.sources.reading import SourceError
from ml.sources.view_files import read_rows
from ml.tables import write_parquet


def main(names: list[str] | None = None) -> int:
    """Write the rows of these views; of all views without a name."""
    log = stage_logger("view_ingestion")
    try:
        params = load_params(check_estimators=False)
        for name in names or params.data.views:
            if name not in params.data.views:
                raise ParamsError(f"params.yaml: data.views has no view {name!r}, only {', '.join(params.data.views)}")
            found = read_rows(params.data, name)
            log.info("%s: %d rows from %s", name, len(found.table), params.data.views[name].uri)
            for sentence in found.assumed:
                log.warning("assumed: %s", sentence)
            write_parquet(found.table, VIEW_ROWS / f"{name}.parquet")
    except (ParamsError, SourceError, FileNotFoundError) as error:
        print(f"view_ingestion: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
