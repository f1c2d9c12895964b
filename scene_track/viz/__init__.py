"""Boxes, identities and trails drawn on frames."""
