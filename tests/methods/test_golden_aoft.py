"""Compare AOFT with numbers computed with its official code, and its paper form with the published formula."""

import pytest
import torch
from golden_blocks import vit_around
from golden_cases import Case, block, linear
from torch import nn
from vtab_peft.methods import parse
from vtab_peft.methods.aoft import AOFTUpdate, AOFTUpdateWithoutBias, approximately_orthogonal
from vtab_peft.methods.aoft_adapter import AOFTAdapterReleased
from vtab_peft.methods.updates import UpdatedLinear, merge_linears


class Vectors:
    """Our parameters under the names of the released code, which splits each of our vectors into q0 and q'."""

    def __init__(self, case: Case, updates: dict[str, AOFTUpdate]) -> None:
        self.case, self.updates = case, updates
        for prefix, update in updates.items():
            for ours, side in ((update.q_down, "left"), (update.q_up, "right")):
                q0, tail = case[f"param.{prefix}q_0_{side}"], case[f"param.{prefix}q_{side}"]
                ours.data = torch.cat([q0.reshape(1), tail.flatten()])
            update.scale.data = case[f"param.{prefix}q_lambda"].flatten()

    def compare(self, module: nn.Module) -> None:
        y, x = self.case.backward(module)
        gradients = {}
        for prefix, update in self.updates.items():
            gradients[f"{prefix}q_lambda"] = update.scale.grad
            for ours, side in ((update.q_down, "left"), (update.q_up, "right")):
                gradients |= {f"{prefix}q_0_{side}": ours.grad[:1], f"{prefix}q_{side}": ours.grad[1:]}
        self.case.check(y, x, gradients)


@pytest.mark.parametrize(
    "name",
    [
        "aoft_lora_paper_q",
        "aoft_lora_paper_fc1",
        "aoft_lora_released_q",
        "aoft_lora_released_fc1",
        "aoft_lora_released_fc2",
        "aoft_lora_released_initial",
    ],
)
def test_aoft_linear(name: str) -> None:
    case = Case(name)
    (outputs, inputs), rank = case["frozen.weight"].shape, case["param.q_lambda"].numel()
    form = "released" if "released" in name else "paper"
    shape = inputs, outputs, rank, form, "zeros", "zeros"
    update = AOFTUpdateWithoutBias(*shape, bias=case["frozen.bias"]) if form == "released" else AOFTUpdate(*shape)
    vectors = Vectors(case, {"": update})
    module = UpdatedLinear(linear(case), ("o",), {"o": update})
    vectors.compare(module)
    merged = module.merged()
    if "merged.weight" in case:
        case.check_merged("merged.weight", merged.weight)
    assert (merged.bias.abs().max() == 0) == (form == "released")


def test_aoft_lora_block() -> None:
    case = Case("aoft_lora_block")
    vit = vit_around(case, block(case))
    parse(f"aoft_lora_released(rank={case.hyper['r']})").inject(vit)
    adapted = vit.blocks[0].double()
    places = {"attn.q.": "attn.qkv", "attn.v.": "attn.qkv", "mlp.fc1.": "mlp.fc1", "mlp.fc2.": "mlp.fc2"}
    updates = {p: adapted.get_submodule(f"{place}.updates.{p.split('.')[1]}") for p, place in places.items()}
    Vectors(case, updates).compare(adapted)
    merge_linears(vit)
    case.check_output(vit.blocks)


def test_aoft_adapter_block() -> None:
    """Compare a case whose frozen LayerNorms of the adapters differ from weight 1, bias 0."""
    case = Case("aoft_adapter_block")
    frozen = case.part("frozen.")
    plain = block(case, {name: tensor for name, tensor in frozen.items() if not name.startswith("adapter")})
    vit = vit_around(case, plain)
    AOFTAdapterReleased(rank=case.hyper["r"]).inject(vit)
    adapted = vit.blocks[0].double()
    updates = {}
    for place, name in ((1, "adapter1"), (3, "adapter2")):
        chain = adapted[place].adapter
        norm = nn.LayerNorm(case.width, eps=1e-6, dtype=torch.float64)
        norm.load_state_dict({key: frozen[f"{name}_norm.{key}"] for key in ("weight", "bias")})
        chain[0] = norm.requires_grad_(False)
        updates[f"{name}."] = chain[1]
    Vectors(case, updates).compare(adapted)


def test_aoft_adapter_matrix() -> None:
    case = Case("aoft_adapter_linear")
    update = AOFTUpdate(case.width, case.width, case["param.q_lambda"].numel(), "released", "zeros", "zeros")
    Vectors(case, {"": update}).compare(update)


def test_approximately_orthogonal_matrix() -> None:
    case = Case("aoft_matrix")
    kinds = [key.removesuffix(".q0") for key in case if key.endswith(".q0")]
    assert kinds
    for kind in kinds:
        q = torch.cat([case[f"{kind}.q0"].reshape(1), case[f"{kind}.tail"].flatten()])
        for form in ("paper", "released"):
            official = case[f"{kind}.AO_{form}"]
            ours = approximately_orthogonal(q, official.shape[1], form)
            torch.testing.assert_close(ours, official, rtol=0, atol=1e-12, msg=f"{kind} {form}")
