"""The fixtures of the data tests that a ball's tests use too."""

from tests.data.conftest import flight, make_clip, make_sequence, walking_gt

__all__ = ["flight", "make_clip", "make_sequence", "walking_gt"]
