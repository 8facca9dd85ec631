"""PEFT methods, one file per method or family; importing the package registers all of them."""

import importlib
import pkgutil

from .base import METHODS, Method, default_specs, method
from .parsing import parse
from .updates import LinearUpdateMethod

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["METHODS", "LinearUpdateMethod", "Method", "default_specs", "method", "parse"]
