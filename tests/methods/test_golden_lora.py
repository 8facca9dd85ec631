"""The LoRA family against numbers computed with official code."""

from golden_cases import MANIFEST, Case, linear
from vtab_peft.methods.lora import LowRank
from vtab_peft.methods.updates import UpdatedLinear


def test_lora() -> None:
    case, hyper = Case("lora"), MANIFEST["lora"]["hyper"]
    update = LowRank(case["frozen.weight"], hyper["r"], hyper["alpha"] / hyper["r"])
    module = UpdatedLinear(linear(case), ("o",), {"o": update})
    case.compare(module, {"lora_A.weight": update.a, "lora_B.weight": update.b})
    case.check_merged("merged.weight", module.merged().weight)
