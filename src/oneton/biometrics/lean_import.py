"""Import one module of a package without what the package's own `__init__` imports.

`import insightface.model_zoo.scrfd` brings in scipy, scikit-image and insightface's whole
application, none of which SCRFD needs: most of a second of every start.
"""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import PathFinder
from types import ModuleType


def import_alone(name: str) -> ModuleType:
    """Import a module as if its parent packages were empty; they are imported whole later.

    Raises:
        ImportError: there is no such module.
    """
    if name in sys.modules:
        return sys.modules[name]
    parents = name.split(".")[:-1]
    made: list[str] = []
    path: list[str] | None = None
    try:
        for depth in range(1, len(parents) + 1):
            parent = ".".join(parents[:depth])
            if parent not in sys.modules:
                spec = PathFinder.find_spec(parent, path)
                if spec is None or spec.submodule_search_locations is None:
                    raise ModuleNotFoundError(f"no package named {parent}", name=parent)
                sys.modules[parent] = ModuleType(parent)
                sys.modules[parent].__path__ = list(spec.submodule_search_locations)
                made.append(parent)
            path = list(sys.modules[parent].__path__)
        return importlib.import_module(name)
    finally:
        for parent in made:
            del sys.modules[parent]
