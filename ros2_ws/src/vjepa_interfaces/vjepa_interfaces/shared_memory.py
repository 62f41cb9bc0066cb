"""Fast DDS without its shared memory, for a process that must not wait for another one.

Each port of that shared memory has a lock, which whoever sends to the port takes. A process that is stopped with the
lock in hand, by a debugger or a busy machine, keeps everybody else from the port until they give up after a second:
`boost::interprocess_mutex::lock`, as Fast DDS 2.14 builds it. So a stop of the process that holds the guard's switch
kept torque at the arm as it was for a second, a few times in a hundred. A socket has no such lock.
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
"""Variables by which Fast DDS finds a file of profiles: Jazzy's version reads the first, later ones the second."""


def profile_variables(distribution: str) -> tuple[str, ...]:
    """Return the variables that the Fast DDS of a ROS distribution reads, without those that it warns of."""
    return {"": PROFILES, "jazzy": PROFILES[:1]}.get(distribution, PROFILES[1:])


@contextlib.contextmanager
def no_shared_memory() -> Iterator[None]:
    """Have a Fast DDS that starts within use none, as it does for the first node of a context.

    A file of profiles is read as a copy without those transports, which is deleted at the end.

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
