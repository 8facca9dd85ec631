"""Measure the limits of this device: matrix products by size and precision, attention, and copies.

    python perf/roofline.py [--threads 2]

Writes perf/results/roofline_<device>.json: FLOP/s of square products and of products with the shapes of ViT's MLP,
seconds of an attention forward and backward pass, and bytes per second read and written by a copy.  Each number is the
best of ten repetitions: a limit, not an average.
"""

import argparse
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from measured import save
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import flex_attention
from vtab_peft.benchmark.engine.errors import one_line_message
from vtab_peft.benchmark.engine.timing import now

REPETITIONS = 10
CALLS = {"cpu": 1, "cuda": 20}
"""Calls in each repetition: a GPU kernel is shorter than its launch and synchronisation."""
SHAPES = {
    "cpu": ((512, 512, 512), (1024, 1024, 1024), (2048, 2048, 2048), (8 * 197, 192, 768), (8 * 197, 768, 3072)),
    "cuda": ((1024, 1024, 1024), (4096, 4096, 4096), (8192, 8192, 8192), (64 * 197, 192, 768), (64 * 197, 768, 3072)),
}
"""(rows, inner, columns) of a product.  The last two are a batch through the first MLP layer of ViT-Ti and ViT-B, the
limit for the forward pass."""
HEADS = {"cpu": (8, 3, 197, 64), "cuda": (64, 12, 197, 64)}
"""Images, heads, tokens and head width of ViT-Ti/16 and ViT-B/16."""
KERNELS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}
"""Fused kernels of torch on a GPU; `fused` is the one that torch chooses."""
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
COPY_BYTES = {"cpu": 2**28, "cuda": 2**31}
"""Size of a copy, larger than any cache."""


def best(work: Callable[[], Any], device: torch.device) -> float:
    """Return the seconds of the fastest repetition."""
    work()
    times = []
    for _ in range(REPETITIONS):
        started = now(device)
        for _ in range(CALLS[device.type]):
            work()
        times.append((now(device) - started) / CALLS[device.type])
    return min(times)


def product(shape: tuple[int, int, int], kind: torch.dtype, device: torch.device) -> float:
    """Return the FLOP/s of a matrix product."""
    rows, inner, columns = shape
    a = torch.randn(rows, inner, device=device, dtype=kind)
    b = torch.randn(inner, columns, device=device, dtype=kind)
    return 2 * rows * inner * columns / best(lambda: a @ b, device)


def attention(kind: torch.dtype, device: torch.device) -> dict[str, float | None]:
    """Return the seconds of attention, forward and backward, by timm's plain steps and each fused kernel of torch.

    None for a kernel that this device, or this precision, does not have.
    """
    q, k, v = (torch.randn(HEADS[device.type], device=device, dtype=kind, requires_grad=True) for _ in range(3))
    gradient = torch.randn_like(q)

    def plain() -> Tensor:
        return (q * HEADS[device.type][-1] ** -0.5 @ k.transpose(-2, -1)).softmax(dim=-1) @ v

    def fused() -> Tensor:
        return F.scaled_dot_product_attention(q, k, v)

    found = {way.__name__: best(lambda way=way: way().backward(gradient), device) for way in (fused, plain)}
    if device.type != "cuda":
        return found
    flexible = torch.compile(flex_attention, dynamic=False)
    ways = {name: (fused, [kernel]) for name, kernel in KERNELS.items()} | {
        "flex": (lambda: flexible(q, k, v), list(KERNELS.values()))
    }
    for name, (way, kernels) in ways.items():
        try:
            with sdpa_kernel(kernels):
                found[name] = best(lambda way=way: way().backward(gradient), device)
        except RuntimeError as error:
            print(f"attention {name}: {one_line_message(error)}")
            found[name] = None
    return found


def copy(device: torch.device) -> float:
    """Return the bytes read and written per second."""
    source = torch.empty(COPY_BYTES[device.type], dtype=torch.uint8, device=device).fill_(1)
    target = torch.empty_like(source)
    return 2 * source.numel() / best(lambda: target.copy_(source), device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name, found = f"roofline_{device.type}", {"products": (products := [])}
    for shape in SHAPES[device.type]:
        rates = {kind: product(shape, dtype, device) for kind, dtype in PRECISIONS.items()}
        products.append({"shape": shape, **rates})
        print(
            " x ".join(map(str, shape)),
            *(f"{kind} {rate / 1e12:.3f} TFLOP/s" for kind, rate in rates.items()),
            sep="  ",
            flush=True,
        )
        save(name, found, device, more=True)
    found["attention_seconds"] = (attentions := {"images, heads, tokens, width": HEADS[device.type]})
    for kind, dtype in PRECISIONS.items():
        attentions[kind] = ways = attention(dtype, device)
        print(
            "attention",
            kind,
            *(f"{way} {1000 * seconds:.2f} ms" for way, seconds in ways.items() if seconds),
            sep="  ",
            flush=True,
        )
        save(name, found, device, more=True)
    found["copy_bytes_per_second"] = bandwidth = copy(device)
    print(f"copy  {bandwidth / 1e9:.1f} GB/s")
    save(name, found, device)


if __name__ == "__main__":
    main()
