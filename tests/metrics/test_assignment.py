"""The short ways of assignment against the solver on every frame."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from scene_track.metrics import assignment
from scene_track.metrics.assignment import assign_frames
from scene_track.metrics.similarity import Overlaps


def overlaps_of(frames: list[np.ndarray]) -> tuple[Overlaps, np.ndarray]:
    """Pairs and scores of dense score matrices, one per frame."""
    num_gt, num_pred = [len(m) for m in frames], [m.shape[1] for m in frames]
    gt, pred, scores = [], [], []
    for number, matrix in enumerate(frames):
        rows, columns = np.nonzero(matrix)
        gt.append(rows + sum(num_gt[:number]))
        pred.append(columns + sum(num_pred[:number]))
        scores.append(matrix[rows, columns])
    overlaps = Overlaps(
        gt_frames=np.repeat(np.arange(len(frames)), num_gt),
        gt_tracks=np.zeros(sum(num_gt), dtype=np.int64),
        pred_frames=np.repeat(np.arange(len(frames)), num_pred),
        pred_tracks=np.zeros(sum(num_pred), dtype=np.int64),
        num_frames=len(frames),
        num_gt_tracks=1,
        num_pred_tracks=1,
        gt=np.concatenate(gt),
        pred=np.concatenate(pred),
        iou=np.concatenate(scores),
    )
    return overlaps, overlaps.iou


@given(
    seed=st.integers(0, 2**32 - 1),
    levels=st.sampled_from([2, 4, 1000]),  # few levels: many exact ties
    density=st.sampled_from([0.1, 0.3, 0.9]),
)
@settings(max_examples=150, deadline=None)
def test_equal_to_the_solver_on_every_frame(seed: int, levels: int, density: float) -> None:
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(4):
        shape = tuple(rng.integers(0, 7, 2))
        values = rng.integers(1, levels, shape, endpoint=True) / levels
        frames.append(np.where(rng.random(shape) < density, values, 0.0))
    overlaps, scores = overlaps_of(frames)
    expected = []
    for matrix in frames:
        chosen = np.zeros(matrix.shape, dtype=bool)
        chosen[linear_sum_assignment(-matrix)] = True
        expected.append(chosen[np.nonzero(matrix)])
    assert assign_frames(overlaps, scores).tolist() == np.concatenate(expected).tolist()


def test_separate_pairs_need_no_solver(monkeypatch) -> None:
    def no_solver(*_args: object) -> None:
        raise AssertionError("the solver was called")

    monkeypatch.setattr(assignment, "solve_dense", no_solver)
    contested = np.array([[0.9, 0.5, 0.0], [0.4, 0.8, 0.0], [0.0, 0.0, 0.1]])
    picked = assign_frames(*overlaps_of([contested, np.eye(3)]))
    assert picked.tolist() == [True, False, False, True, True] + [True] * 3
