"""Parsers of words of the command line. Each function raises a ValueError for a word that it refuses."""

import math

MAX_SEED = 2**31 - 1
MAX_NUMBER = 10_000_000


def numbers(text: str) -> tuple[int, ...]:
    """Return the whole numbers, at least 0, of a list of numbers and ranges such as 0-9,12; sorted, each once."""
    found: set[int] = set()
    for part in text.split(","):
        first, is_range, last = part.partition("-")
        low = _whole(first, 0, MAX_NUMBER)
        found |= set(range(low, _whole(last, low, MAX_NUMBER) + 1)) if is_range else {low}
    return tuple(sorted(found))


def domain(text: str) -> int:
    """Return a ROS domain."""
    from vjepa_bringup.domains import MAX_DOMAIN

    return _whole(text, 0, MAX_DOMAIN)


def seconds(text: str) -> float:
    """Return a finite number of seconds above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ValueError(f"'{text}' is not a number of seconds above 0")
    return value


def effort_limit(text: str) -> float | tuple[float, ...]:
    """Return the number of a text, or the numbers of a comma-separated list."""
    try:
        limits = tuple(map(float, text.split(",")))
    except ValueError:
        raise ValueError(f"'{text}' is not a number, or one for each joint such as 2,1,0.5") from None
    return limits if len(limits) > 1 else limits[0]


def setting(text: str) -> tuple[str, int | float]:
    """Return the name and the number of NAME=NUMBER."""
    name, _, number = text.partition("=")
    try:
        value = int(number) if number.lstrip("-").isdigit() else float(number)
    except ValueError:
        raise ValueError(f"'{text}' is not NAME=NUMBER, such as tubelet_size=4") from None
    return name, value


def names(text: str) -> tuple[str, ...]:
    """Return the names of a comma-separated list; each name may occur once."""
    found = tuple(name.strip() for name in text.split(","))
    if not all(found) or len(set(found)) != len(found):
        raise ValueError(f"'{text}' is not a list of names such as shoulder,wrist, each once")
    return found


def namespace(text: str) -> str:
    """Return a ROS namespace, or '' for none."""
    name = text.strip("/")
    if not name:  # The default, which must work without ROS too.
        return ""
    from rclpy.exceptions import InvalidNamespaceException
    from rclpy.validate_namespace import validate_namespace

    try:
        validate_namespace(f"/{name}")
    except InvalidNamespaceException as error:
        raise ValueError(
            f"'{text}' is not a ROS namespace, such as left_arm: letters, digits, _ and / between"
        ) from error
    return name


def node_name(text: str) -> str:
    """Return the name of a ROS node, which a namespace may precede."""
    from rclpy.exceptions import InvalidNamespaceException, InvalidNodeNameException
    from rclpy.validate_namespace import validate_namespace
    from rclpy.validate_node_name import validate_node_name

    namespace_of, _, name = text.rpartition("/")
    try:
        validate_node_name(name)
        validate_namespace(f"/{namespace_of.strip('/')}")
    except (InvalidNamespaceException, InvalidNodeNameException) as error:
        raise ValueError(
            f"'{text}' is not the name of a ROS node, such as button or /arm/controller_manager"
        ) from error
    return text


def _whole(text: str, low: int, high: int | None) -> int:
    try:
        value = int(text)
    except ValueError:
        raise ValueError(f"'{text}' is not a whole number") from None
    if value < low or (high is not None and value > high):
        expected = f"at least {low}" if high is None else f"{low} to {high}"
        raise ValueError(f"{value} is out of range; expected {expected}")
    return value
