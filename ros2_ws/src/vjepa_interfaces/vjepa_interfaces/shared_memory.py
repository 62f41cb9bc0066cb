"""Fast DDS without its shared memory, for a process that must not wait for another one.

Each port of that shared memory has a lock, which every sender to the port takes. A debugger or a busy machine may stop
a process that holds the lock. All other processes then wait for the port, and give up after a second:
`boost::interprocess_mutex::lock`, as Fast DDS 2.14 builds it. So a stopped process with the guard's switch kept the
torque at the arm unchanged for a second, a few times in a hundred. A socket has no such lock.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from vjepa_interfaces.environment import environment_of
from vjepa_interfaces.errors import VjepaError

PROFILES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
"""Variables that name Fast DDS's file of profiles: Jazzy's version reads the first, later versions the second."""


def profile_variables(distribution: str) -> tuple[str, ...]:
    """Return the variables that the Fast DDS of a ROS distribution reads, without those that it warns about."""
    return {"": PROFILES, "jazzy": PROFILES[:1]}.get(distribution, PROFILES[1:])


@contextlib.contextmanager
def no_shared_memory() -> Iterator[None]:
    """Start Fast DDS without shared memory inside this context; the first node of a ROS context starts it.

    Fast DDS reads a copy of the file of profiles without those transports; the copy is deleted at the end.

    Raises:
        VjepaError: the file of profiles cannot be read, or is not XML.
    """
    variables = {"FASTDDS_BUILTIN_TRANSPORTS": "UDPv4"}  # Of profiles that keep Fast DDS's own, and without any.
    with tempfile.TemporaryDirectory(prefix="vjepa-profiles-") as folder:
        for name in PROFILES:
            if file := os.environ.get(name):
                copy = Path(folder, f"{name}.xml")
                copy.write_bytes(_without_shared_memory(Path(file)))
                variables[name] = str(copy)
        with environment_of(variables):
            yield


def _without_shared_memory(file: Path) -> bytes:
    try:
        root = ElementTree.fromstring(file.read_bytes())
    except (OSError, ElementTree.ParseError) as error:
        raise VjepaError(f"no profiles of Fast DDS can be read from {file}: {error}") from error
    space = root.tag.rpartition("}")[0] + "}" if "}" in root.tag else ""
    ElementTree.register_namespace("", space.strip("{}"))
    gone = set()
    for descriptors in root.iter(f"{space}transport_descriptors"):
        for descriptor in list(descriptors):
            if descriptor.findtext(f"{space}type", "").strip() == "SHM":
                gone.add(descriptor.findtext(f"{space}transport_id", "").strip())
                descriptors.remove(descriptor)
    for used in root.iter(f"{space}userTransports"):
        for transport in [each for each in used if (each.text or "").strip() in gone]:
            used.remove(transport)
    return ElementTree.tostring(root)
