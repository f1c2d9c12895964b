"""The neck: whatever levels a backbone gives, the maps at the strides that the model asks for.

A feature pyramid network (FPN; Lin et al., CVPR 2017): 1x1 laterals to one width, a top-down path
of nearest up-sampling and addition, a 3x3 convolution on what is handed out, group norm throughout.
Two things are special:

* Where the backbone's coarsest level is already the coarsest map that is asked for, there is
  nothing to fuse: the levels go through as they are and the neck has no parameters.
* A stride that the backbone lacks (8, of a ViT with stride 16) is made by a transposed convolution,
  as in the simple feature pyramid of ViTDet (Li et al., ECCV 2022, section 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

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
        dim: Annotated[int, Field(ge=16, multiple_of=4)],
        stride: Annotated[int, Field(ge=1)] | None = None,
        sample_stride: Annotated[int, Field(ge=1)] | None = None,
    ) -> None:
        """Build what lies between these levels and the maps that are asked for.

        Args:
            dims: channels of the backbone's levels, finest first.
            strides: their strides, each a power of two times the one before.
            dim: width of the fused maps.
            stride: of the map for dense proposals; None takes the backbone's finest level of stride
                8 or more.
            sample_stride: of the map that the decoder samples; None takes the backbone's finest
                level.

        Raises:
            ValueError: a stride that cannot be made from these levels.
        """
        super().__init__()
        coarse_enough = [s for s in strides if s >= _FINEST_FOR_PROPOSALS]
        self.stride = stride or (coarse_enough or [strides[-1]])[0]
        self.sample_stride = sample_stride or min(strides[0], self.stride)
        self._check(strides)
        self.out_strides = tuple(sorted({self.sample_stride, self.stride}))
        self.in_strides = tuple(strides)
        self.passes = strides[-1] == self.stride and set(self.out_strides) <= set(strides)
        if self.passes:
            self.out_dims = tuple(dims[self.in_strides.index(s)] for s in self.out_strides)
            return
        self.out_dims = (dim,) * len(self.out_strides)
        widths = dict(zip(strides, dims, strict=True))
        # coarsest first: the way of the top-down path
        self._path: list[int] = []
        step = strides[-1]
        while step >= self.out_strides[0]:
            self._path.append(step)
            step //= 2
        self.laterals = nn.ModuleDict(
            {
                str(s): nn.Sequential(nn.Conv2d(widths[s], dim, 1, bias=False), group_norm(dim))
                for s in self._path
                if s in widths
            }
        )
        self.ups = nn.ModuleDict(
            {
                str(s): nn.Sequential(
                    nn.ConvTranspose2d(dim, dim, 2, 2, bias=False), group_norm(dim), nn.GELU()
                )
                for s in self._path
                if s not in widths
            }
        )
        self.smooth = nn.ModuleDict(
            {
                str(s): nn.Sequential(
                    nn.Conv2d(dim, dim, 3, padding=1, bias=False), group_norm(dim)
                )
                for s in self.out_strides
            }
        )

    def _check(self, strides: Sequence[int]) -> None:
        coarsest = strides[-1]
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

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Levels ``[N, dims[i], h_i, w_i]`` to one map per stride of ``out_strides``."""
        given = dict(zip(self.in_strides, levels, strict=True))
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
