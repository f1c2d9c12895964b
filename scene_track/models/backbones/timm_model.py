"""Any model of timm, by its name.

A network with several resolutions gives its pyramid (strides 4 and coarser), one with patches its
last, normed map and its class token. Mean and deviation are those of the model's weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Unpack, cast

import timm
import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from pydantic import Field
from torch import Tensor

from scene_track.models.backbones.base import BackboneFeatures, TrainingOptions
from scene_track.models.backbones.library import LibraryBackbone
from scene_track.models.weights import load_state_dict_file

_FINEST = 4


class TimmModel(LibraryBackbone):
    """A timm model as feature extractor."""

    def __init__(
        self,
        *,
        name: str,
        weights: Path | Literal["pretrained"] | None,
        download: bool,
        options: dict[str, Any],
        size_multiple: Annotated[int, Field(ge=1)] | None,
        **training: Unpack[TrainingOptions],
    ) -> None:
        """Build the model and load its weights.

        Args:
            name: as ``timm.list_models()`` has it, with the tag of the weights if there are
                several: ``resnet18.a1_in1k``.
            weights: ``pretrained`` takes timm's own weights of that name, a path a file with timm's
                (or the publisher's) names; None starts from random weights.
            download: let ``pretrained`` go to the network for what is not in the local cache.
            options: further arguments of ``timm.create_model``, such as ``{img_size: [448, 800]}``
                for a model that is built for one size.
            size_multiple: height and width must be multiples of this; None = the coarsest stride.
            **training: see :class:`TrainingOptions`.

        Raises:
            ValueError: timm has no such model, or the weights do not fit it.
            FileNotFoundError: the weights are not there.
        """
        build = {"num_classes": 0, **options}
        with torch.device("meta"):
            plan = self._create(name, build)
        if hasattr(plan, "dynamic_img_size"):
            build.setdefault("dynamic_img_size", True)
        reductions = [info["reduction"] for info in plan.feature_info]
        pyramid = len(set(reductions)) > 1
        if pyramid:
            # the last map of each resolution
            chosen = {r: index for index, r in enumerate(reductions) if r >= _FINEST}
            build |= {"features_only": True, "out_indices": sorted(chosen.values())}
            build.pop("num_classes")
        cfg = plan.pretrained_cfg
        super().__init__(
            size_multiple=size_multiple or max(reductions),
            mean=tuple(cfg["mean"]),
            std=tuple(cfg["std"]),
            **training,
        )
        source = self._source(name, cfg, weights, download)
        try:
            self.net = self._create(name, build, **source)
        except RuntimeError as error:  # load_state_dict says it in many lines
            first = " ".join(str(error).split())[:200]
            raise ValueError(
                f"model.backbone.weights={weights} does not fit {name}: {first}"
            ) from error
        self._pyramid = pyramid
        if pyramid:
            info = cast(Any, self.net).feature_info
            self.strides, self.dims = tuple(info.reduction()), tuple(info.channels())
        else:
            self.strides, self.dims = (reductions[-1],), (cast(Any, self.net).num_features,)
        self.cls_dim = self.dims[-1]
        fixed = (
            cfg["input_size"][1:] if cfg.get("fixed_input_size") else (2 * self.size_multiple,) * 2
        )
        self.set_aside_unused(options.get("img_size", fixed))

    @staticmethod
    def _create(name: str, options: dict[str, Any], **source: Any) -> Any:
        try:
            return timm.create_model(name, pretrained=bool(source), **options, **source)
        except (RuntimeError, ValueError) as error:
            if "Unknown model" not in str(error) and "Invalid pretrained tag" not in str(error):
                raise
            near = timm.list_models(f"*{name.split('.')[0][:8]}*")[:3]
            raise ValueError(
                f"model.backbone.name={name}: timm {timm.__version__} has no such model"
                f"{'; near it are ' + ', '.join(near) if near else ''}"
            ) from error

    @staticmethod
    def _source(
        name: str, cfg: dict[str, Any], weights: Path | str | None, download: bool
    ) -> dict[str, Any]:
        """What ``create_model`` is told of the weights: checked tensors, or nothing."""
        if weights is None:
            return {}
        if weights != "pretrained":
            return {"pretrained_cfg_overlay": {"state_dict": load_state_dict_file(weights)}}
        repository = cfg.get("hf_hub_id")
        if not repository:
            raise ValueError(f"model.backbone.name={name}: timm publishes no weights of that name")
        try:
            file = hf_hub_download(repository, "model.safetensors", local_files_only=not download)
        except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
            raise FileNotFoundError(
                f"no weights of {name} in the local cache ({repository}): type"
                " model.backbone.download=true to fetch them, model.backbone.weights=PATH for a"
                " file, or model.backbone.weights=null for random weights"
            ) from error
        return {"pretrained_cfg_overlay": {"state_dict": load_state_dict_file(file)}}

    def extract(self, images: Tensor) -> BackboneFeatures:
        """Features of normalised ``[N, 3, H, W]`` pictures."""
        net = cast(Any, self.net)
        if self._pyramid:
            maps = tuple(
                level if level.shape[1] == dim else level.permute(0, 3, 1, 2)
                for level, dim in zip(net(images), self.dims, strict=True)
            )
            return BackboneFeatures(levels=maps, cls=maps[-1].mean((2, 3)))
        (found,) = net.forward_intermediates(
            images, indices=1, norm=True, return_prefix_tokens=True, intermediates_only=True
        )
        patches, prefix = found if isinstance(found, tuple | list) else (found, None)
        token = patches.mean((2, 3)) if prefix is None or not prefix.shape[1] else prefix[:, 0]
        return BackboneFeatures(levels=(patches,), cls=token)
