"""Drawn videos: they write real dataset folders, which the readers of ``data`` then read."""
