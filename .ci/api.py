"""Build the API reference of all packages from their docstrings, by pdoc: `make api`.

    ./vjepa --exec python -P .ci/api.py FOLDER

A warning of pdoc, such as for a module that does not import or for an annotation that it cannot resolve, is an error.
"""

import sys
import warnings
from pathlib import Path

import pdoc
import pdoc.render

PACKAGES = (
    "vjepa_interfaces",
    "sim_bridge",
    "vjepa_perception",
    "vjepa_planner",
    "vjepa_bags",
    "vjepa_training",
    "vjepa_bringup",
    "vjepa_cli",
)


def build(folder: Path, modules: tuple[str, ...] = PACKAGES) -> None:
    """Write the pages of `modules`, and of the modules in them, into `folder`.

    Raises:
        Warning: pdoc warns of a module.
    """
    pdoc.render.configure(docformat="google", show_source=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", module=r"pdoc\.")
        # Type checkers accept array.array[int], but Python only from 3.12 on.
        warnings.filterwarnings("ignore", message=".*'array.array' is not subscriptable", module=r"pdoc\.")
        # A TypedDict has no base classes at run time, so pdoc cannot tell which of them declares an inherited key.
        warnings.filterwarnings("ignore", message="Cannot determine where .* is taken from", module=r"pdoc\.")
        pdoc.pdoc(*modules, output_directory=folder)


if __name__ == "__main__":
    build(Path(sys.argv[1]))
