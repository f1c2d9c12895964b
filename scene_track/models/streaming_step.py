"""One step of the streaming scene model as a plain function of tensors, and the same step in ONNX.

A step takes one frame and the state that the frame before it left. Where the model starts a video
with no state at all, the step has a state of fixed shapes: a memory whose frames all count as
padding, and a flag that keeps the queries from mixing with a frame that never was. Both give what
the model gives (see ``tests/models/test_streaming_step.py``).

The identity head is no part of the step: how many tracks there are changes from frame to frame, and
association costs little. ``OnnxModel`` runs the step in onnxruntime and keeps that head outside.
"""

from __future__ import annotations

import copy
import importlib.util
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from scene_track.models.backbones.base import BackboneFeatures
from scene_track.models.clip_model import ClipModel
from scene_track.models.decoder import QueryMix, QueryState
from scene_track.models.identity import PointerIdentity
from scene_track.models.predictions import DenoisingQueries, ScenePredictions
from scene_track.models.scene import SceneModel, SceneState
from scene_track.models.temporal import TemporalBlock, TemporalState

if TYPE_CHECKING:
    import onnx

_OUTPUTS = ("boxes", "scores", "class_logits", "tokens")
_LARGE = 256  # elements; smaller weights (norms, biases) stay float32


@dataclass
class _GivenQueries(QueryState):
    """The queries of the frame before; ``started [1]`` is False where there was none."""

    started: Tensor


class _GatedMix(nn.Module):
    """``QueryMix`` that leaves the queries of a first frame alone."""

    def __init__(self, mix: QueryMix) -> None:
        super().__init__()
        self.mix = mix

    def forward(self, content: Tensor, boxes: Tensor, previous: _GivenQueries) -> Tensor:
        return torch.where(previous.started, self.mix(content, boxes, previous), content)


class StreamingStep(nn.Module):
    """One frame and a state in; boxes, scores, class logits, tokens and the next state out.

    ``inputs`` and ``outputs`` name the tensors in their order. Inputs: ``frame [1, 3, H, W]`` uint8
    RGB, ``seconds [1]`` float32 since the start of the video, then the state. Outputs: ``boxes [1,
    Q, 4]`` cxcywh 0-1 of the frame, ``scores [1, Q]`` existence 0-1, ``class_logits [1, Q, C]``,
    ``tokens [1, Q, D]`` decoder states, the head's extras, then the state, each named
    ``next_<name>``.
    """

    def __init__(self, model: SceneModel) -> None:
        """Take a copy of the model, which is in evaluation mode.

        Raises:
            ValueError: a frame depends on frames that come after it.
        """
        super().__init__()
        if model.decoder.radius:
            raise ValueError(
                f"model.decoder.temporal_radius={model.decoder.radius}: a frame depends on later"
                " ones, and an exported step has one frame; expected 0"
            )
        identity, model.identity = model.identity, None  # not copied: it is no part of the step
        try:
            self.model = copy.deepcopy(model).float().eval()
        finally:
            model.identity = identity
        if self.model.decoder.mix is not None:
            self.model.decoder.mix = _GatedMix(self.model.decoder.mix)  # type: ignore[assignment]
        self.first = _first_state(self.model)
        extras = self.model.head.extras(torch.zeros(1, 1, 1, model.dim))
        self.extras = tuple(extras)
        self.inputs = ("frame", "seconds", *self.first)
        self.outputs = (*_OUTPUTS, *self.extras, *(f"next_{name}" for name in self.first))

    def forward(self, frame: Tensor, seconds: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Run one frame; see the class."""
        given = dict(zip(self.first, state, strict=True))
        padding = torch.zeros(1, 1, dtype=torch.bool, device=frame.device)
        seen, left = self.model(
            frame.unsqueeze(0), seconds.unsqueeze(0), padding, None, _as_state(given)
        )
        further = (seen.extras[name][:, 0] for name in self.extras)
        kept = _as_tensors(left)
        return (
            seen.boxes[:, 0],
            seen.exist_conf[:, 0, :, 0],
            seen.cls_logits[:, 0],
            seen.tokens[:, 0],
            *further,
            *(kept[name] for name in self.first),
        )


def _first_state(model: SceneModel) -> dict[str, Tensor]:
    """The state before the first frame of a video, by name."""
    shapes: dict[str, tuple[int, ...]] = {}
    if model.temporal_encoder is not None:
        encoder = model.temporal_encoder
        past = encoder.history - 1
        for index, block in enumerate(encoder.blocks if past else ()):
            assert isinstance(block, TemporalBlock)
            shape = (1, block.heads, past, model.dim // block.heads)
            shapes |= {f"temporal_key_{index}": shape, f"temporal_value_{index}": shape}
        if shapes:
            shapes["temporal_padding"] = (1, past)
    if model.decoder.recurrent:
        shapes["query_content"] = (1, model.num_queries, model.dim)
        shapes["query_boxes"] = (1, model.num_queries, 4)
        shapes["started"] = (1,)
    return {name: torch.from_numpy(_empty(name, shape)) for name, shape in shapes.items()}


def _empty(name: str, shape: Sequence[int]) -> np.ndarray:
    """A tensor of the state before the first frame."""
    if name == "temporal_padding":
        return np.ones(shape, dtype=np.bool_)
    if name == "started":
        return np.zeros(shape, dtype=np.bool_)
    return np.full(shape, 0.5 if name == "query_boxes" else 0.0, dtype=np.float32)


def _as_state(given: Mapping[str, Tensor]) -> SceneState:
    """The model's own state from named tensors."""
    temporal = queries = None
    if "temporal_padding" in given:
        depth = sum(name.startswith("temporal_key_") for name in given)
        temporal = TemporalState(
            keys=[given[f"temporal_key_{index}"] for index in range(depth)],
            values=[given[f"temporal_value_{index}"] for index in range(depth)],
            padding_mask=given["temporal_padding"],
        )
    if "started" in given:
        queries = _GivenQueries(given["query_content"], given["query_boxes"], given["started"])
    return SceneState(temporal=temporal, queries=queries)


def _as_tensors(state: SceneState) -> dict[str, Tensor]:
    """Named tensors from the model's own state."""
    named: dict[str, Tensor] = {}
    if state.temporal is not None:
        for index, (key, value) in enumerate(
            zip(state.temporal.keys, state.temporal.values, strict=True)
        ):
            named |= {f"temporal_key_{index}": key, f"temporal_value_{index}": value}
        named["temporal_padding"] = state.temporal.padding_mask
    if state.queries is not None:
        named |= {"query_content": state.queries.content, "query_boxes": state.queries.boxes}
        named["started"] = torch.ones(1, dtype=torch.bool, device=state.queries.content.device)
    return named


def to_onnx(model: SceneModel, size: tuple[int, int], *, half: bool) -> bytes:
    """The step of a model as an ONNX file.

    Args:
        model: in evaluation mode.
        size: (height, width) in pixels of the frames that it will be given.
        half: keep large weights in float16; all arithmetic stays in float32.

    Raises:
        ValueError: the exporter is not installed, or a frame depends on later ones.
    """
    require("onnx", "onnxscript")
    step = StreamingStep(model).eval()
    frame = torch.zeros(1, 3, *size, dtype=torch.uint8)
    for name in ("onnx_ir", "onnxscript"):  # hundreds of lines about single nodes
        logging.getLogger(name).setLevel(logging.WARNING)
    with torch.no_grad():
        program = torch.onnx.export(
            step,
            (frame, torch.zeros(1), *step.first.values()),
            dynamo=True,
            input_names=list(step.inputs),
            output_names=list(step.outputs),
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    if half:
        halve(proto)
    return proto.SerializeToString()


def halve(proto: onnx.ModelProto) -> None:
    """Store large float32 weights as float16, each with a cast back where it is used."""
    import onnx
    from onnx import numpy_helper

    casts: list[onnx.NodeProto] = []
    for weight in proto.graph.initializer:
        values = numpy_helper.to_array(weight)
        if values.dtype != np.float32 or values.size < _LARGE:
            continue
        name = weight.name
        stored = numpy_helper.from_array(values.astype(np.float16), f"{name}.half")
        weight.CopyFrom(stored)
        casts.append(
            onnx.helper.make_node("Cast", [stored.name], [name], to=onnx.TensorProto.FLOAT)
        )
    nodes = [*casts, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


def require(*packages: str) -> None:
    """Say what to type where packages of the extra ``export`` are missing.

    Raises:
        ValueError: one of them is.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"{', '.join(missing)} is not installed: type pip install 'scene_track[export]'"
        )


class OnnxModel(ClipModel):
    """An exported step as a model over clips: the same interface, computed by onnxruntime.

    Runs on the GPU where onnxruntime was built for it, else on as many CPU threads as PyTorch.
    """

    def __init__(self, path: Path, identity: PointerIdentity | None) -> None:
        """Open the file.

        Args:
            path: written by ``to_onnx``.
            identity: the model's pointer head.

        Raises:
            ValueError: onnxruntime is not installed, or the file is not a step of this package.
        """
        super().__init__()
        require("onnxruntime")
        import onnxruntime

        self.identity = identity
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        known = ("CUDAExecutionProvider", "CPUExecutionProvider")
        available = onnxruntime.get_available_providers()
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=[name for name in known if name in available]
            )
        except Exception as error:  # its own types derive from Exception alone
            raise ValueError(
                f"{path} cannot be opened by onnxruntime ({str(error).splitlines()[0]}): export it"
                " again with python -m scene_track.export"
            ) from error
        self._outputs = [node.name for node in self._session.get_outputs()]
        inputs = self._session.get_inputs()
        names = [node.name for node in inputs]
        if names[:2] != ["frame", "seconds"] or tuple(self._outputs[:4]) != _OUTPUTS:
            raise ValueError(
                f"{path} has inputs {', '.join(names[:3])}: expected frame, seconds and a state;"
                " export it with python -m scene_track.export"
            )
        self.size: tuple[int, int] = tuple(inputs[0].shape[2:])
        self._first = {node.name: _empty(node.name, node.shape) for node in inputs[2:]}

    def forward(
        self,
        frames: Tensor,
        seconds: Tensor,
        padding_mask: Tensor,
        denoising: DenoisingQueries | None = None,
        state: OnnxState | None = None,
        features: BackboneFeatures | None = None,
    ) -> tuple[ScenePredictions, OnnxState]:
        """See ``ClipModel.forward``; one video (B = 1), in evaluation.

        Raises:
            ValueError: the frames have another size than the file was exported for.
        """
        if tuple(frames.shape[-2:]) != self.size:
            raise ValueError(
                f"frames are {frames.shape[-2]}x{frames.shape[-1]}, the exported model takes"
                f" {self.size[0]}x{self.size[1]}: type dataset.size=[{self.size[0]},{self.size[1]}]"
            )
        images, clock = frames[0].cpu().numpy(), seconds[0].float().cpu().numpy()
        named: dict[str, Any] = self._first if state is None else state.named
        rows: list[dict[str, Any]] = []
        for t, padded in enumerate(padding_mask[0].tolist()):
            if padded and rows:  # nobody looks at what is said of it
                rows.append(rows[-1])
                continue
            feed = {"frame": images[t : t + 1], "seconds": clock[t : t + 1], **named}
            row = dict(zip(self._outputs, self._session.run(None, feed), strict=True))
            if not padded:
                named = {name: row[f"next_{name}"] for name in named}
            rows.append(row)
        return self._predictions(rows, frames.device), OnnxState(named)

    def _predictions(self, rows: list[dict[str, Any]], device: torch.device) -> ScenePredictions:
        def joined(name: str) -> Tensor:
            return torch.from_numpy(np.stack([row[name] for row in rows], axis=1)).to(device)

        boxes, logits = joined("boxes"), joined("class_logits")
        extras = [name for name in self._outputs if name not in _OUTPUTS and name[:5] != "next_"]
        return ScenePredictions.bare(
            *(boxes, joined("scores").unsqueeze(-1), logits, joined("tokens")),
            **{name: joined(name) for name in extras},
        )


@dataclass
class OnnxState:
    """The state of a step: its tensors by the names of the inputs."""

    named: dict[str, Any]

    def detach(self) -> OnnxState:
        """Itself: there is no graph."""
        return self
