"""Deprecated names of options, parameters, experiments and fields. They work for one version.

A name in use that is deprecated is reported in one line on standard error, with the name to use instead.
"""

import sys
from collections.abc import Callable, Mapping
from typing import TypeVar

from vjepa_interfaces.errors import VjepaError

T = TypeVar("T")

EXPERIMENT = "experiment"
FIELD = "field of an experiment"
LAUNCH_ARGUMENT = "launch argument"
PARAMETER = "parameter"
"""Kinds of names beside the options of commands and their values."""

RENAMED: Mapping[str, Mapping[str, str]] = {
    "run": {"policy": "bc_bundle"},
    "eval": {"policy": "bc_bundle"},
    "collect": {"policy": "behaviour"},
    "improve": {"policy": "prior"},
    "train bc": {"old": "baseline", "batch_lanes": "num_envs"},
    "train dynamics": {"old": "baseline", "conditioning": "state_projection"},
    "train dreamer": {"policy": "prior", "dreams": "imagined_rollouts"},
    "--protocol": {"old": "baseline"},
    "--preset": {"dreamer-old": "baseline-dreamer"},
    EXPERIMENT: {
        "cem-no-proposals": "cem-no-prior",
        "cem-old": "baseline-cem",
        "cem-old-1m": "baseline-cem-1m",
        "cem-old-direct": "baseline-cem-direct",
        "cem-old-multistep": "baseline-cem-multistep",
        "cem-old-resblock": "baseline-cem-resblock",
        "cem-old-resblock-1m": "baseline-cem-resblock-1m",
        "dreamer-old": "baseline-dreamer",
        "reward-old": "baseline-reward",
        "shooting-old": "baseline-shooting",
    },
    FIELD: {"old": "earlier"},
    LAUNCH_ARGUMENT: {"policy": "bc_bundle"},
    PARAMETER: {
        "cem.proposals": "cem.prior_samples",
        "cem.proposal_std": "cem.prior_std",
        "mppi.proposals": "mppi.prior_samples",
        "mppi.proposal_std": "mppi.prior_std",
        "shooting.proposals": "shooting.prior_samples",
        "shooting.proposal_std": "shooting.prior_std",
    },
}
"""The present name of each deprecated name, by kind. A kind is a command for its options, an option for its values, or
one of the constants above."""


def current_name(kind: str, name: str, shown: Callable[[str], str] = repr) -> str:
    """Return the present name of `name`, and report a deprecated one on standard error.

    Args:
        kind: kind of the name, a key of `RENAMED`; another kind has no deprecated names.
        name: a name, deprecated or not.
        shown: returns a name as the user writes it, such as an option with its dashes.
    """
    current = RENAMED.get(kind, {}).get(name, name)
    if current != name:
        print(f"vjepa: {kind}: {shown(name)} is deprecated; use {shown(current)}", file=sys.stderr)
    return current


def current_names(kind: str, values: Mapping[str, T], is_reported: bool = True) -> dict[str, T]:
    """Return `values` by their present names.

    Args:
        kind: kind of the names, as in `current_name`.
        values: values by name, deprecated or not.
        is_reported: whether a deprecated name is reported; not for the records of earlier versions.

    Raises:
        VjepaError: a value is given by its deprecated name and by its present one.
    """
    renamed = RENAMED.get(kind, {})
    for name in values.keys() & renamed.keys():
        if renamed[name] in values:
            raise VjepaError(f"{kind}: '{name}' is the deprecated name of '{renamed[name]}'; give the latter alone")
    if not is_reported:
        return {renamed.get(name, name): value for name, value in values.items()}
    return {current_name(kind, name): value for name, value in values.items()}
