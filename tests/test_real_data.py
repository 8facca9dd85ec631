"""Tests with real images and weights in ../shared/data; skipped where this folder is missing."""

from pathlib import Path

import pytest
import torch
from vtab_peft.benchmark.engine.backbone import load
from vtab_peft.datasets.cache import Preprocessing, build
from vtab_peft.datasets.check import check
from vtab_peft.datasets.folder import folder_task

DATA = Path(__file__).parents[2] / "shared" / "data"
WEIGHTS = DATA / "weights" / "vit_tiny_patch16_224.augreg_in21k_ft_in1k.fp16.safetensors"

pytestmark = pytest.mark.skipif(not WEIGHTS.exists(), reason="no ../shared/data beside the checkout")


def test_every_folder_of_real_images_is_complete() -> None:
    results = {path.name: check(folder_task(path)) for path in sorted((DATA / "tasks").iterdir())}
    assert {name: result.state for name, result in results.items()} == dict.fromkeys(results, "found")
    assert all((v.counts["train"], v.counts["val"]) == (800, 200) for v in results.values())


@pytest.mark.slow
def test_pretrained_features_separate_textures(tmp_path: Path) -> None:
    """Nearest class mean on dtd_10cls is far above chance (10 %) if weights, normalisation and labels match."""
    backbone = load("vit_tiny_patch16_224.augreg_in21k_ft_in1k", str(WEIGHTS))
    data = build(folder_task(DATA / "tasks" / "dtd_10cls"), Preprocessing(224, "bicubic"), tmp_path)

    def features(split: str) -> torch.Tensor:
        images = torch.from_numpy(data.images(split)[:200]).float() / 127.5 - 1
        with torch.no_grad():
            return torch.nn.functional.normalize(backbone.vit(images), dim=1)

    seen, labels = features("train"), torch.from_numpy(data.labels("train")[:200])
    means = torch.stack([seen[labels == c].mean(0) for c in range(10)])
    predicted = (features("val") @ means.T).argmax(1)
    assert (predicted == torch.from_numpy(data.labels("val"))).float().mean() > 0.7
