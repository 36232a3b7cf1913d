"""The kinds of estimators that params.yaml can name, as scikit-learn classes, and the check of their parameters."""

import inspect
from collections.abc import Mapping
from typing import Any, Literal

from ml.schema import Task

Kind = Literal[
    "linear",  # LogisticRegression or Ridge, on imputed and scaled columns
    "hist_gradient_boosting",
    "random_forest",
    "extra_trees",
]


def estimator_class(kind: Kind, task: Task) -> Any:
    """The scikit-learn class of this kind for the task."""
    from sklearn import ensemble, linear_model

    classes = {
        "linear": (linear_model.LogisticRegression, linear_model.Ridge),
        "hist_gradient_boosting": (
            ensemble.HistGradientBoostingClassifier,
            ensemble.HistGradientBoostingRegressor,
        ),
        "random_forest": (ensemble.RandomForestClassifier, ensemble.RandomForestRegressor),
        "extra_trees": (ensemble.ExtraTreesClassifier, ensemble.ExtraTreesRegressor),
    }
    return classes[kind][task == "regression"]


def check_parameters(kind: Kind, task: Task, given: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(parameter, what is wrong with it and what is allowed), in one line each, for every wrong parameter.

    Names are compared with the class's signature, values with the constraints that scikit-learn itself checks when the
    estimator is fitted.
    """
    if not given:
        return []  # without the import of scikit-learn, which takes a second
    from sklearn.utils._param_validation import InvalidParameterError, validate_parameter_constraints

    kind_class = estimator_class(kind, task)
    allowed = [name for name in inspect.signature(kind_class).parameters if name != "categorical_features"]
    wrong = []
    for name, value in given.items():
        if name == "categorical_features":
            # The conversion to ONNX gives no error, but the converted model gives wrong predictions.
            wrong.append((name, "is not allowed; categories are encoded before the model"))
        elif name not in allowed:
            wrong.append((name, f"is not a parameter of {kind_class.__name__}; its parameters: {', '.join(allowed)}"))
        else:
            try:
                validate_parameter_constraints(
                    kind_class._parameter_constraints, {name: value}, caller_name=kind_class.__name__
                )
            except InvalidParameterError as error:
                wrong.append((name, " ".join(str(error).split())))
    return wrong
