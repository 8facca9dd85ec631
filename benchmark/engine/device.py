"""The device of a worker."""

import torch

from .numerics import Numerics

NO_BF16 = ("DEFAULT", "AVX2")
"""Instruction sets, as torch names those that it uses, without products in bf16."""


def choose_device(asked: str | None, number: int = 1) -> torch.device:
    """Return the device that the user names, else one of the visible GPUs in turn, else the CPU.

    number: of the worker, from 1.
    """
    if asked is not None:
        return torch.device(asked)
    gpus = torch.cuda.device_count()
    if gpus > 1:
        return torch.device("cuda", (number - 1) % gpus)
    return torch.device("cuda" if gpus else "cpu")


def use_device(device: torch.device) -> None:
    """Make a GPU the current one, where compiled kernels run; raise `ValueError` if torch cannot use the device."""
    gpus = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= gpus:
        raise ValueError(f"--device {device}: torch {torch.__version__} sees {gpus} NVIDIA GPUs on this machine")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("--device mps: torch sees no GPU of Apple on this machine")
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)


def use_threads(threads: int) -> None:
    """Let torch compute with this number of threads; raise `ValueError` if it is too large."""
    torch.set_num_threads(Numerics(threads).threads)


def workers_sharing(asked: str | None, number: int, workers: int) -> int:
    """Return how many of the workers with the numbers 1 to `workers` use the device of worker `number`."""
    device = choose_device(asked, number)
    return max(1, sum(choose_device(asked, other) == device for other in range(1, workers + 1)))


def precision_notes(device: torch.device, precision: str, instead: str) -> tuple[str, ...]:
    """Return a remark for the user, which ends with the option to use instead, if the precision is slow here."""
    if device.type == "cpu" and precision == "bf16" and torch.backends.cpu.get_cpu_capability() in NO_BF16:
        return (f"this CPU has no instructions for bf16, which then takes several times as long as fp32; {instead}",)
    return ()
