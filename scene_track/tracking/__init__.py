"""Predictions of a whole video to tracks, streaming, and the result files."""
