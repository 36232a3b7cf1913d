"""Errors that carry their HTTP status, answered as JSON."""

from collections.abc import Sequence
from typing import Any

from service.predictor import InvalidRowsError, Problem


class ApiError(Exception):
    """An answer other than 200; every caller gets the same body."""

    def __init__(self, status: int, code: str, message: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.problems = tuple(problems)

    def body(self, request_id: str) -> dict[str, Any]:
        """The JSON body."""
        listed = [
            {"row": problem.row, "field": problem.field, "code": problem.code, "message": problem.message}
            for problem in self.problems
        ]
        return {"error": {"code": self.code, "message": self.message, "problems": listed}, "request_id": request_id}


def invalid_rows(error: InvalidRowsError) -> ApiError:
    """Rows that the schema refuses, as a 422."""
    first = error.problems[0]
    place = f"row {first.row}" + (f", {first.field}" if first.field is not None else "")
    return ApiError(422, "invalid_rows", f"{error}; first: {place}: {first.message}", error.problems)
