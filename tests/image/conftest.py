"""The images for the tests, each built once; without a Docker engine these tests are skipped."""

import os
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ml.bundle import Parts, write_bundle
from tests.bundles import make_bundle, make_parts
from tests.image.containers import MissingError, base_image, build, docker, lay_out

LABELS = {"BUNDLE_VERSION": "version-of-the-bundle"}
DATA_PARAMS = '{"source": "flights", "uri": "-", "target": "late", "task": "binary", "horizon": "2h"}'


@pytest.fixture(scope="session", autouse=True)
def base() -> str:
    """The base image; skips all tests of this folder if images can't be built."""
    try:
        return base_image()
    except MissingError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("image") / "bundle")


@pytest.fixture(scope="session")
def sklearn_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose model isn't compiled: the pickled estimator."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    parts: Parts = make_parts()
    matrix = np.random.default_rng(0).standard_normal((200, len(parts.encoding.names()))).astype(np.float32)
    model = HistGradientBoostingClassifier(max_iter=5, random_state=0).fit(matrix, (matrix[:, 0] > 0).astype(int))
    path = tmp_path_factory.mktemp("image") / "sklearn"
    write_bundle(path, replace(parts, runtime="sklearn", model=pickle.dumps(model)))
    return path


@pytest.fixture(scope="session")
def context(tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> Path:
    """The build context with a small bundle."""
    return lay_out(tmp_path_factory.mktemp("image") / "context", bundle)


@pytest.fixture(scope="session")
def slim(context: Path) -> Iterator[str]:
    """The default target with the small bundle, labelled."""
    tag = f"atlas-test-slim:{os.getpid()}"
    build(context, "--load", "--tag", tag, arguments=LABELS)
    yield tag
    docker("image", "rm", "--force", tag)


@pytest.fixture(scope="session")
def full(context: Path) -> Iterator[str]:
    """The larger target with the small bundle."""
    tag = f"atlas-test-full:{os.getpid()}"
    build(context, "--load", "--tag", tag, target="full")
    yield tag
    docker("image", "rm", "--force", tag)


@pytest.fixture(scope="session")
def features(context: Path) -> Iterator[str]:
    """The target of bundles with feature views, with the small bundle."""
    tag = f"atlas-test-features:{os.getpid()}"
    build(context, "--load", "--tag", tag, target="features", arguments={"DATA_PARAMS": DATA_PARAMS})
    yield tag
    docker("image", "rm", "--force", tag)
