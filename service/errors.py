"""Errors that carry their HTTP status, answered as JSON in the form of the caller's protocol."""

import re
from collections.abc import Sequence

from service import protocols
from service.predictor import InvalidRowsError, Problem
from service.protocols import Error, MlflowError, Reason, Refused

OPEN_INFERENCE = re.compile(r"/v[12](/.*)?", re.DOTALL)
MLFLOW = frozenset({"/invocations", "/ping", "/health", "/version"})
MLFLOW_CODES = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "ENDPOINT_NOT_FOUND",
    422: "INVALID_PARAMETER_VALUE",
    429: "REQUEST_LIMIT_EXCEEDED",
    500: "INTERNAL_ERROR",
    503: "TEMPORARILY_UNAVAILABLE",
}
"""MLflow's name of an error by status; BAD_REQUEST for any other."""


class ApiError(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, code: str, message: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.problems = tuple(problems)

    def body(self, path: str, request_id: str) -> Error | MlflowError | Refused:
        """The JSON body for a request of this path."""
        if OPEN_INFERENCE.fullmatch(path):
            return Refused(self.message)
        if path in MLFLOW:
            return MlflowError(MLFLOW_CODES.get(self.status, "BAD_REQUEST"), self.message)
        listed = [
            protocols.Problem(problem.row, problem.field, problem.code, problem.message) for problem in self.problems
        ]
        return Error(Reason(self.code, self.message, listed), request_id)


def invalid_rows(error: InvalidRowsError) -> ApiError:
    """Rows that the schema refuses, as a 422."""
    first = error.problems[0]
    place = f"row {first.row}" + (f", {first.field}" if first.field is not None else "")
    return ApiError(422, "invalid_rows", f"{error}; first: {place}: {first.message}", error.problems)
