"""The model bundle: everything that training hands to serving, the image, the drift monitor and the registry.

It is a directory, which is written atomically:

    bundle.json       name, version, runtime, SHA-256 of every other file
    model.onnx        the compiled model: float32 matrix in, probabilities or a number out
    model.pickle      instead, when the model doesn't compile (`runtime: sklearn`); needs scikit-learn
    schema.json       names, types, categories, bounds          (ml.schema.Schema)
    encoding.json     columns -> matrix                         (ml.encoding.Encoding)
    decision.json     calibration and threshold                 (ml.decision.Decision)
    reference.json    training distributions and a row sample   (ml.card.Reference)
    views.json        where the service looks features up; only if there are views (ml.features.views.Views)
    card.json         what a reader should know about the model (ml.card.Card)
    evaluated/        a bundle of the model that was fitted without the test rows; the reported figures are of this
                      model. It exists only if the serving model was refitted on all rows; the image leaves it out.

The version is the hash of the files that determine predictions: model, schema, encoding, decision, reference and
views. Run ids, times and commits are kept elsewhere, because they would give every run another version.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from ml.card import Card, Reference
from ml.decision import Decision, decide, winners
from ml.encoding import Encoding
from ml.features.views import Views
from ml.runtime import BundleError as BundleError  # noqa: PLC0414 - callers import it from here
from ml.runtime import Runtime, Scores, compile_model
from ml.schema import Columns, Document, Schema

FORMAT = 1
EVALUATED = "evaluated"
VIEWS = "views.json"
CARD = "card.json"
"""The only file that decides no prediction, so the version leaves it out."""

_MODEL_FILES: Mapping[Runtime, str] = {"onnx": "model.onnx", "sklearn": "model.pickle"}


class Manifest(Document):
    """The content of bundle.json."""

    format: int
    name: str
    version: str
    runtime: Runtime
    files: dict[str, str]
    """SHA-256 by file name."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a bundle in memory."""

    name: str
    runtime: Runtime
    model: bytes
    schema: Schema
    encoding: Encoding
    decision: Decision
    reference: Reference
    card: Card
    views: Views | None = None
    evaluated: "Parts | None" = None


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle that can predict."""

    version: str
    parts: Parts
    run: Callable[[NDArray[np.float32]], Scores]
    """The model alone: from a matrix of shape (n, k) to uncalibrated scores."""

    @property
    def name(self) -> str:
        return self.parts.name

    @property
    def schema(self) -> Schema:
        return self.parts.schema

    def scores(self, columns: Columns) -> Scores:
        """Calibrated scores of the rows. A row's scores are bitwise the same alone and in any batch."""
        return self.parts.decision.scores(self.run(self.parts.encoding.transform(columns)))

    def decide(self, scores: Scores) -> NDArray[np.object_] | Scores:
        """The prediction for each row: a label of `schema.classes`, or the number itself for a regression."""
        return decide(self.schema, self.parts.decision, scores)

    def winners(self, scores: Scores) -> NDArray[np.int64]:
        """The place of each row's label in `schema.classes`; not for a regression."""
        return winners(self.parts.decision, scores)

    def answers(self, scores: Scores) -> NDArray[np.generic]:
        """The prediction for each row as an answer contains it: labels have the type of the training file's."""
        if self.schema.task == "regression":
            return scores
        labels = self.schema.answers()
        return np.asarray(labels, dtype=object if self.schema.labels == "text" else None)[self.winners(scores)]


def write_bundle(path: Path, parts: Parts) -> str:
    """Replace `path` with this bundle and return its version; on a failure `path` is unchanged."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        fresh.chmod(0o755)
        version = _write_into(fresh, parts)
        replace_directory(fresh, path)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return version


def replace_directory(fresh: Path, path: Path) -> None:
    """Move the directory `fresh` to `path` (same file system); a reader sees the old or the new directory."""
    old = path.with_name(f".{path.name}-old-{os.getpid()}")
    if path.exists():
        path.rename(old)
    try:
        fresh.rename(path)
    except OSError:
        if old.exists():
            old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def read_manifest(path: Path) -> Manifest:
    """Read bundle.json, without verifying the files that it names."""
    try:
        manifest = Manifest.model_validate_json((path / "bundle.json").read_bytes())
    except FileNotFoundError:
        raise BundleError(
            f"no model bundle at {path}: create it with `dvc repro`, or fetch it with `dvc pull`"
        ) from None
    except ValidationError as error:
        raise BundleError(f"{path}/bundle.json is damaged ({_first(error)}): run `dvc repro` or `dvc pull`") from None
    if manifest.format != FORMAT:
        raise BundleError(
            f"{path} has bundle format {manifest.format}, but this program needs {FORMAT}: run `dvc repro`"
        )
    return manifest


def read_parts(path: Path) -> tuple[str, Parts]:
    """The version and the verified parts of the bundle at `path`.

    Raises BundleError naming the file when a file is missing, was changed, or can't be read.
    """
    manifest = read_manifest(path)
    model_file = _MODEL_FILES[manifest.runtime]
    data: dict[str, bytes] = {}
    optional = [VIEWS] if VIEWS in manifest.files else []
    for name in (model_file, "schema.json", "encoding.json", "decision.json", "reference.json", *optional, CARD):
        try:
            data[name] = (path / name).read_bytes()
        except OSError as error:
            raise BundleError(
                f"{path / name} can't be read ({error.strerror}): run `dvc repro` or `dvc pull`"
            ) from None
        if _sha256(data[name]) != manifest.files.get(name):
            raise BundleError(
                f"{path / name} doesn't match bundle.json (its SHA-256 differs): run `dvc repro` or `dvc pull`"
            )
    if _version(manifest.runtime, manifest.files) != manifest.version:
        raise BundleError(
            f"{path}/bundle.json names a version that doesn't match its files: run `dvc repro` or `dvc pull`"
        )
    try:
        parts = Parts(
            name=manifest.name,
            runtime=manifest.runtime,
            model=data[model_file],
            schema=Schema.model_validate_json(data["schema.json"]),
            encoding=Encoding.model_validate_json(data["encoding.json"]),
            decision=Decision.model_validate_json(data["decision.json"]),
            reference=Reference.model_validate_json(data["reference.json"]),
            card=Card.model_validate_json(data[CARD]),
            views=Views.model_validate_json(data[VIEWS]) if optional else None,
            evaluated=read_parts(path / EVALUATED)[1] if (path / EVALUATED).is_dir() else None,
        )
    except ValidationError as error:
        raise BundleError(f"{path} is from another version of Atlas ({_first(error)}): run `dvc repro`") from None
    return manifest.version, parts


def load_bundle(path: Path) -> Bundle:
    """The verified bundle at `path`, ready to predict.

    Load it in the process that predicts, because the runtime's threads don't survive a fork.
    """
    return bundle_of(*read_parts(path))


def bundle_of(version: str, parts: Parts) -> Bundle:
    """A bundle that can predict, from its parts in memory."""
    return Bundle(version=version, parts=parts, run=compile_model(parts.runtime, parts.model, parts.schema.task))


def _files(parts: Parts) -> dict[str, bytes]:
    documents: dict[str, Document] = {
        "schema.json": parts.schema,
        "encoding.json": parts.encoding,
        "decision.json": parts.decision,
        "reference.json": parts.reference,
        CARD: parts.card,
    }
    if parts.views is not None:
        documents[VIEWS] = parts.views
    return {_MODEL_FILES[parts.runtime]: parts.model} | {name: _json(document) for name, document in documents.items()}


def _json(document: Document) -> bytes:
    return (json.dumps(document.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n").encode()


def _write_into(directory: Path, parts: Parts) -> str:
    files = _files(parts)
    for name, data in files.items():
        (directory / name).write_bytes(data)
    hashes = {name: _sha256(data) for name, data in files.items()}
    version = _version(parts.runtime, hashes)
    manifest = Manifest(format=FORMAT, name=parts.name, version=version, runtime=parts.runtime, files=hashes)
    (directory / "bundle.json").write_bytes(_json(manifest))
    if parts.evaluated is not None:
        (directory / EVALUATED).mkdir()
        _write_into(directory / EVALUATED, parts.evaluated)
    return version


def _version(runtime: Runtime, hashes: Mapping[str, str]) -> str:
    deciding = sorted(name for name in hashes if name != CARD)
    lines = [f"format {FORMAT}", f"runtime {runtime}", *(f"{name} {hashes[name]}" for name in deciding)]
    return _sha256("\n".join(lines).encode())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _first(error: ValidationError) -> str:
    detail = error.errors()[0]
    return f"{'.'.join(map(str, detail['loc'])) or 'document'}: {detail['msg']}"
