"""Learns the encoding of a text column: tf-idf of its words, projected onto few columns if there are many words."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.encoding import TextEncoder
from ml.params import EncodingParams
from ml.schema import Columns, Schema

DIRECTIONS = 32
"""Columns of the latent semantic analysis."""
MOST_SCORES = 20
"""Classes up to which each of them gets a score."""
FOLDS = 3
STRENGTH = 10.0
"""C of the logistic regression on tf-idf; 1 / alpha of the ridge regression."""


def fit_text(
    name: str,
    columns: Columns,
    target: NDArray[np.float64],
    schema: Schema,
    params: EncodingParams,
    fold: NDArray[np.int64],
    seed: int,
) -> tuple[TextEncoder, NDArray[np.float64] | None] | None:
    """The encoder of the column's most frequent words; None when no word is frequent enough.

    More words than `text_columns` are projected, so that trees and memory can bear them: onto the directions of a
    latent semantic analysis (Deerwester et al., 1990), and onto a linear model of the target. For these the second
    result holds the training rows, with linear scores out of fold: a row's score doesn't use its own target.
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    documents = ["" if text is None else str(text) for text in columns[name]]
    vectorizer = TfidfVectorizer(max_features=params.text_terms, min_df=params.text_terms_min_rows)
    try:
        matrix = vectorizer.fit_transform(documents)  # sparse
    except ValueError:  # no word is in text_terms_min_rows rows
        return None
    words = {word: int(place) for word, place in sorted(vectorizer.vocabulary_.items())}
    encoder = TextEncoder(column=name, vocabulary=words, idf=tuple(map(float, vectorizer.idf_)))
    if len(words) <= params.text_columns:
        return encoder, None

    count = min(DIRECTIONS, len(words) - 1, len(documents))
    directions = TruncatedSVD(count, random_state=seed).fit(matrix).components_.T
    latent = matrix @ directions
    if len(schema.classes) > MOST_SCORES:
        return _projected(encoder, directions, np.zeros(count), ()), latent
    weights, offset = _linear(matrix, target, schema)
    scores = np.empty((len(documents), len(offset)))
    for part in range(FOLDS):
        held = fold % FOLDS == part
        if held.any():
            learnt, shift = _linear(matrix[~held], target[~held], schema) if (~held).any() else (weights, offset)
            scores[held] = matrix[held] @ learnt + shift
    outputs = schema.classes if len(offset) > 1 else ("",)
    projected = _projected(
        encoder, np.hstack([directions, weights]), np.concatenate([np.zeros(count), offset]), outputs
    )
    return projected, np.hstack([latent, scores])


def _projected(
    encoder: TextEncoder, directions: NDArray[np.float64], offset: NDArray[np.float64], scores: tuple[str, ...]
) -> TextEncoder:
    latent = tuple(f"latent_{place}" for place in range(directions.shape[1] - len(scores)))
    return encoder.model_copy(
        update={
            "directions": tuple(tuple(map(float, row)) for row in directions),
            "offset": tuple(map(float, offset)),
            "outputs": (*latent, *(f"score:{label}" if label else "score" for label in scores)),
        }
    )


def _linear(
    matrix: Any, target: NDArray[np.float64], schema: Schema
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coefficients, shape (words, outputs), and intercepts; zeros for classes that these rows lack."""
    from sklearn.linear_model import LogisticRegression, Ridge

    if schema.task == "regression":
        spread = float(target.std()) or 1.0
        ridge = Ridge(alpha=1 / STRENGTH, solver="sparse_cg").fit(matrix, (target - target.mean()) / spread)
        return ridge.coef_[:, None], np.atleast_1d(ridge.intercept_)
    outputs = 1 if schema.task == "binary" else len(schema.classes)
    weights, offset = np.zeros((matrix.shape[1], outputs)), np.zeros(outputs)
    present = np.unique(target.astype(int))
    if len(present) > 1:
        logistic = LogisticRegression(C=STRENGTH, max_iter=200).fit(matrix, target.astype(int))
        if outputs == 1 or len(present) > 2:
            places = [0] if outputs == 1 else list(present)
            weights[:, places], offset[places] = logistic.coef_.T, logistic.intercept_
        else:
            weights[:, present[1]], offset[present[1]] = logistic.coef_[0], logistic.intercept_[0]
    return weights, offset
