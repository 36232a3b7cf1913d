"""The default model beside LightGBM and CatBoost: same rows, same encoded features, test months, day-block intervals.

    .venv/bin/python tests/benchmarks/quality.py      # after `make repro`; writes reports/quality.md

The peers run with their defaults and, for LightGBM, also with settings tuned on the folds that ours were tuned on.
All are fitted on the training rows alone and judged on the test rows; differences are paired by day.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from catboost import CatBoostClassifier
from lightgbm import LGBMClassifier
from numpy.typing import NDArray

from ml.bundle import bundle_of, read_parts
from ml.card import Figure
from ml.evaluation import predict, without_live
from ml.files import CANDIDATE, FEATURES
from ml.metrics import block_weights, day_blocks, improvement, interval, values
from ml.params import load_params
from ml.rows import read_rows

REPORT = Path("reports/quality.md")
FIGURES = ("roc_auc", "pr_auc", "log_loss", "brier")
TUNED: dict[str, Any] = {
    "n_estimators": 400,
    "learning_rate": 0.04,
    "min_child_samples": 100,
    "reg_lambda": 10,
    "colsample_bytree": 0.5,
    "subsample": 0.8,
    "subsample_freq": 1,
}


def peers(seed: int) -> dict[str, Any]:
    """Unfitted peers."""
    return {
        "LightGBM, defaults": LGBMClassifier(verbose=-1, n_jobs=2, random_state=seed),
        "LightGBM, tuned": LGBMClassifier(verbose=-1, n_jobs=2, random_state=seed, **TUNED),
        "CatBoost, defaults": CatBoostClassifier(
            verbose=0, thread_count=2, random_seed=seed, allow_writing_files=False
        ),
    }


def spell(figure: Figure) -> str:
    return f"{figure.value:.4f} ({figure.low:.4f} to {figure.high:.4f})"


def main() -> None:
    params = load_params()
    _, parts = read_parts(CANDIDATE)
    bundle = bundle_of("", parts.evaluated or parts)
    schema = bundle.schema
    test = read_rows("test", schema, params)
    train = np.load(FEATURES / "train.npz")
    blocks = day_blocks(test.seconds, len(test), params.seed)
    weights = block_weights(int(blocks.max()) + 1, params.evaluation.replicates, params.seed)

    drawn: dict[str, dict[str, NDArray[np.float64]]] = {}

    def judge(name: str, scores: NDArray[np.float64]) -> None:
        labels = (scores[:, 1] >= 0.5).astype(float)
        drawn[name] = {metric: values(metric, test.target, scores, labels, blocks, weights) for metric in FIGURES}

    judge("Atlas", predict(bundle, test.columns)[0])
    blind = without_live(test.columns, schema)
    judge("Atlas, live inputs missing", predict(bundle, blind)[0])
    matrix, blind_matrix = bundle.parts.encoding.transform(test.columns), bundle.parts.encoding.transform(blind)
    for name, peer in peers(params.seed).items():
        print(f"fitting {name}", file=sys.stderr, flush=True)
        peer.fit(train["matrix"], train["target"])
        judge(name, np.asarray(peer.predict_proba(matrix)))
        judge(f"{name}, live inputs missing", np.asarray(peer.predict_proba(blind_matrix)))

    lines = [
        f"Test rows: {len(test):,}, {test.target.mean():.1%} positive, {blocks.max() + 1} days; "
        f"horizon {schema.horizon}; 95 % intervals.",
        "",
        "| model | ROC-AUC | PR-AUC | log-loss | Brier |",
        "| --- | --- | --- | --- | --- |",
        *(f"| {name} | {' | '.join(spell(interval(found[m])) for m in FIGURES)} |" for name, found in drawn.items()),
        "",
        "Atlas's lead, paired by day (positive: Atlas is better):",
        "",
        "| over | ROC-AUC | PR-AUC | log-loss | Brier |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {name} | {' | '.join(spell(improvement(m, drawn['Atlas'][m], drawn[name][m])) for m in FIGURES)} |"
            for name in peers(params.seed)
        ),
    ]
    REPORT.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
