"""Faster imports: modules that a registration does not use are deferred until something does use them, and nothing is
collected meanwhile."""

import gc
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from types import ModuleType
from typing import Any

__all__ = ["UNUSED", "defer", "light_imports"]

UNUSED = ("torch._meta_registrations", "torch.distributions", "torch.export", "torch.utils.data")
"""Imported by torch, which takes a third longer with them. `importlib.util` has a lazy loader, but it loads a module as
soon as `inspect` looks for its file, as torch does for all modules. The other modules of torch take for granted that
these have run, so they run before any that is imported later."""

OPTIONAL = (("nibabel", "pydicom"), ("numba.np.arraymath", "scipy.linalg"))
"""Modules, and what they import for abilities that a registration does not use: DICOM extensions of NIfTI files and
linear algebra in kernels. Both work without, and each of the two imports takes 0.2 s."""

_lock = threading.RLock()


class _Deferred(ModuleType):
    """A module that runs its code when a name is looked up that only its code defines."""

    def __getattr__(self, name: str) -> Any:
        _run_code(self)
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


def _run_code(module: _Deferred) -> None:
    with _lock:  # another thread waits for the code that this one runs
        loader = module.__dict__.pop("_loader", None)
        if loader is not None:
            loader.exec_module(module)


class _Present(Loader):
    """Finds a module that has been imported while it was looked for."""

    def __init__(self, module: ModuleType) -> None:
        self.module, self.spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self.module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.spec


class _Finder(MetaPathFinder):
    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(names)
        self.packages = {name.partition(".")[0] for name in self.names}
        self.closed = False
        """Whether the deferred modules run as soon as their package is asked for another one."""

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if self.closed and name.partition(".")[0] in self.packages:
            self.run_all()
        package = sys.modules.get(name.rpartition(".")[0])
        if isinstance(package, _Deferred):  # its own code comes before that of its parts
            _run_code(package)
        if target is None and name in sys.modules:  # that code has imported it
            present = sys.modules[name]
            present.__spec__ = ModuleSpec(name, _Present(present))  # the import system takes it from here
            return present.__spec__
        spec = PathFinder.find_spec(name, path, target) if name in self.names and not self.closed else None
        if spec is not None and spec.loader is not None:
            spec.loader = _Later(spec.loader)
        return spec

    def run_all(self) -> None:
        """Run the code of all deferred modules."""
        for module in [sys.modules.get(name) for name in self.names]:
            if isinstance(module, _Deferred):
                _run_code(module)


@contextmanager
def light_imports() -> Iterator[None]:
    """Imports inside take as little time as possible."""
    collecting = gc.isenabled()
    gc.disable()  # modules are made of many objects that stay; going through them takes a tenth of the time
    finder = defer()
    try:
        yield
    finally:
        finder.closed = True
        if collecting:
            gc.enable()


def defer(names: Iterable[str] = UNUSED) -> _Finder:
    """Make later imports of these modules cost nothing until the modules are used, and import `OPTIONAL`."""
    finder = next((finder for finder in sys.meta_path if isinstance(finder, _Finder)), None)
    if finder is None:
        finder = _Finder(names)
        sys.meta_path.insert(0, finder)
    for module, unused in OPTIONAL:
        _import_without(module, unused)
    return finder


def _import_without(module: str, unused: str) -> None:
    """Import a module as if another one, which it can do without, were not installed."""
    if module in sys.modules or unused in sys.modules or not find_spec(module.partition(".")[0]):
        return
    sys.modules[unused] = None  # type: ignore[assignment]
    try:
        import_module(module)
    finally:
        del sys.modules[unused]
