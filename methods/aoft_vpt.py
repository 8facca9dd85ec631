"""AOFT in place of prompts (arXiv:2507.13260): the prompts of a block are columns of AO(q), one vector q per block.

    P_l = AO(q_l)^T,   q_l: [d], P_l: [tokens, d]

Published: the prompts of VPT-Deep become approximately orthogonal vectors.  Inferred from the parameter count: one
vector per block.  No code is released, so the initialisation is ours.  For q on the unit sphere the prompts have length
one, which is also the length of VPT's initial prompts at d = 768 (0.036 per coordinate).
"""

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .aoft import AOFT, SCALE_INITS, Form, ScaleInit, VectorInit, approximately_orthogonal, initial_vector
from .arguments import PositiveInt, Rate
from .base import Paper, method
from .vpt import PromptedBlock


class OrthogonalPrompts(nn.Module):
    """Computes prompts [tokens, d]: the first columns of AO(q), optionally with a trained scale for each."""

    def __init__(self, d: int, tokens: int, form: Form, scale: ScaleInit, start: VectorInit) -> None:
        super().__init__()
        if tokens > d:
            raise ValueError(f"tokens={tokens} exceeds the {d} columns of AO(q)")
        self.tokens = tokens
        self.form: Form = form
        self.q = nn.Parameter(initial_vector(d, start))
        self.scale = None if scale == "none" else nn.Parameter(SCALE_INITS[scale](tokens))

    def forward(self) -> Tensor:
        columns = approximately_orthogonal(self.q, self.tokens, self.form)
        return (columns if self.scale is None else columns * self.scale).T


@method("aoft_vpt")
class AOFTVPT(AOFT):
    """Prepends approximately orthogonal tokens to the input of every block, generated from one vector per block."""

    scale: ScaleInit = "none"
    tokens: PositiveInt = 10
    dropout: Rate = 0.1  # as VPT-Deep
    title = "AOFT-VPT"
    paper = Paper("ICCV", 2025, "2507.13260")  # the released code has no prompts
    equation = r"[x_{cls}, \_, x] \leftarrow \mathrm{Block}_l([x_{cls}, AO(q_l)^T, x])"
    evidence = "paper only"
    targets = "tokens of every block"
    search = {"tokens": (1, 5, 10, 50, 100)}  # VPT's grid; here tokens cost no parameters
    starts_as_identity = False

    def inject(self, vit: VisionTransformer) -> None:
        for i, block in enumerate(vit.blocks):
            prompts = OrthogonalPrompts(vit.embed_dim, self.tokens, self.form, self.scale, self.start)
            vit.blocks[i] = PromptedBlock(block, prompts, vit.num_prefix_tokens, self.dropout)

    def expected_params(self, vit: VisionTransformer) -> int:
        return len(vit.blocks) * (vit.embed_dim + (0 if self.scale == "none" else self.tokens))
