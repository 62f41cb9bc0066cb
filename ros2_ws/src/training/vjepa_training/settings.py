"""From the stack's parameters to the encoder and the simulation that its nodes would have, for the command line."""

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any

from sim_bridge.env import SimConfig
from vjepa_interfaces.bundle import read_bundle
from vjepa_interfaces.parameters import read_parameters
from vjepa_perception.encoder import EncoderConfig, identify_encoder, load_encoder

__all__ = ["encoder_config", "load_encoder", "refuse_misfits", "sim_config"]


def encoder_config(perception: Mapping[str, Any], threads: int) -> EncoderConfig:
    """Return the encoder of the parameters of `vjepa_perception`, but with so many threads.

    Raises:
        VjepaError: a parameter of a wrong type.
    """
    return replace(read_parameters(EncoderConfig, _fields_of(EncoderConfig, perception)), threads=threads)


def sim_config(sim: Mapping[str, Any], episode_steps: int, given: Mapping[str, Any]) -> SimConfig:
    """Return the simulation of the parameters of `sim_bridge`.

    Args:
        sim: the parameters, flat.
        episode_steps: control steps of an episode, whatever the parameters say.
        given: fields of `SimConfig` that stand above the parameters, where they are neither false nor None.

    Raises:
        VjepaError: a parameter of a wrong type, or a value that no simulation can have.
    """
    values = _fields_of(SimConfig, sim) | {name: value for name, value in given.items() if value}
    values |= {"episode_steps": episode_steps, "effort_limit": sim.get("effort_limit") or None}
    return read_parameters(SimConfig, values)


def refuse_misfits(parameters: Mapping[str, Mapping[str, Any]], bundles: Iterable[str]) -> None:
    """Refuse a simulation or an encoder that cannot be, and bundles that were trained on another encoder.

    Args:
        parameters: of every node, by node name, flat.
        bundles: that the planner reads.

    Raises:
        VjepaError: as `sim_config`, `identify_encoder` and `Bundle.check_encoder`.
    """
    sim = parameters["sim_bridge"]
    sim_config(sim, sim["episode_steps"], {})
    name, fingerprint = identify_encoder(encoder_config(parameters["vjepa_perception"], threads=0))
    for bundle in map(read_bundle, bundles):
        if "encoder_fingerprint" in bundle.config:
            bundle.check_encoder(fingerprint, name)


def _fields_of(config_class: type, parameters: Mapping[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(config_class)}
    return {name: value for name, value in parameters.items() if name in names}
