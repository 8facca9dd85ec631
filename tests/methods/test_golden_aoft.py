"""AOFT against numbers computed with its official code; the paper's form against the published formula."""

import pytest
import torch
from golden_cases import Case, block, linear
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from vtab_peft.methods import parse
from vtab_peft.methods.aoft import AOFTUpdate, AOFTUpdateWithoutBias, approximately_orthogonal
from vtab_peft.methods.aoft_adapter import AOFTAdapterReleased
from vtab_peft.methods.updates import UpdatedLinear, merge_linears


class Vectors:
    """Our parameters under the names of the released code: q0 and q' are one vector here and two there."""

    def __init__(self, case: Case, updates: dict[str, AOFTUpdate]) -> None:
        self.case, self.updates = case, updates
        for prefix, update in updates.items():
            for ours, side in ((update.q_down, "left"), (update.q_up, "right")):
                q0, tail = case[f"param.{prefix}q_0_{side}"], case[f"param.{prefix}q_{side}"]
                ours.data = torch.cat([q0.reshape(1), tail.flatten()])
            update.scale.data = case[f"param.{prefix}q_lambda"].flatten()

    def compare(self, module: nn.Module) -> None:
        x = self.case["x"].clone().requires_grad_(True)
        y = module.double().eval()(x)
        (y * self.case["cotangent"]).sum().backward()
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
def test_one_linear_map(name: str) -> None:
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


def test_lora_in_a_block() -> None:
    case = Case("aoft_lora_block")
    vit = around(block(case.part("frozen.")))
    parse("aoft_lora_released").inject(vit)
    adapted = vit.blocks[0].double()
    places = {"attn.q.": "attn.qkv", "attn.v.": "attn.qkv", "mlp.fc1.": "mlp.fc1", "mlp.fc2.": "mlp.fc2"}
    updates = {p: adapted.get_submodule(f"{place}.updates.{p.split('.')[1]}") for p, place in places.items()}
    Vectors(case, updates).compare(adapted)
    merge_linears(vit)
    torch.testing.assert_close(vit.blocks[0](case["x"]), case["y"], rtol=0, atol=1e-10)


def test_adapters_in_a_block() -> None:
    """The golden case moved the adapters' frozen LayerNorms away from weight 1, bias 0."""
    case = Case("aoft_adapter_block")
    frozen = case.part("frozen.")
    vit = around(block({name: tensor for name, tensor in frozen.items() if not name.startswith("adapter")}))
    AOFTAdapterReleased().inject(vit)
    adapted = vit.blocks[0].double()
    updates = {}
    for place, name in ((1, "adapter1"), (3, "adapter2")):
        chain = adapted[place].adapter
        norm = nn.LayerNorm(48, eps=1e-6, dtype=torch.float64)
        norm.load_state_dict({key: frozen[f"{name}_norm.{key}"] for key in ("weight", "bias")})
        chain[0] = norm.requires_grad_(False)
        updates[f"{name}."] = chain[1]
    Vectors(case, updates).compare(adapted)


def around(only: nn.Module) -> VisionTransformer:
    vit = VisionTransformer(img_size=16, patch_size=4, embed_dim=48, depth=1, num_heads=4, num_classes=0).double()
    vit.blocks[0] = only
    return vit.requires_grad_(False)


def test_the_adapter_matrix() -> None:
    case = Case("aoft_adapter_linear")
    update = AOFTUpdate(48, 48, 8, "released", "zeros", "zeros")
    Vectors(case, {"": update}).compare(update)


def test_the_matrix_in_both_forms() -> None:
    case = Case("aoft_matrix")
    kinds = [key.removesuffix(".q0") for key in case if key.endswith(".q0")]
    assert kinds
    for kind in kinds:
        q = torch.cat([case[f"{kind}.q0"].reshape(1), case[f"{kind}.tail"].flatten()])
        for form in ("paper", "released"):
            golden = case[f"{kind}.AO_{form}"]
            torch.testing.assert_close(
                approximately_orthogonal(q, golden.shape[1], form), golden, rtol=0, atol=1e-12, msg=f"{kind} {form}"
            )
