"""Packages that `./vjepa --with GROUP --setup-only` installs beside the environment."""

import importlib
import sys
from types import ModuleType

from benchmarks.stack import ROOT


def imported(group: str, name: str) -> ModuleType | None:
    """Return the module `name` from the environment or from the folder of `group`; None if it is not installed."""
    folder = ROOT / ".vjepa" / group
    if folder.is_dir() and str(folder) not in sys.path:
        sys.path.append(str(folder))  # At the end, so that the environment's own packages come first.
    try:
        return importlib.import_module(name)
    except ImportError:
        return None
