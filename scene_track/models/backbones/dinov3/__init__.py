"""The DINOv3 family (arXiv:2508.10104): vision transformers and ConvNeXts of one teacher."""

from scene_track.models.backbones.dinov3.convnext import DinoV3ConvNeXt
from scene_track.models.backbones.dinov3.vit import DinoV3

__all__ = ["DinoV3", "DinoV3ConvNeXt"]
