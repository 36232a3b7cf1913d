"""A small table and the parameters of a pipeline over it, which runs in seconds."""

from pathlib import Path

import pandas as pd
import yaml


def small_pipeline(path: Path) -> None:
    """Put them into a checkout: table.csv and params.yaml."""
    number = pd.Series(range(1500))
    x, z = (number * 37 % 101) / 50 - 1, (number * 53 % 97) / 48 - 1
    noise = (number * 7919 % 1009) / 1009
    table = pd.DataFrame({"x": x, "z": z, "y": (x + z * 0.5 + noise - 0.5 > 0)})
    table.to_csv(path / "table.csv", index=False)
    params = {
        "seed": 1,
        "data": {"source": "table", "uri": "table.csv", "target": "y", "task": "binary"},
        "contract": {},
        "split": {"method": "random", "validation": 0.2, "test": 0.3},
        "encoding": {},
        "model": {
            "name": "small",
            "estimators": {"trees": {"kind": "hist_gradient_boosting", "max_iter": 30}},
            "calibration": ["none"],
        },
        "evaluation": {"replicates": 50, "importance_rows": 100},
        "gate": {"metric": "log_loss"},
        "registry": {"experiment": "test", "model": "small"},
    }
    (path / "params.yaml").write_text(yaml.safe_dump(params))
