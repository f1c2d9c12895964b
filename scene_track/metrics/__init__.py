"""Tracking and detection metrics as pure functions over numpy arrays."""
