"""The paths of the stages' files, as in dvc.yaml."""

from pathlib import Path

TABLE = Path("data/raw/table.parquet")
VIEW_ROWS = Path("data/views")
"""The folder with the rows of each declared view, as NAME.parquet."""
SET_ASIDE = Path("data/raw/set_aside.parquet")
CONTRACT_REPORT = Path("reports/data_contract.json")
DATA_WARNINGS = Path("reports/data_warnings.json")

PROCESSED = Path("data/processed")
SCHEMA = PROCESSED / "schema.json"
SUMMARY = PROCESSED / "summary.json"

FEATURES = Path("data/features")
ENCODING = FEATURES / "encoding.json"

TRAINED = Path("models/trained")

CANDIDATE = Path("models/candidate")
METRICS_FILE = Path("reports/metrics.json")
PLOTS = Path("reports/plots")

BUNDLE = Path("models/bundle")
GATE_REPORT = Path("reports/gate.json")
