"""Contributions for every other model, estimated over random orders of the players.

For each background row z and a random order of the players, the row's values replace z's one player after the other;
each player gets the difference that its values make. The mean over orders and background rows is an unbiased estimate
of the interventional Shapley values, and contributions and base add up to the model's own score exactly, because the
differences of an order do. (Strumbelj and Kononenko, "Explaining prediction models and individual predictions with
feature contributions", Knowledge and Information Systems 2014. Each order is also used backwards, which halves the
variance: Mitchell et al., "Sampling permutations for Shapley value estimation", JMLR 2022.)
"""

import numpy as np
from numpy.typing import NDArray

from ml.bundle import Bundle
from service.explanation.exact import Scale


class SampledMethod:
    """Estimated Shapley values of the score that the service answers with; the same for equal rows."""

    exact = False

    def __init__(self, bundle: Bundle, players: NDArray[np.int64], background: NDArray[np.float32]) -> None:
        self._bundle, self._players, self._background = bundle, players, background
        self._number = int(players.max()) + 1
        rng = np.random.default_rng(0)
        self._orders = [rng.permutation(self._number) for _ in range(len(self._background))]
        self._base = self._scores(self._background).mean(axis=0)
        self.scale: Scale = "number" if bundle.schema.task == "regression" else "probability"

    def explain(
        self, matrix: NDArray[np.float32], winners: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """See Method."""
        columns = winners if self._bundle.schema.task == "multiclass" else np.zeros(len(matrix), dtype=np.int64)
        values = np.stack([self._row(row, column) for row, column in zip(matrix, columns.tolist(), strict=True)])
        return self._base[columns], values

    def _row(self, row: NDArray[np.float32], column: int) -> NDArray[np.float64]:
        found = np.zeros(self._number)
        for background, order in zip(self._background, self._orders, strict=True):
            for way in (order, order[::-1]):
                place = np.empty(self._number, dtype=np.int64)
                place[way] = np.arange(self._number)
                steps = np.arange(self._number + 1)[:, None]
                mixed = np.where(place[self._players] < steps, row, background)
                found[way] += np.diff(self._scores(mixed)[:, column])
        return found / (2 * len(self._background))

    def _scores(self, matrix: NDArray[np.float32]) -> NDArray[np.float64]:
        """Shape (rows, 1): the positive class's probability or the number; or (rows, classes)."""
        scores = self._bundle.parts.decision.scores(self._bundle.run(matrix.astype(np.float32)))
        return scores[:, None] if scores.ndim == 1 else scores if scores.shape[1] > 2 else scores[:, 1:]
