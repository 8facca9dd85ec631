"""Trainable parameters on ViT-B/16: published, computed by hand, and of official modules."""

import csv
from pathlib import Path

import pytest
import timm
import torch
from golden_cases import entry
from timm.models.vision_transformer import VisionTransformer
from vtab_peft.methods import parse

PUBLISHED_COUNTS = {
    "linear": "linear",
    "full": "full",
    "bitfit": "bitfit (all biases incl. LN, patch-embed)",
    "partial": "partial-1 (last block + final norm)",
    "layernorm": "layernorm (25 LNs, w+b)",
    "lora": "lora q,v r=8",
    "lora(rank=1)": "lora q,v r=1",
    "lora(rank=4)": "lora q,v r=4",
    "lora(rank=16)": "lora q,v r=16",
    "lora(rank=32)": "lora q,v r=32",
    "lora(sites='qkvo')": "lora q,k,v,o r=8",
    "lora(sites='qkvo,fc1,fc2')": "lora all six linears r=8",
    "lora_plus": "lora q,v r=8",
    "rslora": "lora q,v r=8",
    "rslora(rank=32)": "lora q,v r=32",
    "lora_fused": "lora fused-qkv shared A r=8 (NOAH/OSU)",
    "lora_fused(rank=1)": "lora fused-qkv shared A r=1 (NOAH/OSU)",
    "lora_fused(rank=16)": "lora fused-qkv shared A r=16 (NOAH/OSU)",
    "lora_fused(rank=32)": "lora fused-qkv shared A r=32 (NOAH/OSU)",
    "dora": "dora q,v r=8",
    "pissa": "pissa q,v r=8",
    "kadaptation": "kadaptation q,v n=32 (+b per layer)",
    "adalora": "adalora q,v init_r=12 (training)",
    "vera(rank=64)": "vera q,v r=64",
    "vera": "vera q,v r=256",
    "vera(rank=1024)": "vera q,v r=1024",
    "randlora(rank=8)": "randlora q,v r=8",
    "randlora": "randlora q,v r=32",
    "loha": "loha q,v r=8",
    "lokr": "lokr q,v r=8 (24x24 (x) 32x32=A8B8)",
    "fourierft": "fourierft q,v n=1000",
    "oft": "oft q,v b=32",
    "boft": "boft q,v b=4,m=1 (PEFT stores b*b blocks + scale)",
    "hra": "hra q,v r=8",
    "ia3": "ia3 (k,v,fc2-input)",
    "hf": "lora q,v r=8",
    "bi_lora": "lora q,v r=32",
    "bi_adaptformer(bottleneck=8)": "bi-adaptformer h=8 (no biases; fp count)",
    "bi_adaptformer": "bi-adaptformer h=32 (no biases; fp count)",
    "bi_adaptformer(bottleneck=64)": "bi-adaptformer h=64 (no biases; fp count)",
    "adaptformer": "adapter-pfeiffer r=8 / adaptformer r=8 (biases)",
    "adaptformer(bottleneck=64)": "adapter-pfeiffer r=64 / adaptformer r=64 (biases)",
    "adapter_houlsby(bottleneck=1)": "adapter-houlsby r=1 (attn+mlp)",
    "adapter_houlsby(bottleneck=4)": "adapter-houlsby r=4 (attn+mlp)",
    "adapter_houlsby": "adapter-houlsby r=8 (attn+mlp)",
    "adapter_houlsby(bottleneck=16)": "adapter-houlsby r=16 (attn+mlp)",
    "adapter_houlsby(bottleneck=32)": "adapter-houlsby r=32 (attn+mlp)",
    "adapter_houlsby(bottleneck=64)": "adapter-houlsby r=64 (attn+mlp)",
    "adapter_intermediate(bottleneck=1)": "adapter-pfeiffer r=1 / adaptformer r=1 (biases)",
    "adapter_intermediate(bottleneck=4)": "adapter-pfeiffer r=4 / adaptformer r=4 (biases)",
    "adapter_intermediate": "adapter-pfeiffer r=8 / adaptformer r=8 (biases)",
    "adapter_intermediate(bottleneck=16)": "adapter-pfeiffer r=16 / adaptformer r=16 (biases)",
    "adapter_intermediate(bottleneck=32)": "adapter-pfeiffer r=32 / adaptformer r=32 (biases)",
    "adapter_intermediate(bottleneck=64)": "adapter-pfeiffer r=64 / adaptformer r=64 (biases)",
    "adapter_noah": "adapter-pfeiffer r=8 / adaptformer r=8 (biases)",
    "adapter_parallel": "adapter-pfeiffer r=8 / adaptformer r=8 (biases)",
    "adapter_pre": "adapter-pfeiffer r=8 / adaptformer r=8 (biases)",
    "adapter_plus": "adapter+ r=8 (post, channel scale)",
    "convpass": "convpass h=8 (attn+mlp)",
    "convpass_attn": "convpass-attn h=8",
    "repadapter": "repadapter-block h=8 g=2",
    "repadapter(where='attn')": "repadapter-attn h=8 g=2",
    "arc": "arc r=50 (attn+mlp)",
    "arc(where='attn')": "arc_att r=50",
    "mona": "mona bottleneck 64 x2/block",
    "vpt_deep(tokens=1)": "vpt-deep p=1",
    "vpt_deep(tokens=5)": "vpt-deep p=5",
    "vpt_deep": "vpt-deep p=10",
    "vpt_deep(tokens=50)": "vpt-deep p=50",
    "vpt_deep(tokens=100)": "vpt-deep p=100",
    "vpt_deep(tokens=200)": "vpt-deep p=200",
    "vpt_shallow(tokens=1)": "vpt-shallow p=1",
    "vpt_shallow(tokens=5)": "vpt-shallow p=5",
    "vpt_shallow": "vpt-shallow p=10",
    "vpt_shallow(tokens=50)": "vpt-shallow p=50",
    "vpt_shallow(tokens=100)": "vpt-shallow p=100",
    "vpt_shallow(tokens=200)": "vpt-shallow p=200",
    "sct": "sct_attn topN=96",
    "dtl": "dtl r=2",
    "dtl_plus": "dtl+ r=2 (+3x3 depthwise)",
    "gps": "gps K=1 (1 conn/neuron incl. patch-embed + biases excl. LN)",
    "ssf": "ssf",
    "rlrr": "rlrr",
    "difffit": "difffit (bias+LN weight+2 gamma/block)",
    "fact_tt(rank=4)": "fact-tt r=4",
    "fact_tt(rank=8)": "fact-tt r=8",
    "fact_tt": "fact-tt r=16",
    "fact_tk(rank=8)": "fact-tk r=8",
    "fact_tk(rank=16)": "fact-tk r=16",
    "fact_tk": "fact-tk r=32",
    "cara(rank=16)": "cara r=16",
    "cara": "cara r=32",
    "glora(a='lora', c='lora')": "glora r=4 supernet upper bound",  # all that the search can choose from
    "hta": "hta q,k,v,o rank-1",
    "hta(sites='qv')": "hta q,v rank-1",
    "vqt": "vqt p=10",
    "apla": "apla r=8 rows of attn.proj (+bias)",
    "apla(rank=16)": "apla r=16 rows of attn.proj (+bias)",
    "apla(rank=32)": "apla r=32 rows of attn.proj (+bias)",
    "apla(rank=64)": "apla r=64 rows of attn.proj (+bias)",
    "apla(rank=128)": "apla r=128 rows of attn.proj (+bias)",
    "apla(rank=768)": "apla full attn.proj",
}
"""Our spec -> row of tests/golden/param_counts_vitb16.csv."""


COMPUTED_COUNTS = {
    "aoft_lora(scale='none')": 36_864,
    "aoft_lora": 36_864 + 24 * 8,
    "aoft_lora(sites='qv,fc1,fc2')": 129_408,
    "aoft_lora(rank=1)": 36_864 + 24,
    "aoft_adapter(scale='none')": 18_432,
    "aoft_adapter": 18_432 + 12 * 8,
    "aoft_lora_paper": 36_864,
    "aoft_lora_dagger": 129_408,
    "aoft_lora_released": 129_408,
    "aoft_adapter_paper": 18_432,
    "aoft_adapter_released": 37_056,
    "aoft_vpt": 9_216,
    "spt_lora": 400_000,
    "spt_adapter(budget=1_000_000)": 1_000_000,
    "spt_lora(budget=1_000_000_000)": 1_327_104 + 38_400 + 82_944 + 768,  # LoRA, LayerNorms, biases, class token
    "miss": 24 * 16 * 768,
    "gralora": 24 * 8 * (768 + 768),
    "hira": 24 * 32 * (768 + 768),
    "delora": 24 * (8 * (768 + 768) + 1),
    "deft": 24 * 8 * (768 + 768),
    "peanut": 24 * 32 * 2 * 768,
    "peanut(layers=1)": 24 * (32 * 2 * 768 + 2 * 32 * 32),
    "vblora": 24 * 4 * 48 * 64 + 64 * 32,
    "unilora": 256,
    "tinylora": 24 * 64,
    "pvera": 24 * (768 + 512),
    "road": 24 * 768,
    "road(variant=4)": 24 * 4 * 768,
    "psoft": 24 * (32 * 31 // 2 + 64),
    "c3a": 24 * 768 * 24,
    "shira": 24 * 8 * (768 + 768),
    "waveft": 24 * 1000,
    "supertuning": 24 * 5_898,  # one hundredth of 589,824, rounded down
    "consolidator": 304_128 + 82_944 + 38_400,  # grouped maps, biases of linear maps, LayerNorms
    "da_vpt": 12 * 20 * 768,
    "synqt": 2_650_514 - 18_469,  # the released module without the tensors that no output depends on
    "wegeft": 2 * 16 * 768,
    "adapter_pfeiffer": 156_768 + 24 * 768,  # with its own LayerNorm, which the rows of that name lack
}
"""Trainable parameters on ViT-B/16 without head, computed by hand from D = 768 and D' = 3072."""


OFFICIAL_COUNTS = {
    "da_vpt_plus": "davpt_deep",
    "compacter": "compacter_adapter",
    "gift": "gift_linear",
    "karst": "karst_linear",
    "lorand": "lorand_module",
    "lorand(factor=4)": "lorand_module_factor4",
    "res_tuning": "restuning_bypass",
    "svft": "svft_plain",
    "svft(off_diagonals=2)": "svft_banded",
    "dyt": "dyt_block",
    "pace": "pace_block",
    "cvpt": "cvpt_deep",
    "e2vpt": "e2vpt_deep",
    "gate_vpt": "gatevpt_moco",
    "hst": "hst_encoder",
    "sa2vp": "sa2vp_encoder",
    "vapt": "vapt_deep",
    "goft": "goft",
    "goft(scale=False)": "goft_noscale",
    "hydra": "hydra_block",
    "mlae": "mlae_linear_eval",
    "qgoft": "qgoft",
    "vfpt": "vfpt_deep_all",
}
"""Our spec -> golden case whose manifest entry has the count of the official module."""


WITHOUT_METHOD = {
    "adalora q,v target avg r=8 (after pruning)",  # triplets are trained before they are switched off
    "boft q,v b=4,m=1 skew-only count",  # the same method; this row counts the skew part only
    "side-tuning",  # declined: it needs a pretrained AlexNet
    "[mean VTAB head",
}  # fmt: skip
"""Beginnings of rows that have no method here."""


def listed_counts() -> dict[str, float]:
    path = Path(__file__).parents[1] / "golden" / "param_counts_vitb16.csv"
    with path.open() as file:
        return {row["method_config"]: float(row["trainable_params_excl_head"]) for row in csv.DictReader(file)}


def test_every_listed_count_is_compared() -> None:
    rest = set(listed_counts()) - set(PUBLISHED_COUNTS.values())
    assert not [row for row in rest if not row.startswith(tuple(WITHOUT_METHOD))]


@pytest.fixture(scope="module")
def vit_base() -> VisionTransformer:
    with torch.device("meta"):
        return timm.create_model("vit_base_patch16_224", num_classes=0)


@pytest.mark.parametrize("spec", OFFICIAL_COUNTS)
def test_counts_on_vit_b16_match_official_modules(vit_base: VisionTransformer, spec: str) -> None:
    expected = entry(OFFICIAL_COUNTS[spec]).get("params_vitb16")
    if expected is None:
        pytest.skip("the set of golden numbers holds no counts")
    assert parse(spec).expected_params(vit_base) == expected


@pytest.mark.parametrize("spec", [*PUBLISHED_COUNTS, *COMPUTED_COUNTS])
def test_counts_on_vit_b16_match_published_ones(vit_base: VisionTransformer, spec: str) -> None:
    expected = COMPUTED_COUNTS[spec] if spec in COMPUTED_COUNTS else listed_counts()[PUBLISHED_COUNTS[spec]]
    assert parse(spec).expected_params(vit_base) == expected
