"""AOFT in the place of prompts (arXiv:2507.13260): the prompts of a block are columns of AO(q), one vector a block.

Published: that the prompts of VPT-Deep become approximately orthogonal vectors.  Inferred, from the parameter count:
one vector a block.  There is no released code; the start is ours.  With q on the unit sphere the prompts have length
one, which is also what VPT's own start gives them at D = 768 (0.036 a coordinate).
"""

from dataclasses import dataclass

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .aoft import AOFT, SCALES, Form, Scale, Start, approximately_orthogonal, start_vector
from .base import Paper, register, require_positive
from .vpt import PromptedBlock


class OrthogonalPrompts(nn.Module):
    """[tokens, d]: the first columns of AO(q), times a learned scale each if there is one."""

    def __init__(self, d: int, tokens: int, form: Form, scale: Scale, start: Start) -> None:
        super().__init__()
        if tokens > d:
            raise ValueError(f"tokens={tokens} exceeds the {d} columns there are")
        self.tokens = tokens
        self.form: Form = form
        self.q = nn.Parameter(start_vector(d, start))
        self.scale = None if scale == "none" else nn.Parameter(SCALES[scale](tokens))

    def forward(self) -> Tensor:
        columns = approximately_orthogonal(self.q, self.tokens, self.form)
        return (columns if self.scale is None else columns * self.scale).T


@register("aoft_vpt")
@dataclass(frozen=True)
class AOFTVPT(AOFT):
    """Tokens in front of every block that are approximately orthogonal, all from one learned vector a block."""

    scale: Scale = "none"
    tokens: int = 10
    dropout: float = 0.1  # as VPT-Deep
    title = "AOFT-VPT"
    paper = Paper("ICCV", 2025, "2507.13260")  # the released code has no prompts
    equation = r"[x_{cls}, \_, x] \leftarrow \mathrm{Block}_l([x_{cls}, AO(q_l)^T, x])"
    places = "tokens of every block"
    evidence = "paper only"
    search = {"tokens": (1, 5, 10, 50, 100)}  # VPT's; here they cost no parameters
    starts_as_identity = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(tokens=self.tokens)

    def inject(self, vit: VisionTransformer) -> None:
        for i, block in enumerate(vit.blocks):
            prompts = OrthogonalPrompts(vit.embed_dim, self.tokens, self.form, self.scale, self.start)
            vit.blocks[i] = PromptedBlock(block, prompts, vit.num_prefix_tokens, self.dropout)

    def expected_params(self, vit: VisionTransformer) -> int:
        return len(vit.blocks) * (vit.embed_dim + (0 if self.scale == "none" else self.tokens))
