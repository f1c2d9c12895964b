"""Draws frames, clips, contact sheets and curves."""
