"""A restored adapter gives the logits of its run, bit for bit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from vtab_peft.benchmark.checkpoints import adapter_checkpoint
from vtab_peft.benchmark.checkpoints.restore import TrainedModel
from vtab_peft.benchmark.engine.backbone import Backbone
from vtab_peft.benchmark.engine.evaluate import compute_logits
from vtab_peft.benchmark.engine.live_model import LiveModel
from vtab_peft.benchmark.engine.numerics import Numerics
from vtab_peft.benchmark.engine.trainer import Trained, train_and_evaluate
from vtab_peft.benchmark.plan import BackboneInfo, MethodInfo, SweepConfig, make_plan
from vtab_peft.benchmark.recipes import RECIPES
from vtab_peft.benchmark.spec import MethodRef
from vtab_peft.datasets.cache import CachedTask
from vtab_peft.methods import parse

METHODS = (
    *("adalora", "adaptformer", "bitfit", "aoft_adapter", "aoft_lora", "convpass", "fact_tt", "full", "linear"),
    "hst",
)
"""A method of each kind: updates, transforms, adapters, selected tensors, features of another width."""


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["lora", *(pytest.param(name, marks=pytest.mark.slow) for name in METHODS)])
def test_restored_logits_equal_those_of_the_run(
    name: str, precision: str, backbone: Backbone, data: CachedTask, tmp_path: Path
) -> None:
    method, recipe = parse(name), replace(RECIPES["smoke"], epochs=1, probe_epochs=1, batch_size=12, drop_path=0.1)
    recipe = replace(recipe, precision=precision)
    info = BackboneInfo(backbone.ref, None, backbone.mean, backbone.std, backbone.image_size, (), 1.0, "test")
    ref = MethodRef(name=name.partition("(")[0], args=method.args(), version=method.version, plugin=None, spec=name)
    described = MethodInfo(ref, method.title, method.lr, method.frozen_features, 0)
    (planned,) = make_plan(info, [described], [data], SweepConfig(recipe, [0]))
    spec = planned.spec
    live, images = LiveModel(torch.device("cpu"), Numerics()), np.array(data.images("test"))
    expected: list[torch.Tensor] = []
    file = tmp_path / "adapter.safetensors"

    def keep(trained: Trained) -> None:
        expected.append(compute_logits(live, trained.head, images))
        file.write_bytes(adapter_checkpoint.pack(spec, trained))

    train_and_evaluate(spec, method, backbone, data, live, on_trained=keep)
    checkpoint = adapter_checkpoint.read(file)
    restored = TrainedModel(file, checkpoint, None, backbone, adapter_checkpoint.restore(checkpoint, backbone))
    assert torch.equal(restored.logits(images), expected[0])
