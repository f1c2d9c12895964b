"""Matching, denoising queries and losses: predictions and targets in, scalars out."""
