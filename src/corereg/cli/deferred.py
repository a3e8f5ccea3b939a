"""Modules that libraries import and a registration does not use: deferred until something does use them."""

import sys
import threading
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

__all__ = ["UNUSED", "defer"]

UNUSED = frozenset({"requests", "torch._meta_registrations", "torch.export"})
"""Imported by nibabel by way of pydicom, and by torch: together half a second of processor time. `importlib.util`
has a lazy loader, but it loads a module as soon as `inspect` looks for its file, as torch does for all modules."""

_lock = threading.RLock()


class _Deferred(ModuleType):
    """A module that runs its code when a name is looked up that only its code defines."""

    def __getattr__(self, name: str) -> Any:
        with _lock:  # another thread waits for the code that this one runs
            loader = self.__dict__.pop("_loader", None)
            if loader is not None:
                loader.exec_module(self)
        if name not in self.__dict__:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return self.__dict__[name]


class _Later(Loader):
    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["_loader"] = self.loader
        module.__class__ = _Deferred


class _Finder(MetaPathFinder):
    def __init__(self, names: frozenset[str]) -> None:
        self.names = names

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name in self.names else None
        if spec is not None and spec.loader is not None:
            spec.loader = _Later(spec.loader)
        return spec


def defer(names: frozenset[str] = UNUSED) -> None:
    """Make later imports of these modules cost nothing until the modules are used."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder(names))
