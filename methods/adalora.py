"""AdaLoRA (Zhang et al., ICLR 2023, arXiv:2303.10512), computed by Hugging Face peft, with its schedule of ranks."""

from dataclasses import dataclass
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from .base import Paper, register
from .hf_peft import FromPeft, tuned_layers
from .updates import site_shapes


@register("adalora")
@dataclass(frozen=True)
class AdaLoRA(FromPeft):
    """Low-rank updates as singular triplets, of which those that matter little are switched off while training.

    The number of triplets in all weights together falls with the cube of the time that is left.  A triplet matters by
    its smoothed |weight x gradient| and how much that varies.  A penalty keeps the singular vectors orthonormal.
    """

    rank: int = 12
    target_rank: int = 8
    """Mean over the weights at the end; both ranks as peft (tuners/adalora/config.py)."""
    alpha: float = 32.0
    """NLU/scripts/run_debertav3_rte.sh, as the other numbers from here on; peft has 8."""
    hold: float = 0.15
    """Share of the steps before the number falls; there 600 of 3900 steps."""
    settle: float = 0.46
    """Share of the steps after it has fallen; there 1800 of 3900 steps."""
    orthogonality: float = 0.3
    """Weight of the penalty; peft has 0.5."""
    title = "AdaLoRA"
    paper = Paper("ICLR", 2023, "2303.10512", "QingruZhang/AdaLoRA")
    equation = r"W' = W + \tfrac{\alpha}{r} P\, \mathrm{diag}(e)\, Q,\ \text{few } e \neq 0"
    version = 2  # 1 had peft's alpha of 8 and penalty of 0.5
    search = {"target_rank": (2, 8), "alpha": (8.0, 32.0)}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target_rank >= self.rank:
            raise ValueError(f"target_rank={self.target_rank} must be below rank={self.rank}")
        if self.hold < 0 or self.settle < 0 or self.hold + self.settle >= 1:
            raise ValueError(f"hold={self.hold} and settle={self.settle} must be shares of the steps that leave some")

    def tuner(self) -> tuple[str, dict[str, Any]]:
        options = {"init_r": self.rank, "target_r": self.target_rank, "lora_alpha": self.alpha}
        return "adalora", {**options, "total_step": 1}  # until `after_step` knows

    def expected_params(self, vit: VisionTransformer) -> int:
        return sum(self.rank * (inputs + 1 + outputs) for inputs, outputs in site_shapes(vit, self.sites))

    def inject(self, vit: VisionTransformer) -> None:
        from_peft = self.put_in(vit)
        for layer in tuned_layers(vit).values():
            del layer.ranknum  # a frozen parameter that never changes
            layer.ranknum = {"default": float(self.rank)}
        vit.__dict__["from_peft"] = from_peft  # which holds `vit`, so that it must not become a module in it

    def merge(self, vit: VisionTransformer) -> None:
        super().merge(vit)
        del vit.__dict__["from_peft"]

    def penalty(self, vit: VisionTransformer) -> Tensor:
        """Mean over all P and Q of |P'P - I| and |QQ' - I| (peft/tuners/adalora/model.py, AdaLoraModel.forward)."""
        norms = []
        for layer in tuned_layers(vit).values():
            q, p = layer.lora_A["default"], layer.lora_B["default"]
            eye = torch.eye(self.rank, device=q.device)
            norms += [(q @ q.T - eye).norm(), (p.T @ p - eye).norm()]
        return self.orthogonality * torch.stack(norms).mean()

    @torch.no_grad()
    def after_step(self, vit: VisionTransformer, step: int, steps: int) -> None:
        from_peft = vit.__dict__["from_peft"]
        schedule = from_peft.peft_config["default"]
        schedule.total_step, schedule.tinit, schedule.tfinal = steps, int(self.hold * steps), int(self.settle * steps)
        if step == 1:  # what a cell that diverged leaves: importances are no tensors of `vit`, and outlive its values
            from_peft.rankallocator.reset_ipt()
        from_peft.update_and_allocate(step)  # by the gradients of this step
