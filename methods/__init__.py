"""One file per method; dropping a file in here registers what it defines."""

import importlib
import pkgutil

from .base import METHODS, Method, default_specs, parse, register

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["METHODS", "Method", "default_specs", "parse", "register"]
