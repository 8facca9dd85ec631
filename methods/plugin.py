"""Loading of plug-ins: Python files outside the suite that register methods, or backbones with timm."""

import hashlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path

import timm

from .base import METHODS, Method

_LOADED: dict[Path, tuple[str, str, list[str]]] = {}
"""Plug-in file -> (SHA-256 when loaded, module name, registered method names)."""


class PluginError(ValueError):
    """A plug-in file cannot be used; the message names the file and the reason."""


def load_plugin(path: Path) -> list[str]:
    """Run a plug-in file once and return the names of the methods that it registers; backbones register with timm.

    Raises:
        PluginError: the file is missing, raises an error, or registers nothing.
    """
    path = _absolute(path)
    if path not in _LOADED:
        _LOADED[path] = _load(path)
    return _LOADED[path][2]


def plugin_sha256(method: Method) -> str | None:
    """Return the SHA-256 of the plug-in file that defines a method, or None for a method of the suite.

    For parts of a combination from several files it is the hash of their hashes.
    """
    kinds = type(method).part_types or (type(method),)
    found = sorted({sha256 for kind in kinds if (sha256 := plugin_of(kind.__module__))})
    return hashlib.sha256("".join(found).encode()).hexdigest() if found[1:] else next(iter(found), None)


def plugin_of(module: str) -> str | None:
    """Return the SHA-256 of the plug-in file that was loaded as a module, or None for other modules."""
    return {name: sha256 for sha256, name, _ in _LOADED.values()}.get(module)


def loaded_plugins() -> list[dict[str, str]]:
    """Return name and SHA-256 of each plug-in file loaded in this process, whose side effects reach every run."""
    return [{"file": path.name, "sha256": sha256} for path, (sha256, _, _) in sorted(_LOADED.items())]


def edited_plugins() -> list[str]:
    """Return the plug-in files that were edited after this process had loaded them, which it does once."""
    return [str(path) for path, (sha256, _, _) in sorted(_LOADED.items()) if _is_edited(path, sha256)]


def _is_edited(path: Path, sha256: str) -> bool:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() != sha256
    except OSError:
        return False


def described(error: Exception) -> str:
    """Return an error's message; if it is no `ValueError`, with its type and the line of the plug-in that raised it."""
    if isinstance(error, ValueError):
        return str(error)
    return _with_line(error, _LOADED)


def _with_line(error: BaseException, files: Iterable[Path]) -> str:
    """Return an error's type and message, and its innermost line in the first of the files that was running."""
    frames = ((file.name, own_frame(error, file)) for file in files)
    where = next((f", in {name}:{frame.lineno}: {frame.line}" for name, frame in frames if frame), "")
    return f"{type(error).__name__}: {error}{where}"


def _absolute(path: Path) -> Path:
    """Return the absolute path; a name such as `~x` stays if there is no user x."""
    return Path(os.path.expanduser(path)).resolve()  # noqa: PTH111


def own_frame(error: BaseException, file: Path) -> traceback.FrameSummary | None:
    """Return the innermost frame of an error in `file`, or None if no line of it was running."""
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame for frame in reversed(frames) if Path(frame.filename) == _absolute(file)), None)


def _one_file(error: BaseException, path: Path) -> str:
    """Return advice if the plug-in imports a module that lies beside it."""
    name = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if not name or not (path.with_name(f"{name}.py").exists() or path.with_name(name).is_dir()):
        return ""
    return (
        f". A plug-in is one file, whose hash is in run IDs: put what it needs of {name} into {path.name}. If edits of "
        f"{name} shall not change run IDs, add its folder to PYTHONPATH"
    )


def _load(path: Path) -> tuple[str, str, list[str]]:
    if not path.is_file():
        raise PluginError(f"no plug-in file at {path}")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    name = f"vtab_peft_plugin_{hashlib.sha256(f'{sha256} {path}'.encode()).hexdigest()[:16]}"
    before, models = set(METHODS), set(timm.list_models())
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PluginError(f"plug-in {path} is not a Python file: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look up their module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:  # user code can raise anything
        for registered in set(METHODS) - before:
            del METHODS[registered]
        raise PluginError(
            f"plug-in {path} cannot be loaded: {_with_line(error, [path])}{_one_file(error, path)}"
        ) from None
    new = sorted(set(METHODS) - before)
    registered = {model for model in timm.list_models() if timm.models.model_entrypoint(model).__module__ == name}
    if taken := sorted(registered & models):
        raise PluginError(f"plug-in {path} registers {taken[0]!r}, a model of timm; give it a name of its own")
    if not new and not registered:
        raise PluginError(
            f'plug-in {path} registers no method and no backbone; put @method("name") above a Method class, or '
            "timm's @register_model above a function"
        )
    return sha256, name, new
