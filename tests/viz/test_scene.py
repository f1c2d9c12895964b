"""The contact sheet of a validation run: which frames are on it, and what is marked."""

from __future__ import annotations

import numpy as np
import pytest

from scene_track.viz.scene import SceneVisualiser, match_boxes

BOX = [[0.5, 0.5, 0.3, 0.5]]


def sheet(max_frames: int) -> SceneVisualiser:
    return SceneVisualiser(max_frames=max_frames, columns=2, panel_width=448)


def offer(visualiser: SceneVisualiser, count: int) -> None:
    for n in range(count):
        image = np.full((64, 112, 3), n % 256, np.uint8)
        visualiser.add_frame(image, (BOX, [1], [0.9]), (BOX, [4]), f"clip frame {n + 1}")


def shown(visualiser: SceneVisualiser, monkeypatch) -> list[int]:
    """Frame numbers on the sheet, read from the captions that reach it."""
    captions: list[str] = []

    def spy(frames, columns, texts, header):
        captions.extend(texts)
        return frames[0]

    monkeypatch.setattr("scene_track.viz.sheet.contact_sheet", spy)
    visualiser.picture()
    return [int(caption.split("frame ")[1].split()[0]) for caption in captions]


@pytest.mark.parametrize("count", [1, 3, 8, 9, 60, 1000])
def test_frames_are_few_and_evenly_spread(count: int, monkeypatch) -> None:
    visualiser = sheet(8)
    offer(visualiser, count)
    numbers = shown(visualiser, monkeypatch)
    assert len(numbers) == min(count, 8) == len(visualiser)
    assert len(visualiser._kept) <= 4 * 8  # memory is bounded
    assert numbers == sorted(set(numbers))
    if count > 8:
        gaps = np.diff([*numbers, count])[:-1]
        assert numbers[0] <= count / 8
        assert numbers[-1] > 0.85 * count
        assert gaps.max() <= 2 * gaps.min()


def test_sheet_shape_and_reset() -> None:
    visualiser = sheet(3)
    with pytest.raises(ValueError, match="no frames"):
        visualiser.picture()
    offer(visualiser, 3)
    image = visualiser.picture()
    assert image.dtype == np.uint8 and image.ndim == 3
    # two pairs of 448-pixel panels and their gaps
    assert image.shape[1] == 2 * (2 * 448 + 4) + 3 * 8
    visualiser.reset()
    assert len(visualiser) == 0


def test_the_caller_may_reuse_its_buffers() -> None:
    image = np.full((64, 112, 3), 50, np.uint8)
    boxes = np.array(BOX)
    visualiser = sheet(1)
    visualiser.add_frame(image, (boxes, [1], [0.9]), (boxes, [4]), "frame 1")
    before = visualiser.picture()
    image[:], boxes[:] = 0, 0
    assert np.array_equal(visualiser.picture(), before)


def test_empty_frames_can_be_shown() -> None:
    visualiser = sheet(1)
    nothing = np.zeros((0, 4))
    visualiser.add_frame(np.zeros((64, 112, 3), np.uint8), (nothing, [], []), ([], []), "frame 1")
    assert visualiser.picture().shape[2] == 3


def test_misses_and_false_boxes_are_told_apart() -> None:
    true_boxes = np.array([[0.2, 0.5, 0.2, 0.4], [0.7, 0.5, 0.2, 0.4]])
    boxes = np.array([[0.7, 0.52, 0.2, 0.4], [0.71, 0.5, 0.2, 0.4], [0.45, 0.5, 0.2, 0.4]])
    hit, found = match_boxes(boxes, true_boxes)
    assert hit.sum() == 1 and not hit[2]  # the duplicate is false
    assert found.tolist() == [False, True]


def test_pairing_prefers_counting_pairs() -> None:
    # box 0 fits both true boxes, box 1 only the first: both must find a partner
    true_boxes = np.array([[0.50, 0.5, 0.4, 0.4], [0.58, 0.5, 0.4, 0.4]])
    boxes = np.array([[0.53, 0.5, 0.4, 0.4], [0.44, 0.5, 0.4, 0.4]])
    hit, found = match_boxes(boxes, true_boxes)
    assert hit.all() and found.all()
