"""`mlflow server` with the same options; first it creates the complete SQLite database."""

import argparse
import sys

from ml.store import StoreError, database_of, prepare


def main() -> int:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--backend-store-uri", required=True)
    options, _ = parser.parse_known_args()
    database = database_of(options.backend_store_uri)
    try:
        if database is not None:
            prepare(database)
    except StoreError as error:
        print(f"mlflow: {error}", file=sys.stderr)
        return 1
    from mlflow.cli import cli

    cli(["server", *sys.argv[1:]], prog_name="mlflow")
    return 0


if __name__ == "__main__":
    sys.exit(main())
