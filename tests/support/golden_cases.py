"""Numbers computed with the methods' official code (tests/golden/methods/), and how ours are compared with them.

Every case is recomputed in float64: output to 1e-10, gradients to 1e-8 of the largest entry, merged weights to 1e-6.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from timm.models.vision_transformer import Attention, Block
from torch import Tensor, nn

FOLDER = Path(__file__).parents[1] / "golden" / "methods"
MANIFEST = json.loads((FOLDER / "manifest.json").read_text())


class Case(Mapping[str, Tensor]):
    """The arrays of one case, as float64."""

    def __init__(self, name: str) -> None:
        with np.load(FOLDER / f"{name}.npz") as arrays:
            self.arrays = {key: torch.from_numpy(np.asarray(arrays[key], dtype=np.float64)) for key in arrays.files}

    def __getitem__(self, key: str) -> Tensor:
        return self.arrays[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)

    def part(self, prefix: str) -> dict[str, Tensor]:
        return {key.removeprefix(prefix): value for key, value in self.items() if key.startswith(prefix)}

    def compare(
        self,
        module: nn.Module,
        parameters: Mapping[str, Tensor],
        y_atol: float = 1e-10,
        grad_atol: float = 1e-8,
    ) -> None:
        """Give our parameters the values of the case; output and every gradient must then be those of the case.

        parameters: name in the case -> ours, of the same size; all that the case trains must be there.
        """
        assert set(parameters) == set(self.part("param.")), "every trained tensor of the case must be compared"
        module.double().eval()
        with torch.no_grad():
            for name, ours in parameters.items():
                ours.copy_(self[f"param.{name}"].reshape(ours.shape))
        x = self["x"].clone().requires_grad_(True)
        y = module(x)
        (y * self["cotangent"]).sum().backward()
        self.check(y, x, {name: ours.grad for name, ours in parameters.items()}, y_atol, grad_atol)

    def check(
        self,
        y: Tensor,
        x: Tensor,
        gradients: Mapping[str, Tensor | None],
        y_atol: float = 1e-10,
        grad_atol: float = 1e-8,
    ) -> None:
        """gradients: name in the case -> ours, in the case's shape up to reshaping; None counts as zero."""
        assert set(gradients) == set(self.part("grad.")), "every trained tensor of the case must be compared"
        torch.testing.assert_close(y.detach(), self["y"], rtol=0, atol=y_atol)
        for name, ours in {"grad_x": x.grad, **{f"grad.{key}": value for key, value in gradients.items()}}.items():
            golden = self[name]
            ours = torch.zeros_like(golden) if ours is None else ours.reshape(golden.shape)
            scale = max(1.0, float(golden.abs().max()))
            torch.testing.assert_close(ours, golden, rtol=0, atol=grad_atol * scale, msg=lambda m, n=name: f"{n}: {m}")

    def check_merged(self, name: str, ours: Tensor) -> None:
        """Against `merged.<name>` or `delta.<name>`, which the case holds in float32."""
        golden = self[name]
        torch.testing.assert_close(ours.detach(), golden, rtol=0, atol=1e-6 * max(1.0, float(golden.abs().max())))


def linear(case: Case, bias: bool = True) -> nn.Linear:
    """The frozen linear map that the case wraps."""
    weight = case["frozen.weight"]
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias, dtype=torch.float64).requires_grad_(False)
    made.weight.copy_(weight)
    if bias:
        made.bias.copy_(case["frozen.bias"])
    return made


def block(frozen: Mapping[str, Tensor]) -> Block:
    """A frozen pre-norm block of width 48 and 4 heads, by timm's names."""
    made = Block(48, 4, qkv_bias=True, norm_layer=lambda d, **_: nn.LayerNorm(d, eps=1e-6)).double()
    made.load_state_dict(dict(frozen))
    return made.eval().requires_grad_(False)


def attention(case: Case) -> Attention:
    """The frozen attention of width 48 and 4 heads that the case adapts."""
    made = Attention(48, 4, qkv_bias=True).double().eval().requires_grad_(False)
    made.load_state_dict(case.part("frozen.attn."))
    return made
