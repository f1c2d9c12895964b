"""The neck: whatever levels a backbone gives, the maps at the strides that the model asks for.

A feature pyramid network (FPN; Lin et al., CVPR 2017): 1x1 laterals to one width, a top-down path
of nearest up-sampling and addition, a 3x3 convolution on what is handed out, group norm throughout.
Two things are special:

* Where the backbone's coarsest level is already the coarsest map that is asked for, there is
  nothing to fuse: the levels go through as they are and the neck has no parameters.
* A stride that the backbone lacks (8, of a ViT with stride 16) is made by a transposed convolution,
  as in the simple feature pyramid of ViTDet (Li et al., ECCV 2022, section 3), or comes from a
  convolutional branch beside the backbone (``SideBranch``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from scene_track.models.side_branch import SideBranch

_FINEST_FOR_PROPOSALS = 8


def group_norm(dim: int) -> nn.GroupNorm:
    """Group norm of 16 channels a group, as everywhere after the backbone."""
    return nn.GroupNorm(max(1, dim // 16), dim)


class FeaturePyramid(nn.Module):
    """Feature maps of a backbone to maps at chosen strides.

    Attributes:
        stride: of the map that dense proposals work on.
        sample_stride: of the map that the decoder samples; ``stride`` or finer.
        out_strides: strides of the maps handed out, finest first: ``(stride,)`` or
            ``(sample_stride, stride)``.
        out_dims: their channels.
    """

    def __init__(
        self,
        *,
        dims: Sequence[int],
        strides: Sequence[int],
        dim: Annotated[int, Field(ge=16, multiple_of=16)],
        stride: Annotated[int, Field(ge=1)] | None,
        sample_stride: Annotated[int, Field(ge=1)] | None,
        side_channels: Annotated[list[Annotated[int, Field(ge=2)]], Field(min_length=1)] | None,
    ) -> None:
        """Build what lies between these levels and the maps that are asked for.

        Options: see ``model.neck`` in ``conf/model/scene.yaml``. ``dims`` and ``strides`` are those
        of the backbone's levels, finest first, each stride a power of two times the one before.

        Raises:
            ValueError: a stride that cannot be made from these levels, or one that both the
                backbone and the branch have.
        """
        super().__init__()
        self.backbone_strides = tuple(strides)
        self.side = SideBranch(side_channels) if side_channels else None
        widths = dict(zip(strides, dims, strict=True))
        if self.side is not None:
            if twice := set(self.side.strides) & set(strides):
                raise ValueError(
                    f"model.neck.side_channels: the backbone has stride {min(twice)} already;"
                    " leave the branch out (null), or give it fewer channels"
                )
            widths |= dict(zip(self.side.strides, self.side.dims, strict=True))
        levels = sorted(widths)
        coarse_enough = [s for s in levels if s >= _FINEST_FOR_PROPOSALS]
        self.stride = stride or (coarse_enough or levels[-1:])[0]
        self.sample_stride = sample_stride or min(levels[0], self.stride)
        self._check(levels[-1])
        self.out_strides = tuple(sorted({self.sample_stride, self.stride}))
        self.passes = levels[-1] == self.stride and set(self.out_strides) <= set(levels)
        if self.passes:
            self.out_dims = tuple(widths[s] for s in self.out_strides)
        else:
            self.out_dims = (dim,) * len(self.out_strides)
            self._build_path(widths, dim)

    def _build_path(self, widths: dict[int, int], dim: int) -> None:
        """Laterals where there are levels, up-sampling where there are none, smoothing at the end.

        Args:
            widths: channels per stride.
            dim: of the fused maps.
        """
        # coarsest first: the way of the top-down path
        self._path = [max(widths)]
        while self._path[-1] > self.out_strides[0]:
            self._path.append(self._path[-1] // 2)
        self.laterals, self.ups, self.smooth = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        for s in self._path:
            if s in widths:
                lateral = nn.Conv2d(widths[s], dim, 1, bias=False)
                self.laterals[str(s)] = nn.Sequential(lateral, group_norm(dim))
            else:
                up = nn.ConvTranspose2d(dim, dim, 2, 2, bias=False)
                self.ups[str(s)] = nn.Sequential(up, group_norm(dim), nn.GELU())
            if s in self.out_strides:
                smooth = nn.Conv2d(dim, dim, 3, padding=1, bias=False)
                self.smooth[str(s)] = nn.Sequential(smooth, group_norm(dim))

    def _check(self, coarsest: int) -> None:
        for name, value in (("stride", self.stride), ("sample_stride", self.sample_stride)):
            ratio = coarsest / value
            if ratio < 1 or not ratio.is_integer() or int(ratio) & (int(ratio) - 1):
                raise ValueError(
                    f"model.neck.{name}={value}: the backbone's coarsest level has stride"
                    f" {coarsest}; expected {coarsest} divided by a power of two"
                )
        if self.sample_stride > self.stride:
            raise ValueError(
                f"model.neck.sample_stride={self.sample_stride} is coarser than the proposals'"
                f" stride {self.stride}; expected at most that"
            )
        if self.side is not None and self.side.strides[-1] < self.sample_stride:
            raise ValueError(
                f"model.neck.side_channels: nothing looks at maps finer than stride"
                f" {self.sample_stride}; leave the branch out (null), or type"
                f" model.neck.sample_stride={self.side.strides[0]}"
            )

    def forward(self, levels: Sequence[Tensor], images: Tensor | None = None) -> tuple[Tensor, ...]:
        """Levels of a backbone to the maps.

        Args:
            levels: ``[N, dims[i], h_i, w_i]``, as the backbone gives them.
            images: normalised images ``[N, 3, H, W]``; needed with a side branch only.

        Returns:
            One map per stride of ``out_strides``.
        """
        given = dict(zip(self.backbone_strides, levels, strict=True))
        if self.side is not None:
            assert images is not None
            given |= dict(zip(self.side.strides, self.side(images), strict=True))
        if self.passes:
            return tuple(given[s] for s in self.out_strides)
        x = self.laterals[str(self._path[0])](given[self._path[0]])
        fused = {self._path[0]: x}
        for s in self._path[1:]:
            if s in given:
                lateral = self.laterals[str(s)](given[s])
                x = lateral + F.interpolate(x.to(lateral.dtype), size=lateral.shape[-2:])
            else:
                x = self.ups[str(s)](x)
            fused[s] = x
        return tuple(self.smooth[str(s)](fused[s]) for s in self.out_strides)
