"""Any vision model of Hugging Face transformers, by its name or from a local folder.

Built by ``AutoModel``, normalised with the mean and deviation of its ``AutoImageProcessor``. What
its output looks like is found by one forward pass at the start: maps of several resolutions make a
pyramid, patch tokens one map; a token before them is the global one.
"""

from __future__ import annotations

import inspect
import logging
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Unpack

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from scene_track.models.backbones.base import BackboneFeatures, TrainingOptions
from scene_track.models.backbones.library import LibraryBackbone
from scene_track.models.weights import check_finite

log = logging.getLogger(__name__)

_FINEST = 4


@dataclass(frozen=True)
class _Normalisation:
    """What an image processor does to pixels, and the size it brings images to."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    size: tuple[int, int] | None


class HfAuto(LibraryBackbone):
    """A Hugging Face vision model as feature extractor."""

    def __init__(
        self,
        *,
        name: str,
        weights: Literal["pretrained"] | None,
        download: bool,
        input_size: Literal["frames", "processor"],
        size_multiple: Annotated[int, Field(ge=1)] | None,
        **training: Unpack[TrainingOptions],
    ) -> None:
        """Build the model and load its weights. Options: see ``conf/model/backbone/hf_auto.yaml``.

        With ``input_size="processor"`` the maps cover the image as they do otherwise, but the
        strides are those of the resized image. ``training``: see :class:`TrainingOptions`.

        Raises:
            FileNotFoundError: the model is not there; says how to obtain it.
            ValueError: its weights are damaged or incomplete, or its output is of no known form.
        """
        config, look = _read(name, download)
        net, missing = _load(name, config, weights, download)
        size = (64, 64) if look.size is None else look.size
        native = getattr(config, "image_size", None)
        candidates = [size] if input_size == "processor" else [(64, 64), _pair(native or 224)]
        plan, probed = _plan(net, candidates, name)
        if input_size == "processor":
            if look.size is None:
                raise ValueError(f"model.backbone.input_size=processor: that of {name} has no size")
            size_multiple = 1
        super().__init__(
            size_multiple=size_multiple or plan.strides[-1],
            mean=look.mean,
            std=look.std,
            **training,
        )
        self.net = net
        self._plan = plan
        self._resize = look.size if input_size == "processor" else None
        self.strides, self.dims, self.cls_dim = plan.strides, plan.dims, plan.cls_dim
        self.set_aside_unused(probed)
        if lost := [key for key in missing if key not in self.unused]:
            raise ValueError(
                f"{name} lacks {len(lost)} weights of {type(net).__name__}, the first is {lost[0]}"
            )

    def extract(self, images: Tensor) -> BackboneFeatures:
        """Features of normalised ``[N, 3, H, W]`` images."""
        if self._resize is not None:
            images = F.interpolate(images, self._resize, mode="bilinear", antialias=True)
        levels, cls = self._plan.read(_run(self.net, images, bool(self._plan.maps)), images)
        return BackboneFeatures(levels=levels, cls=cls)


@dataclass(frozen=True)
class _Plan:
    """Where in an output the features are.

    Attributes:
        maps: indices of the hidden states that are levels; empty for patch tokens.
        prefix: tokens before the patches.
        strides, dims, cls_dim: see ``Backbone``.
    """

    maps: tuple[int, ...]
    prefix: int
    strides: tuple[int, ...]
    dims: tuple[int, ...]
    cls_dim: int

    def read(self, output: Any, images: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Levels and global token of an output."""
        if self.maps:
            hidden = _hidden_maps(output)
            levels = [hidden[index] for index in self.maps]
            last = output.last_hidden_state
            if last.shape == levels[-1].shape:  # with what follows the last block
                levels[-1] = last
            pooled = getattr(output, "pooler_output", None)
            cls = levels[-1].mean((2, 3)) if pooled is None else pooled.flatten(1)
            return tuple(levels), cls
        tokens = output.last_hidden_state
        shape = tuple(side // self.strides[0] for side in images.shape[-2:])
        patches = tokens[:, self.prefix :]
        cls = tokens[:, 0] if self.prefix else patches.mean(1)
        return (patches.transpose(1, 2).unflatten(2, shape),), cls


def _hidden_maps(output: Any) -> tuple[Tensor, ...]:
    hidden = getattr(output, "reshaped_hidden_states", None) or output.hidden_states or ()
    return tuple(state for state in hidden if state.ndim == 4)


def _run(net: Any, images: Tensor, hidden: bool = True) -> Any:
    options: dict[str, Any] = {"output_hidden_states": hidden}
    if "interpolate_pos_encoding" in inspect.signature(net.forward).parameters:
        options["interpolate_pos_encoding"] = True
    return net(pixel_values=images, **options)


def _plan(net: Any, sizes: list[tuple[int, int]], name: str) -> tuple[_Plan, tuple[int, int]]:
    """Find the features in the output for the first of ``sizes`` that the network takes."""
    output, images, size = None, torch.empty(0), sizes[0]
    refusal: Exception | None = None
    for size in dict.fromkeys(sizes):
        images = torch.zeros(1, 3, *size)
        try:
            with torch.no_grad():
                output = _run(net.eval(), images)
            break
        # a network for one size says so with any of these
        except (ValueError, RuntimeError, AssertionError) as error:
            refusal = error
    if output is None:
        raise ValueError(f"model.backbone.name={name}: takes no image of {sizes}: {refusal}")
    maps = _hidden_maps(output)
    if maps:
        last_of = {state.shape[-1]: index for index, state in enumerate(maps)}
        chosen = [i for width, i in last_of.items() if size[1] // width >= _FINEST]
        strides = [size[1] // maps[i].shape[-1] for i in chosen]
        plan = _Plan(tuple(chosen), 0, tuple(strides), tuple(maps[i].shape[1] for i in chosen), 0)
    else:
        tokens = output.last_hidden_state
        patch = getattr(net.config, "patch_size", None)
        patch = int(patch[0] if isinstance(patch, list | tuple) else patch or 0)
        count = 0 if not patch else (size[0] // patch) * (size[1] // patch)
        if tokens.ndim != 3 or not count or tokens.shape[1] < count:
            raise ValueError(
                f"model.backbone.name={name}: {type(net).__name__} gives {list(tokens.shape)} for"
                f" {size[0]}x{size[1]}; expected patch tokens or feature maps"
            )
        plan = _Plan((), tokens.shape[1] - count, (patch,), (tokens.shape[-1],), 0)
    _, cls = plan.read(output, images)
    return _Plan(plan.maps, plan.prefix, plan.strides, plan.dims, cls.shape[1]), size


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def _not_there(name: str, error: Exception) -> FileNotFoundError:
    first = " ".join(str(error).split())[:160]
    return FileNotFoundError(
        f"model.backbone.name={name} is neither a complete folder nor in the local cache of"
        f" Hugging Face: type model.backbone.download=true to fetch it ({first})"
    )


def _read(name: str, download: bool) -> tuple[Any, _Normalisation]:
    """Configuration of the vision part, and what the image processor does."""
    from transformers import AutoConfig, AutoImageProcessor

    try:
        config = AutoConfig.from_pretrained(name, local_files_only=not download)
        processor = AutoImageProcessor.from_pretrained(name, local_files_only=not download)
    except (OSError, ValueError) as error:
        raise _not_there(name, error) from error
    config = getattr(config, "vision_config", config)
    for key in ("pos_embed_shift", "pos_embed_jitter", "pos_embed_rescale"):
        if hasattr(config, key):
            setattr(config, key, None)  # random in training mode, also in that of a frozen part
    scale = 255.0
    if getattr(processor, "do_rescale", True):
        scale *= getattr(processor, "rescale_factor", 1 / 255)
    if getattr(processor, "rescale_offset", False):
        raise ValueError(
            f"model.backbone.name={name}: its processor shifts pixels (rescale_offset)"
        )
    normalised = getattr(processor, "do_normalize", True)
    mean = processor.image_mean if normalised else (0.0, 0.0, 0.0)
    std = processor.image_std if normalised else (1.0, 1.0, 1.0)
    asked = getattr(processor, "crop_size", None) or getattr(processor, "size", None)
    edge = asked and (asked.get("shortest_edge") or asked.get("longest_edge"))
    size = asked and (_pair(edge) if edge else (asked["height"], asked["width"]))
    return config, _Normalisation(
        mean=tuple(value / scale for value in mean),  # type: ignore[arg-type]
        std=tuple(value / scale for value in std),  # type: ignore[arg-type]
        size=size or None,
    )


def _load(name: str, config: Any, weights: str | None, download: bool) -> tuple[Any, list[str]]:
    """The network, and the keys that its file lacks."""
    from safetensors import SafetensorError
    from transformers import AutoModel
    from transformers.utils import logging as logging_of_hf

    if weights is None:  # not in the file's type: many are published in bfloat16
        return AutoModel.from_config(config, dtype=torch.float32), []
    verbosity = logging_of_hf.get_verbosity()
    logging_of_hf.set_verbosity_error()  # its report of keys is below, in one line
    try:
        net, found = AutoModel.from_pretrained(
            name,
            config=config,
            local_files_only=not download,
            output_loading_info=True,
            dtype=torch.float32,
        )
    except OSError as error:
        raise _not_there(name, error) from error
    except (SafetensorError, RuntimeError, ValueError) as error:
        first = " ".join(str(error).split())[:160]
        raise ValueError(
            f"the weights of {name} are damaged or of another model: {first}"
        ) from error
    finally:
        logging_of_hf.set_verbosity(verbosity)
    if wrong := sorted(map(str, found["mismatched_keys"])):
        raise ValueError(
            f"{name}: {len(wrong)} weights are of another shape, the first: {wrong[0]}"
        )
    if other := sorted(found["unexpected_keys"]):
        log.info("%s: %d tensors of other heads left out, such as %s", name, len(other), other[0])
    check_finite(net.state_dict(), name)
    return net, sorted(found["missing_keys"])
