"""A bundle is written atomically, its version depends on what determines predictions, and damage is reported."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper
from sklearn.linear_model import LogisticRegression

import ml.bundle
from ml.bundle import BundleError, Parts, load_bundle, read_manifest, read_parts, write_bundle
from ml.card import Card, Distribution, Reference
from ml.decision import (
    Calibration,
    Decision,
    IsotonicCalibration,
    SigmoidCalibration,
    TemperatureCalibration,
    decide,
)
from ml.encoding import Encoding, NumericEncoder
from ml.schema import Feature, Schema
from tests.bundles import version_of

REPOSITORY = Path(__file__).parents[2]


def sigmoid_graph() -> bytes:
    """P(yes) = 1 / (1 + exp(-x)), as a classifier's two columns."""
    graph = helper.make_graph(
        [
            helper.make_node("Sigmoid", ["features"], ["yes"]),
            helper.make_node("Neg", ["features"], ["minus"]),
            helper.make_node("Sigmoid", ["minus"], ["no"]),
            helper.make_node("Concat", ["no", "yes"], ["probabilities"], axis=1),
        ],
        "sigmoid",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, 1])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 2])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


@pytest.fixture
def parts() -> Parts:
    return Parts(
        name="sigmoid",
        runtime="onnx",
        model=sigmoid_graph(),
        schema=Schema(target="y", task="binary", classes=("no", "yes"), features=(Feature(name="x", type="numeric"),)),
        encoding=Encoding(encoders=(NumericEncoder(column="x"),)),
        decision=Decision(threshold=0.5),
        reference=Reference(rows=0, features={}, scores=Distribution(missing=0), sample=()),
        card=Card(name="sigmoid", task="binary", target="y"),
    )


def columns(*x: float) -> dict[str, np.ndarray]:
    return {"x": np.array(x)}


def test_a_bundle_read_back_answers_as_its_model_does(tmp_path: Path, parts: Parts) -> None:
    version = write_bundle(tmp_path / "bundle", parts)
    bundle = load_bundle(tmp_path / "bundle")
    assert (bundle.version, bundle.parts) == (version, parts)
    scores = bundle.scores(columns(-1.0, 0.0, 2.0))
    np.testing.assert_allclose(scores[:, 1], 1 / (1 + np.exp([1.0, 0.0, -2.0])), atol=1e-6)
    assert list(bundle.decide(scores)) == ["no", "yes", "yes"]


def test_the_threshold_itself_counts_as_positive_and_moves_the_answer(tmp_path: Path, parts: Parts) -> None:
    write_bundle(tmp_path / "bundle", replace(parts, decision=Decision(threshold=0.6)))
    bundle = load_bundle(tmp_path / "bundle")
    assert list(bundle.decide(np.array([[0.41, 0.59], [0.4, 0.6]]))) == ["no", "yes"]


def test_the_version_follows_what_decides_answers_and_nothing_else(parts: Parts) -> None:
    version = version_of(parts)
    assert (
        version_of(replace(parts, card=Card(name="sigmoid", task="binary", target="y", description="new"))) == version
    )
    assert version_of(replace(parts, evaluated=parts)) == version
    wider = Schema(
        target="y", task="binary", classes=("no", "yes"), features=(Feature(name="x", type="numeric", low=0),)
    )
    changed = [
        replace(parts, decision=Decision(threshold=0.4)),
        replace(parts, schema=wider),
        replace(parts, model=parts.model + b" "),
        replace(parts, runtime="sklearn"),
        replace(parts, reference=Reference(rows=1, features={}, scores=Distribution(missing=0), sample=())),
        replace(parts, encoding=Encoding(encoders=(NumericEncoder(column="x"), NumericEncoder(column="x")))),
    ]
    assert len({version, *map(version_of, changed)}) == 1 + len(changed)


def test_a_failure_while_writing_leaves_the_old_bundle(
    tmp_path: Path, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = write_bundle(tmp_path / "bundle", parts)

    def full_disk(directory: Path, _: Parts) -> str:
        (directory / "model.onnx").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ml.bundle, "_write_into", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_bundle(tmp_path / "bundle", replace(parts, decision=Decision(threshold=0.9)))
    assert load_bundle(tmp_path / "bundle").version == version
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_writing_again_replaces_every_file(tmp_path: Path, parts: Parts) -> None:
    write_bundle(tmp_path / "bundle", replace(parts, evaluated=parts))
    assert load_bundle(tmp_path / "bundle").parts.evaluated == parts
    write_bundle(tmp_path / "bundle", parts)
    assert load_bundle(tmp_path / "bundle").parts.evaluated is None


@pytest.mark.parametrize("name", ["model.onnx", "schema.json", "encoding.json", "decision.json", "card.json"])
def test_an_altered_or_missing_file_is_named(tmp_path: Path, parts: Parts, name: str) -> None:
    write_bundle(tmp_path / "bundle", parts)
    file = tmp_path / "bundle" / name
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(BundleError, match=rf"{name} doesn't match bundle.json"):
        read_parts(tmp_path / "bundle")
    file.unlink()
    with pytest.raises(BundleError, match=rf"{name} can't be read \(No such file"):
        read_parts(tmp_path / "bundle")


def test_an_altered_threshold_with_a_matching_hash_still_fails_by_its_version(tmp_path: Path, parts: Parts) -> None:
    write_bundle(tmp_path / "bundle", parts)
    file = tmp_path / "bundle" / "decision.json"
    file.write_text(file.read_text().replace("0.5", "0.1"))
    manifest = json.loads((tmp_path / "bundle" / "bundle.json").read_text())
    manifest["files"]["decision.json"] = ml.bundle._sha256(file.read_bytes())
    (tmp_path / "bundle" / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="names a version that doesn't match its files"):
        read_parts(tmp_path / "bundle")


def test_no_bundle_a_damaged_manifest_and_a_newer_format_each_say_what_to_do(tmp_path: Path, parts: Parts) -> None:
    with pytest.raises(BundleError, match=r"no model bundle at .*: create it with `dvc repro`"):
        read_manifest(tmp_path / "bundle")
    write_bundle(tmp_path / "bundle", parts)
    manifest = tmp_path / "bundle" / "bundle.json"
    manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(BundleError, match="bundle format 2, but this program needs 1"):
        read_manifest(tmp_path / "bundle")
    manifest.write_text("{")
    with pytest.raises(BundleError, match=r"bundle.json is damaged"):
        read_manifest(tmp_path / "bundle")


def test_a_graph_that_is_no_onnx_is_a_bundle_error(tmp_path: Path, parts: Parts) -> None:
    write_bundle(tmp_path / "bundle", replace(parts, model=b"not a graph"))
    with pytest.raises(BundleError, match="can't be loaded"):
        load_bundle(tmp_path / "bundle")


def test_a_pickled_model_serves_where_scikit_learn_is_and_says_so_where_it_is_not(
    tmp_path: Path, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = np.linspace(-2, 2, 40).reshape(-1, 1)
    model = LogisticRegression().fit(x, (x[:, 0] > 0).astype(int))
    write_bundle(tmp_path / "bundle", replace(parts, runtime="sklearn", model=pickle.dumps(model)))
    np.testing.assert_allclose(
        load_bundle(tmp_path / "bundle").scores(columns(-1, 1)), model.predict_proba([[-1], [1]]), atol=1e-6
    )
    for name in [name for name in sys.modules if name.split(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(BundleError, match="use the image target `full`"):
        load_bundle(tmp_path / "bundle")


WITHOUT_SCIKIT_LEARN = """
import sys
from pathlib import Path

sys.modules["sklearn"] = None  # it can't be found, nor imported
from ml.bundle import BundleError, load_bundle

try:
    load_bundle(Path(sys.argv[1]))
except BundleError as error:
    print(error)
"""


def test_a_pickle_of_another_hand_runs_nothing_where_scikit_learn_is_not_installed(
    tmp_path: Path, parts: Parts
) -> None:
    trace = tmp_path / "trace"

    class Hostile:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(trace),)

    hostile = pickle.dumps(Hostile())
    write_bundle(tmp_path / "bundle", replace(parts, runtime="sklearn", model=hostile))
    command = [sys.executable, "-c", WITHOUT_SCIKIT_LEARN, str(tmp_path / "bundle")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=True)
    assert "needs sklearn, which isn't installed here: use the image target `full`" in done.stdout
    assert not trace.exists()
    pickle.loads(hostile)
    assert trace.exists()


def test_reading_documents_does_not_start_the_runtime(tmp_path: Path, parts: Parts) -> None:
    write_bundle(tmp_path / "bundle", replace(parts, model=b"never looked at"))
    assert read_parts(tmp_path / "bundle")[1].name == "sigmoid"


def test_calibrations_keep_rows_summing_to_one_and_follow_their_formulas() -> None:
    p = np.array([0.01, 0.3, 0.5, 0.9])
    scores = np.stack([1 - p, p], axis=1)
    odds = np.log(p / (1 - p))
    expected: dict[Calibration, np.ndarray] = {
        SigmoidCalibration(slope=2, intercept=-1): 1 / (1 + np.exp(-(2 * odds - 1))),
        TemperatureCalibration(temperature=2): 1 / (1 + np.exp(-odds / 2)),
        IsotonicCalibration(x=(0.0, 0.5, 1.0), y=(0.1, 0.2, 0.8)): np.interp(p, [0, 0.5, 1], [0.1, 0.2, 0.8]),
    }
    for calibration, positive in expected.items():
        calibrated = calibration.apply(scores)
        np.testing.assert_allclose(calibrated[:, 1], positive, rtol=1e-9)
        np.testing.assert_allclose(calibrated.sum(axis=1), 1)


def test_a_regression_gives_numbers_and_a_multiclass_its_likeliest_label(parts: Parts) -> None:
    number = Schema(target="y", task="regression", features=(Feature(name="x", type="numeric"),))
    np.testing.assert_array_equal(decide(number, Decision(), np.array([1.5, -2.0])), [1.5, -2.0])
    several = Schema(target="y", task="multiclass", classes=("a", "b", "c"), features=number.features)
    scores = np.array([[0.2, 0.5, 0.3], [0.1, 0.2, 0.7]])
    assert list(decide(several, Decision(), scores)) == ["b", "c"]


def test_a_copied_bundle_is_the_same_bundle(tmp_path: Path, parts: Parts) -> None:
    version = write_bundle(tmp_path / "candidate", parts)
    shutil.copytree(tmp_path / "candidate", tmp_path / "bundle")
    assert read_parts(tmp_path / "bundle")[0] == version
