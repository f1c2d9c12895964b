"""Backbones, encoders, decoders and heads: tensors in, ``Predictions`` out."""
