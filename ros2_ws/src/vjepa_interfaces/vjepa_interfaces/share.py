"""The files that a package installs beside its code: configurations, experiments and shipped bundles."""

import sys
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory

from vjepa_interfaces.errors import VjepaError


def share_folder(package: str) -> Path:
    """Return the share folder of a package: where colcon or a ROS installed it, else where pip did.

    Raises:
        VjepaError: the package is not installed.
    """
    try:
        return Path(get_package_share_directory(package))
    except (PackageNotFoundError, OSError):  # OSError: there is no AMENT_PREFIX_PATH.
        folder = Path(sys.prefix, "share", package)
    if not folder.is_dir():
        raise VjepaError(f"package '{package}' is not installed; build the workspace with: ./vjepa --setup-only")
    return folder
