"""Compare two ways to multiply by AO(q): the D x r matrix, built once a step, or identity plus a rank-two term.

Column 0 of AO(q) is (q0; q') and column j is e_j - q_j (1; c q').  So a product needs no matrix, only one inner product
and two outer updates per token.  `methods/aoft.py` uses the faster way, and its tests compare it with the other one.

    python perf/aoft_products.py            on the CPU, one thread
    python perf/aoft_products.py --cuda     on the GPU, eager and compiled

Writes perf/results/aoft_products_<device>.json: median milliseconds of one forward and backward pass of the update.
"""

import argparse
import statistics
from collections.abc import Callable

import torch
import torch.nn.functional as F
from measured import save
from torch import Tensor
from vtab_peft.benchmark.engine.timing import now
from vtab_peft.methods.aoft import approximately_orthogonal

SHAPES = ((192, 192, 8), (768, 768, 8), (768, 3072, 8), (768, 768, 64), (1280, 1280, 8))
"""(inputs, outputs, rank): ViT-Ti, ViT-B attention, ViT-B fc1, a large rank, ViT-H."""
TOKENS = 197


def rank_two_down(x: Tensor, q: Tensor, columns: int) -> Tensor:
    """Compute AO(q)^T x in the paper's form.  x: [..., d], q: [d] -> [..., columns]."""
    q0, tail = q[:1], q[1:]
    first = x[..., :1]
    inner = x[..., 1:] @ tail[:, None]
    rest = x[..., 1:columns] - tail[: columns - 1] * (first + inner / (1 + q0))
    return torch.cat([q0 * first + inner, rest], dim=-1)


def rank_two_up(z: Tensor, q: Tensor) -> Tensor:
    """Compute AO(q) z in the paper's form.  z: [..., columns], q: [d] -> [..., d]."""
    q0, tail = q[:1], q[1:]
    columns = z.shape[-1]
    first, others = z[..., :1], z[..., 1:]
    weighted = others @ tail[: columns - 1, None]
    rest = (first - weighted / (1 + q0)) * tail
    return torch.cat([q0 * first - weighted, rest[..., : columns - 1] + others, rest[..., columns - 1 :]], dim=-1)


def matrices(x: Tensor, q_down: Tensor, q_up: Tensor, rank: int) -> Tensor:
    """Compute the update as `methods/aoft.py` does."""
    down, up = approximately_orthogonal(q_down, rank), approximately_orthogonal(q_up, rank)
    return F.linear(F.linear(x, down.T), up)


def rank_two(x: Tensor, q_down: Tensor, q_up: Tensor, rank: int) -> Tensor:
    """Compute the update in the paper's form."""
    return rank_two_up(rank_two_down(x, q_down, rank), q_up)


def milliseconds(way: Callable[..., Tensor], arguments: list[Tensor], rank: int, bf16: bool, repeats: int) -> float:
    """Return the median time of a forward and backward pass."""
    device = arguments[0].device
    taken = []
    for _ in range(repeats + 3):
        started = now(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            y = way(*arguments, rank)
        y.float().square().mean().backward()
        taken.append(now(device) - started)
        for tensor in arguments:
            tensor.grad = None
    return statistics.median(taken[3:]) * 1e3


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--cuda", action="store_true", help="measure on the GPU, with torch.compile as well")
    options.add_argument("--repeats", type=int, default=20, help="timed passes of each (20)")
    chosen = options.parse_args()
    device = torch.device("cuda" if chosen.cuda else "cpu")
    if not chosen.cuda:
        torch.set_num_threads(1)
    batch = 64 if chosen.cuda else 8
    rows = []
    for inputs, outputs, rank in SHAPES:
        x = torch.randn(batch, TOKENS, inputs, device=device, requires_grad=True)
        vectors = [(torch.randn(d, device=device) / d**0.5).requires_grad_() for d in (inputs, outputs)]
        for bf16 in (False, True):
            row = {"inputs": inputs, "outputs": outputs, "rank": rank, "precision": "bf16" if bf16 else "fp32"}
            for way in (matrices, rank_two):
                row[way.__name__] = milliseconds(way, [x, *vectors], rank, bf16, chosen.repeats)
                if chosen.cuda:
                    torch.compiler.reset()
                    compiled = torch.compile(way, dynamic=False)
                    row[f"{way.__name__}_compiled"] = milliseconds(compiled, [x, *vectors], rank, bf16, chosen.repeats)
            rows.append(row)
            print(
                "  ".join(
                    f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items()
                ),
                flush=True,
            )
            found = {"unit": "ms, forward and backward", "batch": batch, "tokens": TOKENS, "rows": rows}
            save(f"aoft_products_{device.type}", found, device, more=len(rows) < 2 * len(SHAPES))


if __name__ == "__main__":
    main()
