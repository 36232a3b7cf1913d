"""Exact interventional Shapley values of a sum of trees, with groups of columns as players.

The game: a coalition's features have the row's values, the others those of a background row; its worth is the trees'
sum, averaged over the background rows. (Lundberg et al., "From local explanations to global understanding with
explainable AI for trees", Nature Machine Intelligence 2020, section "Interventional TreeSHAP"; for groups of columns,
Laberge and Pequignot, "Understanding Interventional TreeSHAP", 2022.)

A leaf is reached if each player on its path satisfies all its splits there, with the row's values or the background
row's. Players that satisfy them only with the row's values (a of them) make the leaf reachable by joining, those that
do only with the background row's (b of them) by staying out. Of the leaf's number, the former get (a-1)! b! / (a+b)!
each, the latter lose a! (b-1)! / (a+b)!. What a row satisfies at a leaf is a bit for each player, so background rows
with equal bits are counted together, and no loop over them remains.
"""

from math import factorial

import numpy as np
from numpy.typing import NDArray

from service.explanation.graph import NotAdditiveError, Trees

MOST_EDGES = 2_000_000
"""Splits on all paths to all leaves: with more (deep forests), the arrays below would take hundreds of megabytes."""
MOST_PLAYERS = 32
"""On the path to a leaf: a bit for each."""
BLOCK = 256
"""Leaves whose background bits are counted at a time."""


class TreeShapley:
    """The values of a sum of trees; `players`: the player of each column of the matrix."""

    def __init__(self, trees: Trees, players: NDArray[np.int64], background: NDArray[np.float32]) -> None:
        self._trees = trees
        self._player_of = players[trees.inputs.columns]
        self._players = int(players.max()) + 1
        self._collect_paths()
        constant = trees.weights[[root for root in trees.roots if trees.children[root, 0] < 0]].sum(axis=0)
        self._constant = trees.base + constant
        self._count_background(background)
        largest = self._members.shape[1]
        share = np.zeros((2, largest + 1, largest + 1))
        for a in range(largest + 1):
            for b in range(largest + 1 - a):
                if a:
                    share[0, a, b] = factorial(a - 1) * factorial(b) / factorial(a + b)
                if b:
                    share[1, a, b] = factorial(a) * factorial(b - 1) / factorial(a + b)
        self._share = share

    @property
    def base(self) -> NDArray[np.float64]:
        """The sum's mean over the background rows, shape (outputs,)."""
        full = self._bits == self._complete
        return self._constant + (self._weight[self._leaf[full]] * self._counted[full, None]).sum(axis=0)

    def values(self, matrix: NDArray[np.float32]) -> NDArray[np.float64]:
        """Contributions, shape (rows, players, outputs); with `base` they sum to the trees' sum."""
        return np.stack([self._row(bits) for bits in self._satisfied(matrix)]) if len(matrix) else np.zeros(0)

    def _row(self, satisfied: NDArray[np.uint32]) -> NDArray[np.float64]:
        mine = satisfied[self._leaf]
        alive = np.flatnonzero(((mine | self._bits) == self._complete) & (mine != self._bits))
        leaf, mine, theirs = self._leaf[alive], mine[alive], self._bits[alive]
        joins, stays = mine & ~theirs, theirs & ~mine
        a, b = np.bitwise_count(joins), np.bitwise_count(stays)
        gain, loss = self._share[0, a, b] * self._counted[alive], self._share[1, a, b] * self._counted[alive]
        found = np.zeros((self._players, self._weight.shape[1]))
        for side, share in ((joins, gain), (stays, -loss)):
            added = self._weight[leaf] * share[:, None]
            for bit in range(self._members.shape[1]):
                touched = np.flatnonzero(side & np.uint32(1 << bit))
                member = self._members[leaf[touched], bit]
                for output in range(found.shape[1]):
                    found[:, output] += np.bincount(member, added[touched, output], minlength=self._players)
        return found

    def _collect_paths(self) -> None:
        """For every leaf below a split: the splits on its path, which player each belongs to, and on which side."""
        trees = self._trees
        children, owner = trees.children.tolist(), self._player_of[trees.feature].tolist()
        leaves: list[int] = []
        members: list[list[int]] = []
        starts: list[int] = []
        nodes: list[int] = []
        sides: list[bool] = []
        bits: list[int] = []
        open_nodes: list[tuple[int, list[tuple[int, bool]]]] = [(root, []) for root in trees.roots.tolist()]
        while open_nodes:
            node, path = open_nodes.pop()
            true, false = children[node]
            if true >= 0:
                open_nodes += [(true, [*path, (node, True)]), (false, [*path, (node, False)])]
            elif path:
                seen: dict[int, int] = {}
                starts.append(len(nodes))
                for step, side in path:
                    nodes.append(step)
                    sides.append(side)
                    bits.append(1 << seen.setdefault(owner[step], len(seen)))
                leaves.append(node)
                members.append(list(seen))
                if len(nodes) > MOST_EDGES or len(seen) > MOST_PLAYERS:
                    raise NotAdditiveError("its trees are too large for exact contributions")
        if not leaves:
            raise NotAdditiveError("its trees have no split")
        self._starts, self._nodes = np.array(starts), np.array(nodes, dtype=np.int32)
        self._sides, self._edge_bits = np.array(sides), np.array(bits, dtype=np.uint32)
        self._weight = trees.weights[leaves]
        self._members = np.zeros((len(leaves), max(map(len, members))), dtype=np.int32)
        for place, found in enumerate(members):
            self._members[place, : len(found)] = found
        self._full = np.array([(1 << len(found)) - 1 for found in members], dtype=np.uint32)

    def _satisfied(self, matrix: NDArray[np.float32]) -> NDArray[np.uint32]:
        """For each row and leaf, a bit for each player that satisfies all its splits there; shape (rows, leaves)."""
        trees, inputs = self._trees, self._trees.inputs.of(matrix)
        found = np.empty((len(matrix), len(self._starts)), dtype=np.uint32)
        for place, row in enumerate(inputs):
            value = row[trees.feature]
            goes_true = (value <= trees.threshold) | (np.isnan(value) & trees.missing_true)
            failed = np.where(goes_true[self._nodes] == self._sides, np.uint32(0), self._edge_bits)
            found[place] = self._full & ~np.bitwise_or.reduceat(failed, self._starts)
        return found

    def _count_background(self, background: NDArray[np.float32]) -> None:
        """For each leaf, the different bits of the background rows, and the share of rows that have them."""
        satisfied = self._satisfied(background)
        leaf, bits, counted = [], [], []
        for start in range(0, satisfied.shape[1], BLOCK):
            block = satisfied[:, start : start + BLOCK].astype(np.uint64)
            keys = block | (np.arange(start, start + block.shape[1], dtype=np.uint64) << np.uint64(32))
            found, rows = np.unique(keys, return_counts=True)
            leaf.append((found >> np.uint64(32)).astype(np.int32))
            bits.append((found & np.uint64(0xFFFFFFFF)).astype(np.uint32))
            counted.append(rows / len(background))
        self._leaf, self._bits, self._counted = np.concatenate(leaf), np.concatenate(bits), np.concatenate(counted)
        self._complete = self._full[self._leaf]
