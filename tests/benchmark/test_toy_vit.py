"""The embedded backbone is small, loads into timm's plain ViT, and is pretrained."""

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from vtab_peft.benchmark import toy_vit
from vtab_peft.datasets.task import Split
from vtab_peft.datasets.toy import TOY

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pretrained() -> VisionTransformer:
    vit = toy_vit.build().eval()
    vit.load_state_dict({name: tensor.float() for name, tensor in load_file(toy_vit.WEIGHTS).items()}, strict=True)
    return vit


def random_twin(seed: int = 0) -> VisionTransformer:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return toy_vit.build().eval()


def features(vit: VisionTransformer, split: Split) -> Tensor:
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in split.images])).permute(0, 3, 1, 2)
    with torch.no_grad():
        return vit((pixels.float() / 255 - 0.5) / 0.5)


def probed(vit: VisionTransformer, train: Split, val: Split, classes: int) -> float:
    """Return the accuracy on `val` of a ridge regression on the standardised class token of `train`."""
    seen, unseen = features(vit, train), features(vit, val)
    mean, std = seen.mean(0), seen.std(0) + 1e-6
    seen, unseen = ((f - mean) / std for f in (seen, unseen))
    gram = seen.T @ seen + 10 * torch.eye(seen.shape[1])
    weight = torch.linalg.solve(
        gram, seen.T @ (F.one_hot(torch.from_numpy(train.labels), classes).float() - 1 / classes)
    )
    return ((unseen @ weight).argmax(1).numpy() == val.labels).mean().item()


def test_it_is_a_plain_timm_vit_of_17_tokens(pretrained):
    assert type(pretrained) is VisionTransformer
    assert pretrained.global_pool == "token"
    assert pretrained.pos_embed is not None
    assert pretrained.pos_embed.shape == (1, 17, pretrained.embed_dim)


def test_it_stays_small(pretrained):
    assert sum(p.numel() for p in pretrained.parameters()) == 894_080
    assert toy_vit.WEIGHTS.stat().st_size < 3e6
    assert {tensor.dtype for tensor in load_file(toy_vit.WEIGHTS).values()} == {torch.float16}


def test_features_are_finite_and_repeatable(pretrained):
    pictures = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        first, second = pretrained(pictures), pretrained(pictures)
    assert first.shape == (4, 128)
    assert first.isfinite().all()
    assert torch.equal(first, second)
    assert (first.std(0) > 1e-3).all()  # no dead feature


def test_it_can_be_built_with_a_classifier_and_for_another_size():
    assert toy_vit.build(num_classes=7)(torch.zeros(2, 3, 64, 64)).shape == (2, 7)
    assert toy_vit.build(image_size=96)(torch.zeros(2, 3, 96, 96)).shape == (2, 128)


@pytest.mark.slow
def test_pretrained_features_beat_a_random_twin(pretrained):
    task = TOY["orientation"]
    splits = task.load(task)
    better, worse = (probed(vit, splits["train"], splits["val"], task.classes) for vit in (pretrained, random_twin()))
    assert better > worse + 0.15


@pytest.mark.parametrize("name", ["benchmark/toy_vit/__init__", "perf/toy_vit_images", "perf/toy_vit_pretrain"])
def test_pretraining_does_not_import_the_toy_tasks(name: str):
    modules = set()
    for node in ast.walk(ast.parse((ROOT / f"{name}.py").read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            modules.add(node.module or "")
    assert modules
    assert {module for module in modules if "datasets" in module or "vtab" in module} <= {"vtab_peft.benchmark.toy_vit"}


def test_pictures_of_pretraining_follow_from_the_seed():
    from toy_vit_images import GLYPHS, outlines, spectra, strokes

    for maker in (outlines, strokes, spectra):
        first, second = (maker(6, torch.Generator().manual_seed(3)) for _ in range(2))
        assert torch.equal(first, second)
        assert not torch.equal(first, maker(6, torch.Generator().manual_seed(4)))
        assert first.min() >= 0
        assert first.max() <= 1
    assert GLYPHS % 2 == 0
