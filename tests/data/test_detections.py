"""Detections from files: what is read, what is refused and why, and the noise that stands in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from scene_track.data.detections import noise_of, read_box_videos
from scene_track.data.noise import Beta, Noise, observe
from scene_track.data.video import MotFolder, Video
from tests.compose import shipped

LENGTH, WIDTH, HEIGHT = 60, 640, 480


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two sequences without images: three people who walk in different directions."""
    for name in ("a", "b"):
        folder = tmp_path / "gt" / name
        (folder / "gt").mkdir(parents=True)
        (folder / "seqinfo.ini").write_text(
            f"[Sequence]\nframeRate=20\nseqLength={LENGTH}\nimWidth={WIDTH}\nimHeight={HEIGHT}\n"
        )
        rows = [f"{f},{i},{x:.1f},{y:.1f},40,100,1,1,1" for f, i, x, y in walkers()]
        (folder / "gt" / "gt.txt").write_text("\n".join(rows))
    return tmp_path / "gt"


def walkers() -> list[tuple[int, int, float, float]]:
    """Frame, id, left and top; fast enough that a frame earlier is somewhere else."""
    return [
        (f, i, 60 + 150 * i + step * f, 80 + 60 * i + 2 * f)
        for f in range(1, LENGTH + 1)
        for i, step in ((0, 6.0), (1, -4.0), (2, 3.0))
    ]


def write(folder: Path, change: Callable[[list[float]], list[float]] = list, **names: str) -> Path:
    """A folder of detections; ``change`` edits each row frame,-1,left,top,width,height,score."""
    folder.mkdir(exist_ok=True)
    rows = [change([f, -1, x + 1, y - 1, 40, 100, 0.9]) for f, _, x, y in walkers()]
    text = "\n".join(",".join(f"{value:g}" for value in row) for row in rows)
    for name in names or {"a": "", "b": ""}:
        (folder / f"{name}.txt").write_text(text)
    return folder


def videos(root: Path, *names: str) -> list[Video]:
    reader = MotFolder(root=root, classes={1: "person"})
    return reader.sequences(list(names or ("a", "b")), images=False)


def test_boxes_are_relative_and_of_the_frame(root: Path, tmp_path: Path) -> None:
    found = read_box_videos(videos(root), str(write(tmp_path / "det")), root=root)
    frame = found[1].detections(9)
    assert frame.shape == (3, 5) and (frame[:, 4] == 0.9).all()
    left, top = 60 + 60 + 1, 80 + 20 - 1
    expected = ((left + 20) / WIDTH, (top + 50) / HEIGHT, 40 / WIDTH, 100 / HEIGHT)
    np.testing.assert_allclose(frame[0, :4], expected)


def test_a_part_of_a_sequence_reads_the_file_of_the_whole(root: Path, tmp_path: Path) -> None:
    (part,) = read_box_videos(videos(root, "a:11-20"), str(write(tmp_path / "det")), root=root)
    (whole,) = read_box_videos(videos(root, "a"), str(write(tmp_path / "det")), root=root)
    assert len(part.video) == 10
    np.testing.assert_array_equal(part.detections(0), whole.detections(10))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: [r[0] - 1, *r[1:]], "add 1 to column 1"),  # frames 0 to 59
        (lambda r: [r[0] + 60, *r[1:]], "1-60"),
        (lambda r: [*r[:6], r[6] * 100], "divide them by 100"),
        (lambda r: [*r[:6], -r[6]], "sigmoid"),
        (lambda r: [*r[:2], *(3 * v for v in r[2:6]), r[6]], "another image size"),
        (lambda r: [*r[:2], *(v / 2 for v in r[2:6]), r[6]], "another image size"),
        (lambda r: r[:6], "6 columns"),
        (lambda r: [*r, -1, -1, -1, -1], "11 columns"),
        (lambda r: [*r[:4], -r[4], *r[5:]], "width is -40"),
    ],
)
def test_wrong_files_are_refused_with_what_was_found(
    root: Path, tmp_path: Path, change: Callable[[list[float]], list[float]], words: str
) -> None:
    folder = write(tmp_path / "det", change)
    with pytest.raises(ValueError, match=words) as error:
        read_box_videos(videos(root), str(folder), root=root)
    assert "\n" not in str(error.value) and "a.txt" in str(error.value)


def test_frames_that_are_one_off_are_noticed_where_none_is_out_of_range(
    root: Path, tmp_path: Path
) -> None:
    folder = write(tmp_path / "det", lambda r: [max(r[0] - 1, 1), *r[1:]])
    with pytest.raises(ValueError, match="from 0: add 1 to column 1"):
        read_box_videos(videos(root), str(folder), root=root)


@pytest.mark.parametrize("more", [[], [-1.0], [-1.0, -1.0], [-1.0, -1.0, -1.0]])
def test_seven_to_ten_columns_are_read(root: Path, tmp_path: Path, more: list[float]) -> None:
    folder = write(tmp_path / "det", lambda r: [*r, *more])
    assert len(read_box_videos(videos(root), str(folder), root=root)[0].detections(0)) == 3


def test_files_and_sequences_must_go_together(root: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_box_videos(videos(root), str(tmp_path / "nowhere"), root=root)
    with pytest.raises(FileNotFoundError, match=r"b\.txt"):
        read_box_videos(videos(root), str(write(tmp_path / "one", a="")), root=root)
    with pytest.raises(ValueError, match=r"c\.txt"):
        read_box_videos(videos(root), str(write(tmp_path / "three", a="", b="", c="")), root=root)
    # A file of another split's sequence is fine.
    assert len(read_box_videos(videos(root, "a"), str(write(tmp_path / "two")), root=root)) == 1


def test_an_empty_file_says_that_nothing_was_found(root: Path, tmp_path: Path) -> None:
    folder = write(tmp_path / "det")
    (folder / "b.txt").write_text("")
    found = read_box_videos(videos(root), str(folder), root=root)
    assert found[1].detections(5).shape == (0, 5)


def test_noise_is_fitted_to_a_detector(root: Path, tmp_path: Path) -> None:
    wanted = Noise(0.2, 0.04, 1.5, Beta(12.0, 3.0), Beta(2.0, 6.0))
    sources = read_box_videos(videos(root), "noise", root=root, noise=wanted)
    folder = tmp_path / "det"
    folder.mkdir()
    random = np.random.default_rng(0)
    for source in sources:
        rows = []
        for position in range(LENGTH):
            for box in source.detections(position, random):
                x, y, w, h = box[:4] * (WIDTH, HEIGHT, WIDTH, HEIGHT)
                rows.append(f"{position + 1},-1,{x - w / 2},{y - h / 2},{w},{h},{box[4]}")
        (folder / f"{source.video.name}.txt").write_text("\n".join(rows))
    fitted = noise_of(read_box_videos(videos(root), str(folder), root=root))
    assert fitted.misses == pytest.approx(0.2, abs=0.06)
    assert fitted.jitter == pytest.approx(0.04, rel=0.15)
    assert fitted.false_positives == pytest.approx(1.5, rel=0.2)
    for found, true in (
        (fitted.true_scores, wanted.true_scores),
        (fitted.false_scores, wanted.false_scores),
    ):
        assert found.a / (found.a + found.b) == pytest.approx(true.a / (true.a + true.b), abs=0.04)


def test_a_detector_with_nms_reports_no_two_boxes_of_one_place(root: Path) -> None:
    exact = Noise(misses=0, jitter=0.01, false_positives=0, nms_iou=0.3)
    (video, *_) = read_box_videos(videos(root), "noise", root=root, noise=exact)
    twins = np.repeat(video.true[:1], 2, axis=0)
    assert len(video.detections(0, np.random.default_rng(0))) == 3
    found = observe(twins, np.zeros(2, dtype=np.int64), twins, exact, np.random.default_rng(0))
    assert len(found.boxes) == 1


def test_a_further_folder_joins_by_the_names_of_its_classes(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    for file in (root / "a").rglob("*.*"):
        copy = other / "c" / file.relative_to(root / "a")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(file.read_text().replace(",1,1,1", ",1,2,1"))  # class 2
    further = f"{{root: {other}, detections: noise, classes: {{2: person}}, weight: 2.0}}"
    data = shipped(
        "dataset", "input=boxes", "dataset=mot", f"dataset.root={root}", "dataset.train=[a]",
        "dataset.val=[b]", f"dataset.detections={write(tmp_path / 'det')}",
        "dataset.augment.reverse=0", "dataset.batch_size=1", f"dataset.further=[{further}]",
    )  # fmt: skip
    batches = list(data.train_dataloader())
    names = [batch.sequence_ids[0] for batch in batches]
    assert names.count("c") == 2 * names.count("a") > 0
    assert all(int(batch.labels[batch.valid].max()) == 0 for batch in batches)
    scores = {
        n: b.detections[b.detections[..., 4] >= 0][:, 4]
        for n, b in zip(names, batches, strict=True)
    }
    assert (scores["a"] - 0.9).abs().max() < 1e-6 and scores["c"].std() > 0

    def load(folder: str) -> None:
        data = shipped(
            "dataset", "input=boxes", "dataset=mot", f"dataset.root={root}", "dataset.train=[a]",
            "dataset.val=[b]", "dataset.detections=noise", f"dataset.further=[{folder}]",
        )  # fmt: skip
        data.train_dataloader()

    with pytest.raises(ValueError, match=r"dancer.*dataset\.further\[0\]\.classes"):
        load(further.replace("person", "dancer"))
    (other / "c" / "gt" / "gt.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"dataset\.further\[0\]\.train"):
        load(further)


def test_parts_of_a_mixed_dataset_are_images(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"dataset\.detections=null"):
        shipped(
            "dataset", "dataset=mixed", f"dataset.root={tmp_path}", "dataset.detections=noise",
            "dataset.source.parts.videos.train=[a]", "dataset.source.parts.videos.val=[b]",
        )  # fmt: skip
