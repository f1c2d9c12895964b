"""The same methods on tensors and on arrays.

A tracker works on a few people at a time, where an operation of PyTorch costs several times one of
numpy and nothing else counts. So the identity head writes its arithmetic in what both libraries
share (``library``), trains on tensors, and is streamed by a ``Host``: the same methods, with the
weights as arrays. There is one formula for both, and a test that holds their numbers together.

A module takes part by deriving from ``OnArrays``. Its methods may use operators, slices,
``reshape``, ``swapaxes`` and the functions here; any other module among its parts is
called with tensors and may be what it likes.
"""

from __future__ import annotations

import copy
from types import MethodType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import erf
from torch import Tensor, nn
from torch.nn import functional as F

_PARTS = ("weight", "bias")
_FEW = 2048  # elements
_HALF = np.float32(0.5**0.5)  # its square is a half


def library(x: Tensor) -> Any:
    """``torch`` or ``numpy``, whichever ``x`` is of."""
    return torch if isinstance(x, Tensor) else np


def float32(x: Tensor) -> Tensor:
    """``x`` out of the half precision of autocast; arrays have none."""
    return x.float() if isinstance(x, Tensor) else x


def at_least(x: Tensor, low: float) -> Tensor:
    """``x``, or ``low`` where that is more."""
    return x.clamp(min=low) if isinstance(x, Tensor) else np.maximum(x, low)


def at_most(x: Tensor, high: float) -> Tensor:
    """``x``, or ``high`` where that is less."""
    return x.clamp(max=high) if isinstance(x, Tensor) else np.minimum(x, high)


def between(x: Tensor, low: float, high: float) -> Tensor:
    """``x`` held within limits."""
    if isinstance(x, Tensor):
        return x.clamp(low, high)
    return np.minimum(np.maximum(x, low), high)


def unpadded(x: Tensor, there: Tensor, axis: int, otherwise: float) -> Tensor:
    """``x`` where ``there [..., E]`` along axis -1 or -2, else ``otherwise``.

    Arrays have no padding, and nobody looks at ``there``.
    """
    if not isinstance(x, Tensor):
        return x
    if axis == -2:
        there = there.unsqueeze(-1)
    while there.ndim < x.ndim:
        there = there.unsqueeze(-2)
    return torch.where(there, x, otherwise)


def stretched(x: Tensor, like: Tensor) -> Tensor:
    """``x`` repeated to the shape of ``like``."""
    if isinstance(x, Tensor):
        return x.expand_as(like)
    wide = np.empty_like(like)
    wide[...] = x
    return wide


def detached(x: Tensor) -> Tensor:
    """``x`` without its gradient; arrays have none."""
    return x.detach() if isinstance(x, Tensor) else x


def softmax(x: Tensor) -> Tensor:
    """Over the last axis."""
    if isinstance(x, Tensor):
        return x.softmax(-1)
    weights = x - np.maximum.reduce(x, -1, keepdims=True)
    np.exp(weights, out=weights)
    weights /= np.add.reduce(weights, -1, keepdims=True)
    return weights


def total(x: Tensor, axis: int) -> Tensor:
    """Sum over an axis."""
    return x.sum(axis) if isinstance(x, Tensor) else np.add.reduce(x, axis)


def share(x: Tensor, axis: int, other: float) -> Tensor:
    """Softmax over an axis, beside one more entry ``other`` that is left out of the answer."""
    if isinstance(x, Tensor):
        total = x.logsumexp(axis, keepdim=True)
        return (x - total.logaddexp(torch.full_like(total, other))).exp()
    return np.exp(x - np.logaddexp.reduce(x, axis, initial=other, keepdims=True))


def mean_there(x: Tensor, there: Tensor) -> Tensor:
    """``[..., 1, C]`` mean of what is ``there [..., E]`` of ``x [..., E, C]``."""
    if isinstance(x, Tensor):
        count = there.sum(-1)[..., None, None].clamp(min=1)
        return unpadded(x, there, -2, 0.0).sum(-2, keepdim=True) / count
    return np.add.reduce(x, -2, keepdims=True) / x.shape[-2]


def length(x: Tensor) -> Tensor:
    """Euclidean length of ``[..., 2]``."""
    if isinstance(x, Tensor):
        return torch.linalg.vector_norm(x, dim=-1)
    return np.hypot(x[..., 0], x[..., 1])


def unit(x: Tensor) -> Tensor:
    """Vectors of the last axis at length 1."""
    if isinstance(x, Tensor):
        return F.normalize(x, dim=-1)
    return x / np.maximum(np.sqrt(np.add.reduce(x * x, -1, keepdims=True)), 1e-12)


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """Scaled dot-product attention with ``bias`` added to its logits."""
    if isinstance(query, Tensor):
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype))
    return softmax(query @ key.swapaxes(-1, -2) * query.shape[-1] ** -0.5 + bias) @ value


def joined(*layers: Any) -> Any:
    """Linear layers of one input as one layer, whose outputs lie side by side."""
    if isinstance(layers[0], _Linear):
        return _Linear(*(np.concatenate([getattr(x, k) for x in layers], -1) for k in _PARTS))
    weight, bias = (torch.cat([getattr(layer, k) for layer in layers]) for k in _PARTS)
    return lambda x: F.linear(x, weight, bias)


class OnArrays(nn.Module):
    """A module whose methods work on arrays too."""


class Host:
    """A module in evaluation, on arrays: its methods, with copies of its weights.

    What does not depend on the input (weights, sub-modules, properties) is looked up once, when it
    is first used: a module that is trained or loaded afterwards needs a new host.
    """

    def __init__(self, module: OnArrays) -> None:
        """Nothing is copied yet."""
        self._module = module

    def __getattr__(self, name: str) -> Any:
        of_class = getattr(type(self._module), name, None)
        if isinstance(of_class, property):
            found = of_class.__get__(self)
        elif callable(of_class):
            found = MethodType(of_class, self)
        else:
            found = _on_host(getattr(self._module, name))
        setattr(self, name, found)
        return found

    def __call__(self, *args: Any) -> Any:
        """``forward``."""
        return self.forward(*args)


def _on_host(part: Any) -> Any:
    """A weight as an array, a module as a function of arrays; anything else as it is."""
    if isinstance(part, Tensor):
        return part.detach().float().cpu().numpy().copy()
    if isinstance(part, OnArrays):
        return Host(part)
    if isinstance(part, nn.ModuleList):
        return [_on_host(module) for module in part]
    if not isinstance(part, nn.Module):
        return part
    # Subclasses and hooks may do more than the class says.
    if part._forward_hooks or part._forward_pre_hooks:
        return _InTorch(part)
    if type(part) is nn.Sequential:
        return _Chain([_on_host(module) for module in part])
    if type(part) is nn.Linear and part.bias is not None:
        weight = np.ascontiguousarray(_on_host(part.weight).T)
        return _Linear(weight, _on_host(part.bias))
    if type(part) is nn.LayerNorm and len(part.normalized_shape) == 1 and part.bias is not None:
        return _Norm(part)
    if type(part) is nn.GELU and part.approximate == "none":
        return _gelu
    return _InTorch(part)


class _Linear:
    def __init__(self, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> None:
        self.weight, self.bias = weight, bias

    def __call__(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        if x.ndim == 2:
            out = x @ self.weight
            out += self.bias
            return out
        # One product of matrices, whatever the shape.
        out = x.reshape(-1, len(self.weight)) @ self.weight
        out += self.bias
        return out.reshape(*x.shape[:-1], len(self.bias))


class _Chain:
    def __init__(self, parts: list[Any]) -> None:
        self.parts = parts
        for index in range(1, len(parts) - 1):
            before, part, after = parts[index - 1 : index + 2]
            if part is _gelu and isinstance(before, _Linear) and isinstance(after, _Linear):
                # The constants of GELU go into the weights on both sides.
                before.weight, before.bias = before.weight * _HALF, before.bias * _HALF
                after.weight = after.weight * _HALF
                parts[index] = _scaled_gelu

    def __call__(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        for part in self.parts:
            x = part(x)
        return x


class _Norm:
    def __init__(self, layer: nn.LayerNorm) -> None:
        self.weight, self.bias, self.eps = _on_host(layer.weight), _on_host(layer.bias), layer.eps
        self.mean = np.full((len(self.weight), 1), 1 / len(self.weight), dtype=np.float32)

    def __call__(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        out = x - x @ self.mean
        deviation = (out * out) @ self.mean
        deviation += self.eps
        np.sqrt(deviation, out=deviation)
        out /= deviation
        out *= self.weight
        out += self.bias
        return out


class _InTorch:
    """A module as it is, between arrays."""

    def __init__(self, module: nn.Module) -> None:
        self.module = copy.deepcopy(module).cpu().float().eval().requires_grad_(False)

    def __call__(self, *arrays: NDArray[np.float32]) -> NDArray[np.float32]:
        return self.module(*map(torch.from_numpy, arrays)).numpy()


def _scaled_gelu(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """``x (1 + erf x)``."""
    # That of PyTorch is the faster one by the element, and the slower one by the call.
    out = erf(x) if x.size < _FEW else torch.erf(torch.from_numpy(x)).numpy()
    out += 1
    out *= x
    return out


def _gelu(x: NDArray[np.float32]) -> NDArray[np.float32]:
    out = _scaled_gelu(x * _HALF)
    out *= _HALF
    return out
