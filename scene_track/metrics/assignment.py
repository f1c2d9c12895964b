"""The best one-to-one assignment in every frame of a sequence, with few calls of a solver.

Special here: in most groups of overlapping boxes the answer can be read off. When the best partner
of every row is strictly best and no two rows want the same partner, the sum of the row maxima is
an upper bound that is reached, by this assignment alone; the same holds for columns. Only frames
with a group that is decided neither way, ties included, go to scipy's exact solver, as the whole
matrix and in the order of the file, so that ties fall as they do in a loop over frames.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize  # pyright: ignore[reportMissingTypeStubs]
from scipy.sparse import coo_array, csgraph  # pyright: ignore[reportMissingTypeStubs]

from scene_track.metrics.similarity import FloatArray, IntArray, Overlaps

__all__ = ["assign_frames", "best_pairs", "solve_dense"]

# How much better than the runner-up a partner must be to be called strictly best. Far above the
# rounding of the solver's own sums, far below any difference that means something.
_MARGIN = 1e-9


def assign_frames(overlaps: Overlaps, scores: FloatArray) -> NDArray[np.bool_]:
    """Pick the pairs of the assignment that maximises the summed score of each frame.

    Args:
        overlaps: the pairs of a sequence, K of them.
        scores: ``[K]`` score of each pair, >= 0; all other pairs of a frame score 0.

    Returns:
        ``[K]`` True for the pairs of the best assignment. Pairs of score 0 are never in it.
    """
    picked, group_of_pair, decided = _decide_by_maxima(overlaps, scores)
    open_pairs = np.flatnonzero(~decided[group_of_pair])
    if len(open_pairs) == 0:
        return picked
    pair_frames = overlaps.pair_frames
    frames = np.unique(pair_frames[open_pairs])
    starts = np.searchsorted(pair_frames, frames, side="left")
    stops = np.searchsorted(pair_frames, frames, side="right")
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        rows, columns, shape = overlaps.in_frame(overlaps.gt[start:stop], overlaps.pred[start:stop])
        picked[start:stop] = solve_dense(rows, columns, scores[start:stop], shape)
    return picked


def solve_dense(
    rows: IntArray, columns: IntArray, scores: FloatArray, shape: tuple[int, int]
) -> NDArray[np.bool_]:
    """``[K]`` True for the pairs with a score > 0 in one best assignment of a ``shape`` matrix.

    Args:
        rows: ``[K]`` row of each pair.
        columns: ``[K]`` column of each pair.
        scores: ``[K]`` score of each pair; the rest of the matrix is 0.
        shape: size of the whole matrix, with the rows and columns that no pair names.
    """
    dense = np.zeros(shape)
    dense[rows, columns] = scores
    best_rows, best_columns = best_pairs(dense)
    partner = np.full(shape[0], -1)
    partner[best_rows] = best_columns
    return (partner[rows] == columns) & (scores > 0)


def _decide_by_maxima(
    overlaps: Overlaps, scores: FloatArray
) -> tuple[NDArray[np.bool_], IntArray, NDArray[np.bool_]]:
    """Pairs picked in the decided groups, the group of each pair, and which groups are decided."""
    num_gt, num_pred = len(overlaps.gt_frames), len(overlaps.pred_frames)
    nodes = num_gt + num_pred
    graph = coo_array(
        (np.ones(len(scores), dtype=np.int8), (overlaps.gt, overlaps.pred + num_gt)),
        shape=(nodes, nodes),
    )
    # scipy has no type stubs
    found: Any = csgraph.connected_components(graph, directed=False)  # pyright: ignore
    num_groups, group_of_node = found
    group_of_pair = group_of_node[overlaps.gt]

    picked = np.zeros(len(scores), dtype=bool)
    decided = np.zeros(num_groups, dtype=bool)
    sides = (
        (overlaps.gt, num_gt, overlaps.pred, num_pred),
        (overlaps.pred, num_pred, overlaps.gt, num_gt),
    )
    for own, num_own, other, num_other in sides:
        best = np.zeros(num_own)
        np.maximum.at(best, own, scores)
        is_best = scores == best[own]
        second = np.zeros(num_own)
        rest = ~is_best
        np.maximum.at(second, own[rest], scores[rest])
        strict = best - second > _MARGIN
        # A row with two equal maxima has no strictly best one, and "second" does not see it.
        strict &= np.bincount(own[is_best], minlength=num_own) == 1
        wanted = np.bincount(other[is_best], minlength=num_other)
        doubtful = ~strict[own] | (wanted[other] > 1)
        settled = np.ones(num_groups, dtype=bool)
        settled[group_of_pair[doubtful]] = False
        picked |= is_best & settled[group_of_pair]
        decided |= settled
    return picked, group_of_pair, decided


def best_pairs(scores: NDArray[Any]) -> tuple[IntArray, IntArray]:
    """Rows and columns of the one-to-one assignment with the largest sum of ``scores [N, M]``."""
    # scipy has no type stubs
    return optimize.linear_sum_assignment(scores, maximize=True)  # pyright: ignore
