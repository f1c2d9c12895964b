"""The sizes of the DINOv3 family, as data: what is built, and what an official file must hold.

Every tensor of an official file follows from these few numbers, so a file is compared with its
size before any network is asked, and a file of another size can be called by its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

PATCH = 16
REGISTERS = 4
LICENCE_PAGE = "https://ai.meta.com/resources/models-and-libraries/dinov3-downloads/"

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class VitVariant:
    """One vision transformer.

    Attributes:
        name: as in the official file name and in ``model.backbone.variant``.
        sha: first eight hex digits of the official file's SHA-256 (LVD-1689M), part of its name.
        dim: width C.
        depth: blocks.
        heads: attention heads.
        hidden: width inside the feed-forward net.
        gated: SwiGLU instead of a plain feed-forward net.
    """

    name: str
    sha: str
    dim: int
    depth: int
    heads: int
    hidden: int
    gated: bool = False

    def official_shapes(self) -> Shapes:
        """Shape by key of the official state dict (188 keys of ViT-S/16)."""
        dim = self.dim
        shapes: Shapes = {
            "cls_token": (1, 1, dim),
            "storage_tokens": (1, REGISTERS, dim),
            "mask_token": (1, dim),
            **_linear("patch_embed.proj", dim, 3, PATCH, PATCH),
            "rope_embed.periods": (dim // self.heads // 4,),
            **_norm("norm", dim),
        }
        for index in range(self.depth):
            at = f"blocks.{index}"
            shapes |= {
                **_norm(f"{at}.norm1", dim),
                **_linear(f"{at}.attn.qkv", 3 * dim, dim),
                f"{at}.attn.qkv.bias_mask": (3 * dim,),
                **_linear(f"{at}.attn.proj", dim, dim),
                f"{at}.ls1.gamma": (dim,),
                **_norm(f"{at}.norm2", dim),
                f"{at}.ls2.gamma": (dim,),
            }
            if self.gated:
                shapes |= _linear(f"{at}.mlp.w1", self.hidden, dim)
                shapes |= _linear(f"{at}.mlp.w2", self.hidden, dim)
                shapes |= _linear(f"{at}.mlp.w3", dim, self.hidden)
            else:
                shapes |= _linear(f"{at}.mlp.fc1", self.hidden, dim)
                shapes |= _linear(f"{at}.mlp.fc2", dim, self.hidden)
        return shapes


@dataclass(frozen=True)
class ConvNeXtVariant:
    """One ConvNeXt.

    Attributes:
        name: as in the official file name; ``model.backbone.variant`` is its last part.
        sha: first eight hex digits of the official file's SHA-256 (LVD-1689M), part of its name.
        dims: channels at strides 4, 8, 16 and 32.
        depths: blocks at these strides.
    """

    name: str
    sha: str
    dims: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]

    def official_shapes(self) -> Shapes:
        """Shape by key of the official state dict; the last norm is in it twice."""
        dims = self.dims
        shapes: Shapes = {
            **_linear("downsample_layers.0.0", dims[0], 3, 4, 4),
            **_norm("downsample_layers.0.1", dims[0]),
            **_norm("norm", dims[3]),
            **_norm("norms.3", dims[3]),
        }
        for stage in range(1, 4):
            shapes |= _norm(f"downsample_layers.{stage}.0", dims[stage - 1])
            shapes |= _linear(f"downsample_layers.{stage}.1", dims[stage], dims[stage - 1], 2, 2)
        for stage, (dim, depth) in enumerate(zip(dims, self.depths, strict=True)):
            for index in range(depth):
                at = f"stages.{stage}.{index}"
                shapes |= {
                    f"{at}.gamma": (dim,),
                    **_linear(f"{at}.dwconv", dim, 1, 7, 7),
                    **_norm(f"{at}.norm", dim),
                    **_linear(f"{at}.pwconv1", 4 * dim, dim),
                    **_linear(f"{at}.pwconv2", dim, 4 * dim),
                }
        return shapes


Variant = VitVariant | ConvNeXtVariant


def _linear(key: str, *weight: int) -> Shapes:
    return {f"{key}.weight": weight, f"{key}.bias": weight[:1]}


def _norm(key: str, dim: int) -> Shapes:
    return {f"{key}.weight": (dim,), f"{key}.bias": (dim,)}


VITS = {
    variant.name: variant
    for variant in (
        VitVariant("vits16", "08c60483", 384, 12, 6, 1536),
        VitVariant("vits16plus", "4057cbaa", 384, 12, 6, 1536, gated=True),
        VitVariant("vitb16", "73cec8be", 768, 12, 12, 3072),
        VitVariant("vitl16", "8aa4cbdd", 1024, 24, 16, 4096),
    )
}
CONVNEXTS = {
    variant.name: variant
    for variant in (
        ConvNeXtVariant("convnext_tiny", "21b726bb", (96, 192, 384, 768), (3, 3, 9, 3)),
        ConvNeXtVariant("convnext_small", "296db49d", (96, 192, 384, 768), (3, 3, 27, 3)),
        ConvNeXtVariant("convnext_base", "801f2ba9", (128, 256, 512, 1024), (3, 3, 27, 3)),
    )
}


def official_file(variant: Variant) -> str:
    """Name of the file that Meta publishes."""
    return f"dinov3_{variant.name}_pretrain_lvd1689m-{variant.sha}.pth"


def identify(state: Mapping[str, Tensor]) -> str | None:
    """Which size a state dict with official keys seems to be; None if none of ours.

    The one whose keys and shapes agree with most of it, if they are nine in ten.
    """
    best, share = None, 0.9
    for variant in (*VITS.values(), *CONVNEXTS.values()):
        shapes = variant.official_shapes()
        agree = sum(tuple(state[key].shape) == shapes.get(key) for key in state)
        if agree / max(len(shapes), len(state)) > share:
            best, share = variant.name, agree / max(len(shapes), len(state))
    return best
