"""Provisional."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class BallCounts:
    errors: np.ndarray
    gt: int
    tp4: int
    fp4: int
    fn4: int
    tpn: int
    fpn: int
    fnn: int
    vis: int
    frames: int

    @classmethod
    def zero(cls):
        return cls(np.zeros(0), *[0] * 9)

    def __add__(s, o):
        return BallCounts(
            np.concatenate((s.errors, o.errors)),
            *[
                getattr(s, n) + getattr(o, n)
                for n in ("gt", "tp4", "fp4", "fn4", "tpn", "fpn", "fnn", "vis", "frames")
            ],
        )


def count_ball(truth, pred, size):
    known = truth[:, 2] >= 0
    truth = truth[known]
    pred = pred[known]
    g = truth[:, 2] > 0
    p = pred[:, 2] > 0
    e = np.linalg.norm(truth[:, :2] - pred[:, :2], axis=1)
    en = np.linalg.norm(
        (truth[:, :2] - pred[:, :2]) * np.array([512 / size[1], 288 / size[0]]), axis=1
    )

    def c(e):
        tp = int((g & p & (e <= 4)).sum())
        return tp, int((p & ~(g & (e <= 4))).sum()), int((g & ~p).sum())

    return BallCounts(
        np.where(p, e, np.inf)[g], int(g.sum()), *c(e), *c(en), int((g == p).sum()), len(g)
    )


def ball_metrics(c):
    d = {f"pck_{k}": float((c.errors <= k).mean()) if c.gt else 0.0 for k in (2, 4, 5, 10)}
    f = c.errors[np.isfinite(c.errors)]
    d["l2_mean"] = float(f.mean()) if len(f) else float("inf")
    d["l2_median"] = float(np.median(f)) if len(f) else float("inf")
    for n, tp, fp, fn in (("wasb", c.tp4, c.fp4, c.fn4), ("tracknetv3", c.tpn, c.fpn, c.fnn)):
        pr = tp / max(1, tp + fp)
        re = tp / max(1, tp + fn)
        d |= {f"precision_{n}": pr, f"recall_{n}": re, f"f1_{n}": 2 * pr * re / max(1e-9, pr + re)}
    d["visibility_accuracy"] = c.vis / max(1, c.frames)
    return d
