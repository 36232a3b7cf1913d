"""Explains predictions: which features moved a row's score away from the average over rows of the training sample."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.explanation.exact import ExactMethod, Method, Scale
from service.explanation.graph import NotAdditiveError
from service.explanation.sampled import SampledMethod
from service.predictor import Answers, InvalidRowsError, Predictor

BACKGROUND = 100
"""Rows of the training sample, at most: with twice as many, an explanation takes almost twice as long."""
SAMPLED = 50
"""The same, for models whose contributions are estimated."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Of a row's score: base + the sum of the contributions = value."""

    label: str | None
    """The class whose score is explained: binary: the positive; else the predicted; None for a regression."""
    base: float
    """The score's mean over the background rows."""
    value: float
    contributions: dict[str, float]
    """By feature, the largest first."""


@dataclass(frozen=True, slots=True)
class _Ready:
    method: Method
    shares: NDArray[np.float64]
    """Shape (players, features): a player is a feature, or a cross of several, which share its contribution equally."""
    background: int


class Explainer:
    """Explains a predictor's answers; safe to call from several threads. It is prepared when it is first used."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._features = [feature.name for feature in predictor.schema.features]
        self._lock = threading.Lock()
        self._found: _Ready | None = None

    @property
    def scale(self) -> Scale:
        """What base and contributions add up to."""
        return self._ready().method.scale

    @property
    def exact(self) -> bool:
        """Whether contributions are exact, or estimated (their sum always is exact)."""
        return self._ready().method.exact

    @property
    def background_rows(self) -> int:
        """Rows of the training sample that the base is the mean of."""
        return self._ready().background

    def explain(self, rows: Sequence[Mapping[str, Any]], answers: Answers) -> list[Explanation]:
        """An explanation for each row; `answers`: the predictor's for these rows."""
        ready, schema = self._ready(), self._predictor.schema
        winners = np.array(answers.winners or [0] * len(rows))
        if schema.task == "binary":
            winners = np.ones(len(rows), dtype=np.int64)
        with np.errstate(all="ignore"):
            bases, values = ready.method.explain(self._predictor.encode(rows), winners)
        found = []
        for base, row, winner in zip(bases.tolist(), values @ ready.shares, winners.tolist(), strict=True):
            order = np.argsort(-np.abs(row), kind="stable").tolist()
            found.append(
                Explanation(
                    label=schema.classes[winner] if schema.classes else None,
                    base=base,
                    value=base + float(row.sum()),
                    contributions={self._features[place]: float(row[place]) for place in order},
                )
            )
        return found

    def _ready(self) -> _Ready:
        with self._lock:
            if self._found is None:
                self._found = self._prepare()
            return self._found

    def _prepare(self) -> _Ready:
        encoders = self._predictor.bundle.parts.encoding.encoders
        groups: dict[tuple[str, ...], int] = {}
        players: list[int] = []
        for encoder in encoders:
            names = encoder.columns if hasattr(encoder, "columns") else (encoder.column,)
            player = groups.setdefault(tuple(dict.fromkeys(names)), len(groups))
            players += [player] * len(encoder.names())
        shares = np.zeros((len(groups), len(self._features)))
        for names, player in groups.items():
            for name in names:
                shares[player, self._features.index(name)] = 1 / len(names)
        background = _spread(self._background(), BACKGROUND)
        bundle, owners = self._predictor.bundle, np.array(players)
        try:
            method: Method = ExactMethod(bundle, owners, background)
        except NotAdditiveError:
            background = _spread(background, SAMPLED)
            method = SampledMethod(bundle, owners, background)
        return _Ready(method, shares, len(background))

    def _background(self) -> NDArray[np.float32]:
        """The encoded rows of the training sample; without those that a request couldn't contain."""
        found = []
        for row in (*self._predictor.bundle.parts.reference.sample, self._predictor.example()):
            try:
                found.append(self._predictor.encode([row]))
            except InvalidRowsError:
                continue
        return np.concatenate(found[:-1] or found)


def _spread(rows: NDArray[np.float32], most: int) -> NDArray[np.float32]:
    """At most that many rows, from the whole sample: it is ordered as the training rows, which may be by time."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(np.int64))]
