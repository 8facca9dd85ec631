"""Adapters against numbers computed with official code."""

from golden_cases import MANIFEST, Case, block
from torch import nn
from vtab_peft.methods.adaptformer import ParallelBottleneck
from vtab_peft.methods.blocks import branches


def test_adaptformer_block() -> None:
    case, hyper = Case("adaptformer_block"), MANIFEST["adaptformer_block"]["hyper"]
    attention, mlp = branches(block(case.part("frozen.")))
    mlp.beside = adapter = ParallelBottleneck(48, hyper["bottleneck"], hyper["scale"], 0.1)
    case.compare(
        nn.Sequential(attention, mlp),
        {
            f"adaptmlp.{theirs}.{part}": getattr(ours, part)
            for ours, theirs in ((adapter.down, "down_proj"), (adapter.up, "up_proj"))
            for part in ("weight", "bias")
        },
    )
