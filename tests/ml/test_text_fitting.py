"""Text with many words becomes a few columns, alike in training and serving, at the size of real tables."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import roc_auc_score

from ml.encoding import Encoding
from ml.params import EncodingParams
from ml.schema import Feature, Schema
from ml.text_fitting import DIRECTIONS, fit_text

SCHEMA = Schema(target="y", task="binary", classes=("no", "yes"), features=(Feature(name="t", type="text"),))


def documents(rows: int, words: int) -> tuple[np.ndarray, np.ndarray]:
    """Random words; some of them, in no text frequent, tell the classes apart."""
    rng = np.random.default_rng(0)
    target = (rng.random(rows) < 0.5).astype(float)
    chosen = rng.integers(0, words, (rows, 12))
    telling = rng.integers(0, words // 20, rows) * 2 + target.astype(int)
    return np.array(
        [" ".join(f"w{k}" for k in (*line, last)) for line, last in zip(chosen, telling, strict=True)], dtype=object
    ), target


@pytest.mark.parametrize(("rows", "words"), [(600, 400), pytest.param(20_000, 2000, marks=pytest.mark.slow)])
def test_many_words_are_projected_onto_few_columns_whose_score_ranks_new_texts(rows: int, words: int) -> None:
    texts, target = documents(rows, words)
    half = rows // 2
    fold = np.arange(half) % 5
    found = fit_text("t", {"t": texts[:half]}, target[:half], SCHEMA, EncodingParams(), fold, 1)
    assert found is not None
    encoder, trained = found
    assert encoder.outputs[-1] == "score"
    assert len(encoder.names()) == DIRECTIONS + 1
    assert trained is not None
    held = encoder.transform({"t": texts[half:]})
    assert roc_auc_score(target[half:], held[:, -1]) > 0.6
    # A training row's score is out of fold, so it is about as good as a new row's, not better.
    scores = [roc_auc_score(target[:half], trained[:, -1]), roc_auc_score(target[half:], held[:, -1])]
    assert scores[0] == pytest.approx(scores[1], abs=0.12)
    np.testing.assert_allclose(trained[:, :-1], encoder.transform({"t": texts[:half]})[:, :-1], atol=1e-9)


def test_a_texts_columns_are_bitwise_the_same_alone_and_among_others_and_from_json() -> None:
    texts, target = documents(400, 300)
    found = fit_text("t", {"t": texts}, target, SCHEMA, EncodingParams(), np.arange(400) % 5, 1)
    assert found is not None
    encoding = Encoding.model_validate_json(Encoding(encoders=(found[0],)).model_dump_json())
    texts[7] = None
    together = encoding.transform({"t": texts[:50]})
    alone = np.concatenate([encoding.transform({"t": texts[row : row + 1]}) for row in range(50)])
    assert together.tobytes() == alone.tobytes()


def test_few_words_are_columns_as_scikit_learn_has_them_and_no_frequent_word_is_no_column() -> None:
    texts = np.array(["late refund", "thank you", "late again", "refund please thank"], dtype=object)
    target, fold = np.array([0.0, 1.0, 0.0, 1.0]), np.arange(4)
    found = fit_text("t", {"t": texts}, target, SCHEMA, EncodingParams(), fold, 1)
    assert found is not None
    expected = TfidfVectorizer(min_df=2).fit_transform(texts).toarray()
    np.testing.assert_allclose(found[0].transform({"t": texts}), expected)
    assert fit_text("t", {"t": texts[:1]}, target[:1], SCHEMA, EncodingParams(), fold[:1], 1) is None


@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_rows_that_lack_a_class_and_numbers_have_scores_too(task: str) -> None:
    texts, target = documents(300, 300)
    classes = ("a", "b", "c") if task == "multiclass" else ()
    schema = Schema.model_validate(SCHEMA.model_dump() | {"task": task, "classes": classes})
    found = fit_text(
        "t", {"t": texts}, target * (1 if classes else 40), schema, EncodingParams(), np.arange(300) % 5, 1
    )
    assert found is not None
    scores = [name for name in found[0].outputs if name.startswith("score")]
    assert scores == (["score:a", "score:b", "score:c"] if classes else ["score"])
    assert np.isfinite(found[0].transform({"t": texts})).all()
