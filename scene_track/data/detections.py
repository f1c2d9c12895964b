"""Detections from files: the boxes of any detector, one text file per sequence, without images.

A file is ``<sequence>.txt`` with rows ``frame,-1,left,top,width,height,score[,...]`` in pixels,
frames counted from 1, scores 0-1, as MOTChallenge has them. What would be trained on in silence is
refused: a file of another sequence, image size or frame count. Where there are no files, ground
truth with stated errors (``data/noise.py``) stands in.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scene_track.data.boxes import pairwise_iou, to_relative
from scene_track.data.mot_files import BoxTable, parse_boxes
from scene_track.data.noise import EXACT, LabelledFrame, Noise, fit_noise, observe
from scene_track.data.seqinfo import SequenceInfo
from scene_track.data.video import Video
from scene_track.io.tables import fault_message, first_few

log = logging.getLogger(__name__)

NOISE = "noise"
"""In place of a folder: ground truth with errors stands in for detections."""

TRUTH = "truth"
"""In place of a folder: the ground truth itself."""

_COLUMNS = (7, 10)  # fewest and most of a row
_CHECKED = 200  # frames that are compared with the ground truth
_FITTED = 400  # frames per video that noise is fitted to
_LEAST_OVERLAP = 0.2  # mean best IoU below which boxes are of another image size
_SHIFT_GAIN = 0.02  # IoU that a frame earlier or later may be better by


@dataclass(frozen=True, eq=False)
class BoxVideo:
    """A video as boxes alone: its ground truth and its detections, ready to be cut into clips.

    Attributes:
        video: with the exact ground truth.
        true: ``[R, 4]`` float64 cxcywh, 0-1 of the image; rows are those of ``video.table``.
        table: detections, rows sorted by frame; None where noise stands in.
        seen: ``[D, 4]`` float64 cxcywh, 0-1, of ``table``.
        noise: errors that are drawn anew for every clip; None with a table.
    """

    video: Video
    true: NDArray[np.float64]
    table: BoxTable | None
    seen: NDArray[np.float64]
    noise: Noise | None

    @classmethod
    def of(cls, video: Video, source: BoxTable | Noise) -> BoxVideo:
        """The video with detections of a file, or with noise."""
        true = to_relative(video.table.boxes, video.info.size)
        if isinstance(source, Noise):
            return cls(video, true, None, np.zeros((0, 4)), source)
        first, last = int(video.frames[0]), int(video.frames[-1])
        table = source.between(first, last)
        return cls(video, true, table, to_relative(table.boxes, video.info.size), None)

    def detections(
        self, position: int, random: np.random.Generator | None = None
    ) -> NDArray[np.float64]:
        """What is detected in a frame.

        Args:
            position: index into ``video.frames``.
            random: draws the errors, where noise stands in.

        Returns:
            ``[Q, 5]`` cxcywh, 0-1 of the image, and score.
        """
        if self.table is not None:
            frame = self.video.frames[position]
            start, stop = np.searchsorted(self.table.frames, (frame, frame + 1))
            scores = self.table.confidence[start:stop, None]
            return np.concatenate((self.seen[start:stop], scores), axis=1)
        assert self.noise is not None and random is not None
        rows = self.video.rows(position)
        found = observe(self.true[rows], self.video.labels[rows], self.true, self.noise, random)
        return np.concatenate((found.boxes, found.scores[:, None]), axis=1)


def read_box_videos(
    videos: Sequence[Video], source: str, *, root: Path, noise: Noise | None = None
) -> list[BoxVideo]:
    """The videos with their detections, checked.

    Args:
        videos: with ground truth where they have any.
        source: folder of the files, ``noise`` or ``truth``.
        root: folder of the sequences, or of their split folders: a file may be of any of them.
        noise: error rates of ``noise``; None = those of ``Noise()``.

    Raises:
        FileNotFoundError: the folder or the file of a sequence is missing.
        ValueError: wrong content, with what was found and what to type.
    """
    if source in (NOISE, TRUTH):
        bare = [video.name for video in videos if not video.labelled]
        if bare:
            raise ValueError(
                f"{first_few(bare)}: no {videos[0].label_file}, from which"
                f" dataset.detections={source} makes detections: type dataset.detections=FOLDER"
            )
        chosen = EXACT if source == TRUTH else noise or Noise()
        log.info("detections of %d videos: ground truth, %s", len(videos), chosen)
        return [BoxVideo.of(video, chosen) for video in videos]
    folder = Path(source)
    known = {f.parent.name for p in ("*", "*/*") for f in root.glob(f"{p}/seqinfo.ini")}
    known |= {video.folder.name for video in videos}
    files = _find_files(folder, videos, known)
    infos = {video.folder.name: video.info for video in videos}
    tables = {name: read_detections(file, infos[name]) for name, file in files.items()}
    result = [BoxVideo.of(video, tables[video.folder.name]) for video in videos]
    for box_video in result:
        _check_against_truth(box_video, files[box_video.video.folder.name])
    log.info(
        "%s: %d detections in %d videos",
        *(folder, sum(len(table) for table in tables.values()), len(videos)),
    )
    return result


def noise_of(videos: Iterable[BoxVideo]) -> Noise:
    """The error rates of the detector whose files these videos have.

    Raises:
        ValueError: no detection is on anybody.
    """
    frames: list[LabelledFrame] = []
    for box_video in videos:
        if box_video.table is None:
            continue
        count = len(box_video.video)
        for position in np.unique(np.linspace(0, count - 1, _FITTED).astype(int)).tolist():
            found = box_video.detections(position)
            true = box_video.true[box_video.video.rows(position)]
            frames.append(LabelledFrame(true, found[:, :4], found[:, 4]))
    return fit_noise(frames)


def _find_files(folder: Path, videos: Sequence[Video], known: set[str]) -> dict[str, Path]:
    """The file of every video by the name of its sequence."""
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "no such folder"
        raise FileNotFoundError(
            f"dataset.detections={folder}: {what}; type dataset.detections=FOLDER with one"
            f" <sequence>.txt for each sequence, or dataset.detections={NOISE}"
        )
    found = {f.stem: f for f in sorted(folder.glob("*.txt")) if not f.name.startswith(".")}
    names = dict.fromkeys(video.folder.name for video in videos)
    missing = [f"{name}.txt" for name in names if name not in found]
    if missing:
        there = first_few([f.name for f in found.values()]) or "no .txt file"
        raise FileNotFoundError(
            f"dataset.detections={folder}: no file for {len(missing)} of {len(names)} sequences:"
            f" {first_few(missing)}; it holds {there}; type"
            " dataset.detections=FOLDER, noise or truth; an empty file says that nothing was found"
        )
    foreign = [f.name for name, f in found.items() if name not in known]
    if foreign:
        raise ValueError(
            f"dataset.detections={folder}: {first_few(foreign)} of no sequence that exists, such"
            f" as {first_few(sorted(known), 3)}; rename or move the file"
        )
    return {name: found[name] for name in names}


def read_detections(file: Path, info: SequenceInfo) -> BoxTable:
    """The rows ``frame,-1,left,top,width,height,score[,...]``, boxes in pixels, sorted by frame.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: its content is wrong, or of another video than ``info`` is of.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file, expected detections of {info.name}")
    raw = file.read_bytes()
    _check_columns(file, raw)
    table, faults = parse_boxes(raw, kind="detections")
    if faults:
        lines = raw.decode(errors="replace").split()
        from_0 = any(line.startswith(("0,", "0.0,")) for line in lines)
        advice = "; frames count from 1 here: add 1 to column 1" if from_0 else ""
        raise ValueError(fault_message(file, faults) + advice)
    if not len(table):
        return table
    last = int(table.frames[-1])
    if last > info.last_frame:
        raise ValueError(
            f"{file}: rows of frames up to {last}, but {info.name} has frames"
            f" {info.first_frame}-{info.last_frame}; it is of another video, or of"
            " another rate"
        )
    low, high = table.confidence.min(), table.confidence.max()
    if low < 0 or high > 1:
        raise ValueError(
            f"{file}: scores (column 7) are {low:g} to {high:g}, expected 0-1; "
            + ("divide them by 100" if 1.5 < high <= 100 and low >= 0 else "apply a sigmoid")
        )
    centre = to_relative(table.boxes, info.size)[:, :2]
    outside = float(((centre < 0) | (centre > 1)).any(axis=1).mean())
    if outside > 0.5:
        raise ValueError(
            f"{file}: {outside:.0%} of the boxes are centred outside the image of {info.width}x"
            f"{info.height} pixels: they are of another image size; type the file of this video"
        )
    return table


def _check_columns(file: Path, raw: bytes) -> None:
    """Refuse rows without a score, or with more columns than any layout has."""
    first = next((line for line in raw.decode("utf-8-sig", "replace").splitlines() if line), "")
    count = first.count(",") + 1 if first else _COLUMNS[0]
    if not _COLUMNS[0] <= count <= _COLUMNS[1]:
        raise ValueError(
            f"{file}: {count} columns separated by commas, expected {_COLUMNS[0]} to {_COLUMNS[1]}:"
            " frame,-1,left,top,width,height,score, then -1,-1,-1 or nothing"
        )
    if count == 9:  # frame, id, box, flag, class, visibility
        log.warning("%s has nine columns, as ground truth has: column 7 is read as the score", file)


def _check_against_truth(box_video: BoxVideo, file: Path) -> None:
    """Refuse boxes of another image size, and frames that are counted from elsewhere.

    Compared is the best overlap of each true box, averaged over some frames.
    """
    video = box_video.video
    if not len(video.table) or box_video.table is None or not len(box_video.table):
        return
    positions = np.linspace(1, len(video) - 2, _CHECKED).astype(int) if len(video) > 2 else [0]
    offsets = (0, -1, 1) if len(video) > 2 else (0,)
    sums = dict.fromkeys(offsets, 0.0)
    people = 0
    for position in np.unique(positions).tolist():
        true = box_video.true[video.rows(position)]
        people += len(true)
        for offset in offsets:
            found = box_video.detections(position + offset)[:, :4]
            if len(true) and len(found):
                sums[offset] += float(pairwise_iou(true, found).max(axis=1).sum())
    overlap = {offset: total / max(people, 1) for offset, total in sums.items()}
    if people and overlap[0] < _LEAST_OVERLAP:
        reach = (box_video.table.boxes[:, :2] + box_video.table.boxes[:, 2:]).max(axis=0)
        raise ValueError(
            f"{file}: mean best IoU with the ground truth of {video.name} is {overlap[0]:.2f};"
            f" boxes reach to {reach[0]:.0f},{reach[1]:.0f} in an image of {video.info.width}x"
            f"{video.info.height} (seqinfo.ini): they are of another image size, of another video,"
            " or not left,top,width,height"
        )
    better = max(overlap, key=lambda offset: overlap[offset])
    if overlap[better] > overlap[0] + _SHIFT_GAIN:
        counted = "from 0: add 1 to" if better < 0 else "from 2: subtract 1 from"
        raise ValueError(
            f"{file}: the ground truth overlaps the boxes of the frame"
            f" {'before' if better < 0 else 'after'} more (IoU {overlap[better]:.2f}) than its own"
            f" ({overlap[0]:.2f}); frames seem to be counted {counted} column 1"
        )
