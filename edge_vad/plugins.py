"""Names to classes: a camera, backend, bank, method or sink is one module, imported when it is named."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from types import ModuleType
from typing import Any, TypeVar

from edge_vad.errors import MissingPackageError, PluginError, did_you_mean

T = TypeVar("T")


def available(kind: str) -> list[str]:
    """Built-in plug-ins of a kind (cameras, backends, banks, methods, sinks)."""
    package = importlib.import_module(f"edge_vad.{kind}")
    return sorted(m.name for m in pkgutil.iter_modules(package.__path__) if m.name != "base" and not m.name.startswith("_"))


def load(kind: str, name: str, base: type[T]) -> type[T]:
    """The class behind ``name``: a module of ``edge_vad/<kind>/``, or your own ``package.module[:Class]``.

    Raises PluginError when there is none, or when the module holds no single subclass of ``base``.
    """
    module_name, _, class_name = name.partition(":")
    if "." not in module_name:
        if module_name not in available(kind):
            raise PluginError(
                f"no {kind[:-1]} named {name!r}{did_you_mean(module_name, available(kind))}; or name your own module, dotted"
            )
        module_name = f"edge_vad.{kind}.{module_name}"
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise PluginError(f"{kind[:-1]} {name!r} cannot be imported: {error}") from error
    if class_name:
        candidates = [getattr(module, class_name, None)]
    else:
        candidates = [v for v in vars(module).values() if inspect.isclass(v) and v.__module__ == module.__name__]
    found = [c for c in candidates if inspect.isclass(c) and issubclass(c, base) and not inspect.isabstract(c)]
    if len(found) != 1:
        raise PluginError(
            f"{kind[:-1]} {name!r}: {module.__name__} must hold exactly one subclass of {base.__name__}, found {len(found)}"
        )
    return found[0]


def require(module: str, package: str, purpose: str) -> ModuleType | Any:
    """Import an optional third-party module, or say which pip command installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingPackageError(f"{purpose} needs the package {package}: pip install '{package}' ({error})") from error
