"""Stage 3: learn the encoding from training rows, and encode all rows."""

import sys

import numpy as np

from ml.encoding import NumericEncoder
from ml.encoding_fitting import fit_encoding
from ml.files import ENCODING, FEATURES, SCHEMA
from ml.logs import stage_logger
from ml.params import ParamsError, load_params
from ml.precision import keeps_apart, merged
from ml.rows import PARTS, read_rows
from ml.schema import Columns, Schema, SchemaError


def _said(encoder: NumericEncoder, columns: Columns) -> str:
    """What becomes of numbers that float32, in which models compute, would merge; empty for other columns."""
    numbers = np.asarray(columns[encoder.column], dtype=np.float64)
    ordered = np.sort(numbers[~np.isnan(numbers)])
    kept = keeps_apart(encoder, ordered)
    lost = "" if kept else f"; {merged(encoder, ordered)} different numbers still count as equal"
    if encoder.knots:
        return f"large numbers with small differences: the model gets their place among quantiles{lost}"
    if encoder != NumericEncoder(column=encoder.column):
        return f"large numbers with small differences: the model gets the difference from {encoder.shift:.17g}{lost}"
    return ""


def main() -> int:
    log = stage_logger("feature_engineering")
    try:
        params = load_params()
        schema = Schema.model_validate_json(SCHEMA.read_bytes())
        rows = {part: read_rows(part, schema, params) for part in PARTS}
        fitted = fit_encoding(rows["train"], schema, params)
    except (ParamsError, SchemaError, FileNotFoundError) as error:
        print(f"feature_engineering: {error}", file=sys.stderr)
        return 1
    FEATURES.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        matrix = fitted.matrix if part == "train" else fitted.encoding.transform(rows[part].columns)
        np.savez(FEATURES / f"{part}.npz", matrix=matrix, target=rows[part].target)
        log.info("%s: %d rows, %d columns", part, *matrix.shape)
    for encoder in fitted.encoding.encoders:
        if isinstance(encoder, NumericEncoder) and (said := _said(encoder, rows["train"].columns)):
            log.warning("column %s: %s", encoder.column, said)
    ENCODING.write_text(fitted.encoding.model_dump_json() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
