"""Read tensors from files of weights: safetensors, PyTorch checkpoints as people have them, Google's .npz."""

import argparse
import hashlib
import os
import pathlib
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from ...datasets.reading import open_regular
from ...datasets.task import DataError
from .errors import BackboneError

LARGEST = 1 << 36
"""Bytes of the largest file that is read (ours; 1.8 billion parameters of ViT-G with optimizer states have 22 GB)."""

WRAPPERS = ("state_dict", "model", "model_state_dict", "encoder")
"""Entries of a training checkpoint that hold the weights: timm and DINO, DeiT and torchvision, others, I-JEPA."""

AVERAGES = ("state_dict_ema", "model_ema", "ema_state_dict", "ema", "teacher", "target_encoder")
"""Entries that hold a moving average of the weights; read only if the checkpoint has none of `WRAPPERS`."""

PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.")
"""Prefixes of names, in any order: of DataParallel, `torch.compile`, Lightning and DINO."""

HARMLESS: list[Any] = [
    *(argparse.Namespace, pathlib.PosixPath, pathlib.PurePosixPath),
    *(np.dtype, type(np.dtype(np.float64)), type(np.dtype(np.float32)), type(np.dtype(np.int64))),
    np.float64(0).__reduce__()[0],  # the function that makes a NumPy number
]
"""Classes that checkpoints hold beside tensors (options, paths, NumPy numbers) and whose unpickling runs no code."""

Format = Literal["safetensors", "torch", "npz"]


def hash_and_format(file: Path) -> tuple[str, Format]:
    """Return the SHA-256 and the format of a file, which is recognised by its content.

    Raises:
        BackboneError: it is no regular file, too large, or in another format.
    """
    try:
        with open_regular(file) as stream:
            size, head = os.fstat(stream.fileno()).st_size, stream.read(9)
            if size > LARGEST:
                raise BackboneError(f"weights {file} have {size:,} bytes, more than {LARGEST:,}")
            stream.seek(0)
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError:
        raise BackboneError(
            f"no weights at {file}; --weights takes a file (safetensors, PyTorch, .npz), hf:OWNER/NAME or random"
        ) from None
    except (OSError, DataError, ValueError) as error:
        raise BackboneError(f"cannot read weights {file}: {error}") from None
    if head[8:] == b"{":
        return sha256, "safetensors"
    if head.startswith(b"PK"):
        return sha256, "npz" if _holds_arrays(file) else "torch"
    if head.startswith(b"\x80"):  # a pickle, as torch wrote before 1.6
        return sha256, "torch"
    raise BackboneError(f"cannot read weights {file}: it is no safetensors file, PyTorch checkpoint or .npz file")


def _holds_arrays(file: Path) -> bool:
    try:
        with zipfile.ZipFile(file) as archive:
            return all(name.endswith(".npy") for name in archive.namelist())
    except zipfile.BadZipFile as error:
        raise BackboneError(f"cannot read weights {file}: {error}") from None


def read(file: Path, kind: Format) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors of a safetensors or PyTorch file, without prefixes, and notes on what was taken.

    Raises:
        BackboneError: the file is damaged, needs code to be read, or holds no tensors.
    """
    try:
        content = load_file(file) if kind == "safetensors" else _load_torch(file)
    except pickle.UnpicklingError:
        raise BackboneError(f"weights {file} {_why_not_unpickled(file)}") from None
    except Exception as error:  # each format has its own errors
        reason = str(error).splitlines() or [""]
        raise BackboneError(f"cannot read weights {file}: {type(error).__name__}: {reason[0]}") from None
    content, notes = _unwrap(content, file)
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor) and isinstance(name, str)}
    tensors.pop("n_averaged", None)  # counter of torch's AveragedModel
    if not tensors:
        raise BackboneError(f"weights {file} hold no tensors; --weights takes a model's state dict")
    stripped = {_strip(name): tensor for name, tensor in tensors.items()}
    if len(stripped) < len(tensors):
        raise BackboneError(f"weights {file} hold several models: names are equal without {', '.join(PREFIXES)}")
    return stripped, notes


def _load_torch(file: Path) -> Any:
    with torch.serialization.safe_globals(HARMLESS), open_regular(file) as stream:  # by path, suffixes count
        return torch.load(stream, map_location="cpu", weights_only=True)


def _why_not_unpickled(file: Path) -> str:
    """Return why a checkpoint was refused, in our words, as torch's advise to run its code."""
    advice = "in a program that you trust, save the tensors alone: torch.save(model.state_dict(), FILE)"
    try:
        with torch.serialization.safe_globals(HARMLESS):
            needed = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(file))
    except Exception:  # of a file that is no zip archive, or damaged
        needed = []
    if not needed:
        return f"are no checkpoint that can be read without running its code; {advice}"
    return f"hold more than tensors ({', '.join(needed[:5])}), which could run code; {advice}"


def _unwrap(content: Any, file: Path) -> tuple[Mapping[Any, Any], list[str]]:
    """Return the state dict inside a training checkpoint, and a note if there was a choice."""
    notes = []
    while isinstance(content, Mapping):
        held = [name for name in (*WRAPPERS, *AVERAGES) if isinstance(content.get(name), Mapping)]
        if not held:
            return content, notes
        if len(held) > 1:
            notes.append(f"{file.name}: read {held[0]!r}, not {' or '.join(map(repr, held[1:]))}")
        elif held[0] in AVERAGES:
            notes.append(f"{file.name}: read {held[0]!r}, a moving average of the weights; there are no others")
        content = content[held[0]]
    raise BackboneError(f"weights {file} hold a {type(content).__name__}, not a dictionary of tensors")


def _strip(name: str) -> str:
    return re.sub(f"^(?:{'|'.join(map(re.escape, PREFIXES))})+", "", name)
