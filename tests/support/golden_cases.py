"""Load numbers computed with the methods' official code, and compare our methods with them.

`VTAB_PEFT_GOLDEN` names the folder to read; by default it is tests/golden/methods.  A folder holds `manifest.json` and
one `<case>.npz` per case.  Tests read every size from the case, and a case that the folder lacks is skipped.

Each case is recomputed in float64.  Tolerances: output 1e-10, gradients 1e-8 times the largest entry, merged weights
1e-6 times the largest entry.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import Attention, Block
from torch import Tensor, nn
from torch.func import functional_call

OWN_FOLDER = Path(__file__).parents[1] / "golden" / "methods"
"""The project's own set."""

FOLDER = Path(os.environ.get("VTAB_PEFT_GOLDEN") or OWN_FOLDER).expanduser().resolve()
"""The set that the tests run on."""

MANIFEST: dict[str, dict[str, Any]] = json.loads((FOLDER / "manifest.json").read_text())


def entry(name: str) -> dict[str, Any]:
    """Return the manifest entry of a case; skip the test if the folder does not hold the case."""
    if name not in MANIFEST or not (FOLDER / f"{name}.npz").is_file():
        pytest.skip(f"{FOLDER} does not hold the case {name}")
    return MANIFEST[name]


def official_init(name: str) -> dict[str, dict[str, Any]]:
    """Return the statistics of one official initialisation at width 768: tensor name -> mean, std, shape, ..."""
    official = entry(name).get("official_init_d768")
    if isinstance(official, str):
        return official_init(official.removeprefix("same as "))
    if not official:
        pytest.skip(f"{FOLDER} holds no initial values of the case {name}")
    return dict(official)


class Case(Mapping[str, Tensor]):
    """The arrays of one case as float64, its hyper-parameters, and the sizes of its model."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.hyper: dict[str, Any] = entry(name).get("hyper") or {}
        with np.load(FOLDER / f"{name}.npz") as arrays:
            self.arrays = {key: torch.from_numpy(np.asarray(arrays[key], dtype=np.float64)) for key in arrays.files}

    def __getitem__(self, key: str) -> Tensor:
        return self.arrays[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)

    @property
    def width(self) -> int:
        """Number of features of a token."""
        return self.arrays.get("frozen.pos_embed", self["x"]).shape[-1]

    @property
    def heads(self) -> int:
        """Number of attention heads; 1 for a case without attention."""
        return self.hyper.get("num_heads", 1)

    @property
    def hidden(self) -> int:
        """Width of the hidden layer of the MLP; four times the width for a case without MLP."""
        fc1 = next((value for key, value in self.items() if key.endswith("mlp.fc1.weight")), None)
        return 4 * self.width if fc1 is None else len(fc1)

    @property
    def mlp_ratio(self) -> float:
        """The ratio from which timm, which rounds width * ratio down, gets `hidden`."""
        return (self.hidden + 0.5) / self.width

    @property
    def depth(self) -> int:
        """Number of blocks that the case holds."""
        return len({key.split(".")[2] for key in self if key.startswith("frozen.blocks.")}) or 1

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches: `hw` of the manifest, or the square that the tokens after the first fill."""
        if "hw" in self.hyper:
            return tuple(self.hyper["hw"])
        side = round((self["x"].shape[1] - 1) ** 0.5)
        return side, side

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Return the arrays whose names begin with `prefix`, without it."""
        return {key.removeprefix(prefix): value for key, value in self.items() if key.startswith(prefix)}

    def compare(
        self,
        module: nn.Module,
        parameters: Mapping[str, Tensor],
        y_atol: float = 1e-10,
        grad_atol: float = 1e-8,
    ) -> None:
        """Copy the trained tensors of the case into ours; then compare output and gradients.

        Args:
            module: computes `y` from `x`.
            parameters: name in the case -> our tensor of the same size; every trained tensor of the case must be there.
        """
        assert set(parameters) == set(self.part("param.")), "every trained tensor of the case must be compared"
        with torch.no_grad():
            module.double()
            for name, ours in parameters.items():
                ours.copy_(self[f"param.{name}"].reshape(ours.shape))
        y, x = self.backward(module)
        self.check(y, x, {name: ours.grad for name, ours in parameters.items()}, y_atol, grad_atol)

    def compare_through(
        self,
        module: nn.Module,
        ours: Callable[[dict[str, Tensor]], Mapping[str, Tensor]],
        atol: tuple[float, float] = (1e-10, 1e-8),
    ) -> None:
        """Compute our tensors from those of the case, which have other shapes; then compare output and gradients.

        Args:
            module: computes `y` from `x`.
            ours: maps the trained tensors of the case to all trained tensors of `module`; gradients pass through it.
            atol: of the output and of gradients.
        """
        leaves = {name: tensor.clone().requires_grad_() for name, tensor in self.part("param.").items()}
        x, tensors = self["x"].clone().requires_grad_(), dict(ours(leaves))
        trained = {name: p for name, p in module.double().eval().named_parameters() if p.requires_grad}
        assert {name: t.shape for name, t in tensors.items()} == {name: p.shape for name, p in trained.items()}
        y = functional_call(module, tensors, (x,))
        (y * self["cotangent"]).sum().backward()
        self.check(y, x, {name: leaf.grad for name, leaf in leaves.items()}, *atol)

    def backward(self, module: nn.Module) -> tuple[Tensor, Tensor]:
        """Run `module` on `x` and backpropagate the loss of the case; return the output and the input."""
        x = self["x"].clone().requires_grad_(True)
        y = module.double().eval()(x)
        (y * self["cotangent"]).sum().backward()
        return y, x

    def check(
        self,
        y: Tensor,
        x: Tensor,
        gradients: Mapping[str, Tensor | None],
        y_atol: float = 1e-10,
        grad_atol: float = 1e-8,
    ) -> None:
        """Compare an output and gradients with those of the case.

        Args:
            gradients: name in the case -> our gradient, in the case's shape up to reshaping; None counts as zero.
        """
        assert set(gradients) == set(self.part("grad.")), "every trained tensor of the case must be compared"
        torch.testing.assert_close(y.detach(), self["y"], rtol=0, atol=y_atol)
        for name, ours in {"grad_x": x.grad, **{f"grad.{key}": value for key, value in gradients.items()}}.items():
            official = self[name]
            ours = torch.zeros_like(official) if ours is None else ours.reshape(official.shape)
            scale = max(1.0, float(official.abs().max()))
            torch.testing.assert_close(
                ours, official, rtol=0, atol=grad_atol * scale, msg=lambda m, n=name: f"{n}: {m}"
            )

    def check_merged(self, name: str, ours: Tensor) -> None:
        """Compare with `merged.<name>` or `delta.<name>`, which the case holds in float32."""
        official = self[name]
        torch.testing.assert_close(ours.detach(), official, rtol=0, atol=1e-6 * max(1.0, float(official.abs().max())))

    def check_merged_linear(self, prefix: str, ours: nn.Linear) -> None:
        """Compare weight and bias of a merged linear layer with `<prefix>.weight` and `<prefix>.bias`."""
        self.check_merged(f"{prefix}.weight", ours.weight)
        self.check_merged(f"{prefix}.bias", ours.bias)

    def check_output(self, module: nn.Module, atol: float = 1e-10) -> None:
        """Compare the output of a module, such as a merged one, with `y`."""
        with torch.no_grad():
            torch.testing.assert_close(module(self["x"]), self["y"], rtol=0, atol=atol)


def linear(case: Case) -> nn.Linear:
    """Return the frozen linear layer that the case wraps."""
    weight = case["frozen.weight"]
    made = nn.Linear(weight.shape[1], weight.shape[0], dtype=torch.float64).requires_grad_(False)
    made.weight.copy_(weight)
    made.bias.copy_(case["frozen.bias"])
    return made


def block(case: Case, state: Mapping[str, Tensor] | None = None) -> Block:
    """Return the frozen pre-norm block of the case; `state` replaces its frozen tensors."""
    norm = partial(nn.LayerNorm, eps=1e-6)
    made = Block(case.width, case.heads, case.mlp_ratio, qkv_bias=True, norm_layer=norm).double()
    made.load_state_dict(case.part("frozen.") if state is None else dict(state))
    return made.eval().requires_grad_(False)


def attention(case: Case) -> Attention:
    """Return the frozen attention that the case adapts."""
    made = Attention(case.width, case.heads, qkv_bias=True).double().eval().requires_grad_(False)
    made.load_state_dict(case.part("frozen.attn."))
    return made
