"""The loss of pretraining without labels: what the targets are, and what they train."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from scene_track.objectives.detreg_criterion import region_embeddings
from scene_track.train import build_module
from tests.compose import TINY, compose_run, make_batch

FROZEN = ("head=detreg", "model.backbone.freeze=true", *TINY)


def test_an_embedding_is_the_mean_of_the_region_in_every_level() -> None:
    torch.manual_seed(0)
    levels = [torch.randn(1, 5, 8, 8), torch.randn(1, 3, 4, 4)]
    box = torch.tensor((((0.5, 0.25, 0.5, 0.5), (0.0, 0.0, 0.0, 0.0)),))  # x .25-.75, y 0-.5
    found = region_embeddings(levels, box)
    assert found.shape == (1, 2, 8) and found.isfinite().all()
    # samples lie at the centres of the cells, so their mean is that of the cells
    parts = [
        F.layer_norm(level[0, :, : h // 2, h // 4 : 3 * h // 4].mean((1, 2)), (level.shape[1],))
        for level, h in zip(levels, (8, 4), strict=True)
    ]
    torch.testing.assert_close(found[0, 0], torch.cat(parts))


def test_the_embedding_trains_the_decoder_and_not_the_backbone() -> None:
    torch.manual_seed(0)
    module: Any = build_module(compose_run(FROZEN)).train()
    module.model.backbone.set_frozen(True)
    batch = make_batch()
    predictions, losses, _ = module.losses(batch, denoise=True)
    assert losses["embedding"] > 0.5 and losses["total"].isfinite()
    matches = torch.zeros(2, 3, 3, dtype=torch.long)
    term = module.criterion.extra_terms(predictions, batch, matches)["embedding"]
    term.backward()
    trained = [n for n, p in module.model.named_parameters() if p.grad is not None]
    assert any(n.startswith("decoder") for n in trained)
    assert not any(n.startswith("backbone") for n in trained)
    nobody = module.criterion.extra_terms(predictions, batch, matches - 1)["embedding"]
    assert nobody.requires_grad and nobody == 0


@pytest.mark.parametrize("word", ["head.module.embedding=7", "head.criterion.levels=[-3]"])
def test_levels_that_do_not_fit_are_one_line(word: str) -> None:
    module = build_module(compose_run([*FROZEN, word]))
    with pytest.raises(ValueError, match=word.split("=")[0]) as raised:
        module.losses(make_batch(), denoise=False)
    assert "\n" not in str(raised.value)
