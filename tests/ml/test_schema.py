"""The schema refuses definitions that would make rows ambiguous."""

import pytest
from pydantic import ValidationError

from ml.schema import Feature, Schema


def schema(**changes: object) -> Schema:
    given = {
        "target": "y",
        "task": "binary",
        "classes": ("no", "yes"),
        "features": (Feature(name="x", type="numeric"),),
    }
    return Schema.model_validate(given | changes)


def test_a_feature_is_found_by_its_name_and_a_wrong_name_is_a_key_error() -> None:
    assert schema().feature("x").type == "numeric"
    with pytest.raises(KeyError, match="z"):
        schema().feature("z")


@pytest.mark.parametrize(
    ("task", "classes"),
    [("binary", ("a", "b", "c")), ("binary", ()), ("multiclass", ("a", "b")), ("regression", ("a", "b"))],
)
def test_classes_must_fit_the_task(task: str, classes: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError, match=f"a {task} target can't have the classes"):
        schema(task=task, classes=classes)


def test_a_repeated_feature_and_a_target_among_the_features_are_refused() -> None:
    x = Feature(name="x", type="numeric")
    with pytest.raises(ValidationError, match=r"feature names repeat: \['x'\]"):
        schema(features=(x, x))
    with pytest.raises(ValidationError, match="the target 'y' is also a feature"):
        schema(features=(Feature(name="y", type="text"),))


def test_bounds_belong_to_numbers_and_are_in_order() -> None:
    with pytest.raises(ValidationError, match="for numeric features, but its type is text"):
        Feature(name="x", type="text", minimum=0)
    with pytest.raises(ValidationError, match=r"minimum 2\.0 is above"):
        Feature(name="x", type="numeric", minimum=2, maximum=1)


def test_unknown_keys_are_an_error() -> None:
    with pytest.raises(ValidationError, match="colour"):
        Feature.model_validate({"name": "x", "type": "numeric", "colour": "red"})
