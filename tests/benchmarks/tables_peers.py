"""The real tables of tests/benchmarks/tables.py and the peers on them; runs in that script's own environment.

python tables_peers.py prepare FOLDER      # writes FOLDER/NAME.csv and FOLDER/tables.json
python tables_peers.py fit FOLDER SEED     # FOLDER holds a pipeline's data/processed; writes FOLDER/peers.npz
"""

import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

SMALL = 5000
"""Rows up to which a setting is judged by five folds; above, by the last fifth of the rows."""

THREADS = int(os.environ.get("OMP_NUM_THREADS", "2"))
"""Of LightGBM and CatBoost; scikit-learn's and BLAS's libraries read the same variable."""


def tables() -> dict[str, tuple[pd.DataFrame, dict[str, Any]]]:
    """Each table with the params that a user would write for it: target, task and, for a time split, time."""
    import causaldata
    import lifelines.datasets
    import palmerpenguins
    import plotnine.data
    import statsmodels.api as sm
    import vega_datasets
    from sklearn import datasets

    binary, multiclass, regression = ({"task": task} for task in ("binary", "multiclass", "regression"))
    co2 = sm.datasets.co2.load_pandas().data.reset_index(names="date")
    cars = vega_datasets.data.cars()
    weather = vega_datasets.data.seattle_weather()
    cancer = datasets.load_breast_cancer(as_frame=True).frame
    houses = plotnine.data.txhousing.dropna(subset=["sales"])
    houses = houses.assign(month_start=pd.to_datetime(houses[["year", "month"]].assign(day=1))).drop(columns="date")
    insurance = sm.datasets.randhie.load_pandas().data
    return {
        "penguins": (palmerpenguins.load_penguins(), {"target": "species", **multiclass}),
        "recidivism": (lifelines.datasets.load_rossi(), {"target": "arrest", **binary}),
        "cars": (cars.dropna(subset=["Miles_per_Gallon"]), {"target": "Miles_per_Gallon", **regression}),
        "weekly CO2": (co2.dropna(), {"target": "co2", "time": "date", **regression}),
        "passengers": (causaldata.titanic.load_pandas().data, {"target": "survived", **binary}),
        "survey": (sm.datasets.anes96.load_pandas().data, {"target": "PID", **multiclass}),
        "diamonds": (pd.DataFrame(plotnine.data.diamonds), {"target": "price", **regression}),
        "affairs": (
            sm.datasets.fair.load_pandas().data.assign(affairs=lambda table: table["affairs"] > 0),
            {"target": "affairs", **binary},
        ),
        "breast cancer": (cancer, {"target": "target", **binary}),
        "diabetes": (datasets.load_diabetes(as_frame=True, scaled=False).frame, {"target": "target", **regression}),
        "Seattle weather": (weather, {"target": "weather", "time": "date", **multiclass}),
        "house sales": (houses, {"target": "sales", "time": "month_start", **regression}),
        "insurance": (insurance, {"target": "mdvis", **regression}),
    }


def features(table: pd.DataFrame, schema: dict[str, Any]) -> pd.DataFrame:
    """Numbers, categories, and parts of times; text is left out."""
    made = {}
    for feature in schema["features"]:
        name, kind = feature["name"], feature["type"]
        if kind == "datetime":
            time = pd.to_datetime(table[name])
            made[f"{name} day"] = (time - pd.Timestamp(0)).dt.days
            for part in ("month", "dayofweek", "dayofyear", "hour"):
                made[f"{name} {part}"] = getattr(time.dt, part)
        elif kind == "categorical":
            made[name] = table[name].astype("string").fillna("missing").astype("category")
        elif kind != "text":
            made[name] = (
                pd.to_numeric(table[name].map({True: 1, False: 0, "true": 1, "false": 0, "yes": 1, "no": 0}))
                if kind == "boolean" and table[name].dtype != bool
                else table[name].astype(float)
            )
    return pd.DataFrame(made, index=table.index)


def peers(task: str, seed: int) -> dict[str, list[Any]]:
    """Unfitted estimators by peer; of several settings the best on held-out rows is taken."""
    from catboost import CatBoostClassifier, CatBoostRegressor
    from lightgbm import LGBMClassifier, LGBMRegressor

    number = task == "regression"
    light, cat = (LGBMRegressor, CatBoostRegressor) if number else (LGBMClassifier, CatBoostClassifier)
    common: dict[str, Any] = {"verbose": -1, "n_jobs": THREADS, "random_state": seed}
    quiet: dict[str, Any] = {"verbose": 0, "thread_count": THREADS, "random_seed": seed, "allow_writing_files": False}
    return {
        "LightGBM": [
            light(**common),
            light(n_estimators=300, learning_rate=0.03, num_leaves=15, **common),
            light(
                n_estimators=300, learning_rate=0.05, num_leaves=31, min_child_samples=5, colsample_bytree=0.6, **common
            ),
            light(n_estimators=100, learning_rate=0.05, num_leaves=7, reg_lambda=5, colsample_bytree=0.8, **common),
        ],
        "CatBoost": [cat(iterations=300, **quiet), cat(iterations=300, learning_rate=0.05, depth=4, **quiet)],
        "linear": [linear(number, strength) for strength in (0.01, 0.1, 1, 10, 100)],
    }


def linear(number: bool, strength: float) -> Any:
    """Ridge or logistic regression on imputed, scaled and one-hot columns."""
    from sklearn.compose import make_column_selector, make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    return make_pipeline(
        make_column_transformer(
            (OneHotEncoder(handle_unknown="ignore"), make_column_selector(dtype_include="category")),
            (
                make_pipeline(SimpleImputer(strategy="median"), StandardScaler()),
                make_column_selector(dtype_exclude="category"),
            ),
        ),
        Ridge(alpha=strength) if number else LogisticRegression(C=1 / strength, max_iter=2000),
    )


def scores(model: Any, x: pd.DataFrame, task: str) -> Any:
    return model.predict(x) if task == "regression" else model.predict_proba(x)


def loss(predicted: Any, y: Any, task: str) -> float:
    if task == "regression":
        return float(((predicted - y) ** 2).mean())
    return float(-np.log(np.clip(predicted[np.arange(len(y)), y], 1e-15, 1)).mean())


def fit(folder: Path, seed: int) -> None:
    """Choose each peer's setting on the training and validation rows, fit it on all of them, predict the test rows."""
    from sklearn.model_selection import KFold, StratifiedKFold

    schema = json.loads((folder / "data/processed/schema.json").read_text())
    task, target = schema["task"], schema["target"]
    parts = {
        part: pd.read_parquet(folder / f"data/processed/{part}.parquet") for part in ("train", "validation", "test")
    }
    learn = pd.concat([parts["train"], parts["validation"]], ignore_index=True)
    both = features(pd.concat([learn, parts["test"]], ignore_index=True), schema)
    x, x_test = both[: len(learn)], both[len(learn) :]
    y = learn[target].to_numpy()
    if task != "regression":
        y = np.array([schema["classes"].index(label) for label in y])
    timed = (folder / "time").exists()
    if timed or len(x) > SMALL:
        order = np.arange(len(x)) if timed else np.random.default_rng(seed).permutation(len(x))
        folds = [(order[: len(x) * 4 // 5], order[len(x) * 4 // 5 :])]
    else:
        folding = KFold if task == "regression" else StratifiedKFold
        folds = list(folding(5, shuffle=True, random_state=seed).split(x, y))
    found: dict[str, Any] = {}
    for name, settings in peers(task, seed).items():
        for each in settings:
            if name == "CatBoost":
                each.set_params(cat_features=[c for c in x if x[c].dtype == "category"])
        losses = []
        for each in settings:
            fold_losses = []
            for past, held in folds:
                if task != "regression" and len(set(y[past])) < len(schema["classes"]):
                    continue
                each.fit(x.iloc[past], y[past])
                fold_losses.append(loss(scores(each, x.iloc[held], task), y[held], task))
            losses.append(float(np.mean(fold_losses)) if fold_losses else 0.0)
        best = settings[int(np.argmin(losses))]
        best.fit(x, y)
        found[name] = np.asarray(scores(best, x_test, task))
    np.savez(str(folder / "peers.npz"), **found)


def prepare(folder: Path) -> None:
    settings = {}
    for name, (table, params) in tables().items():
        table.to_csv(folder / f"{name}.csv", index=False)
        settings[name] = params
    (folder / "tables.json").write_text(json.dumps(settings, indent=1))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    if sys.argv[1] == "prepare":
        prepare(Path(sys.argv[2]))
    else:
        fit(Path(sys.argv[2]), int(sys.argv[3]))
