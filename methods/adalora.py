"""AdaLoRA (Zhang et al., ICLR 2023, arXiv:2303.10512), computed by Hugging Face peft, with its rank schedule.

W' = W + (alpha / rank) P diag(e) Q,   P: [out, rank], e: [rank], Q: [rank, in]
"""

from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from .arguments import PositiveInt
from .base import Paper, method
from .hf_peft import FromPeft, tuned_layers


@method("adalora")
class AdaLoRA(FromPeft):
    """Adds low-rank updates as singular triplets, and switches off the less important triplets during training.

    The total number of active triplets falls with the cube of the remaining time.  A triplet's importance is its
    smoothed |weight x gradient| and the variability of that.  A penalty keeps the singular vectors orthonormal.
    """

    rank: PositiveInt = 12
    target_rank: PositiveInt = 8
    """Final mean rank over the weights; both ranks as in peft (tuners/adalora/config.py)."""
    alpha: float = 32.0
    """Value of NLU/scripts/run_debertav3_rte.sh, like all following numbers; peft sets 8."""
    hold: float = 0.15
    """Fraction of the steps before ranks fall; 600 of 3900 steps in the script."""
    settle: float = 0.46
    """Fraction of the steps after ranks have fallen; 1800 of 3900 steps in the script."""
    orthogonality: float = 0.3
    """Weight of the penalty; peft sets 0.5."""
    title = "AdaLoRA"
    paper = Paper("ICLR", 2023, "2303.10512", "QingruZhang/AdaLoRA")
    equation = r"W' = W + \tfrac{\alpha}{r} P\, \mathrm{diag}(e)\, Q,\ \text{few } e \neq 0"
    evidence = "authors' module"
    differs = "The release's trainer counts steps from 0, so that ranks fall one step later there."
    version = 2  # version 1 had peft's alpha of 8 and penalty of 0.5
    search = {"target_rank": (2, 8), "alpha": (8.0, 32.0)}

    def validate(self) -> None:
        super().validate()
        if self.target_rank >= self.rank:
            raise ValueError(f"target_rank={self.target_rank} must be below rank={self.rank}")
        if self.hold < 0 or self.settle < 0 or self.hold + self.settle >= 1:
            raise ValueError(f"hold={self.hold} and settle={self.settle} must be shares of the steps that leave some")

    def tuner(self) -> tuple[str, dict[str, Any]]:
        options = {"init_r": self.rank, "target_r": self.target_rank, "lora_alpha": self.alpha}
        return "adalora", {**options, "total_step": 1}  # `after_step` sets the real number

    def update_params(self, inputs: int, outputs: int) -> int:
        return self.rank * (inputs + 1 + outputs)

    def inject(self, vit: VisionTransformer) -> None:
        from_peft = self.inject_peft(vit)
        for layer in tuned_layers(vit).values():
            del layer.ranknum  # a frozen parameter that never changes
            layer.ranknum = {"default": float(self.rank)}
        vit.__dict__["from_peft"] = from_peft  # not as a submodule, because it contains `vit`

    def merge(self, vit: VisionTransformer) -> None:
        super().merge(vit)
        del vit.__dict__["from_peft"]

    def penalty(self, vit: VisionTransformer) -> Tensor:
        """Return the mean over all P and Q of |P'P - I| and |QQ' - I| (peft/tuners/adalora/model.py, forward)."""
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
        if step == 1:  # importances are not tensors of `vit`; discard those of a previous run that diverged
            from_peft.rankallocator.reset_ipt()
        from_peft.update_and_allocate(step)  # uses the gradients of this step
