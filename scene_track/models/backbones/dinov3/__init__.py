"""The DINOv3 family (arXiv:2508.10104): vision transformers and ConvNeXts of one teacher."""

from scene_track.models.backbones.dinov3.networks import DinoV3, DinoV3ConvNeXt

__all__ = ["DinoV3", "DinoV3ConvNeXt"]
