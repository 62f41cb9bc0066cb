"""The bundles of a planner, and the config of `vjepa train` with which their training continues."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vjepa_bringup.graph import StackOptions, merged_parameters, read_parameter_file
from vjepa_cli.actions import action_of
from vjepa_interfaces.bundle import Bundle, find_bundle, read_bundle, shipped_bundles
from vjepa_interfaces.deprecated import current_names
from vjepa_interfaces.errors import VjepaError

SEARCHES = ("cem", "mppi", "shooting")
DREAMER = "dreamer"
DYNAMICS, REWARD, ACTOR, POLICY = "dynamics", "reward", "actor", "policy"
"""Kinds of bundles, as in their config.json."""

OPTION_OF = {DYNAMICS: "dynamics", REWARD: "reward", POLICY: "prior"}
"""The option of `vjepa improve` and `vjepa train dreamer` that names a bundle, by kind."""

TRAINED_BY = {DYNAMICS: "train dynamics", REWARD: "train reward", ACTOR: "train dreamer"}
"""The action that trains a bundle, by kind."""


@dataclass(frozen=True)
class WarmStart:
    """The bundles with which a planner acts, and from which its training continues.

    Attributes:
        planner: name of the planner.
        bundles: folders of the trained bundles by kind, in the order of training: `dynamics`, `reward` and, for
            `dreamer`, `actor`.
        named_by: parameters of `vjepa_planner` that name these bundles, by kind; only for bundles that are options.
        policy: the policy that an actor stays near; empty for none.
        parameters: parameters of the user's file, by node, flat.
    """

    planner: str
    bundles: Mapping[str, str]
    named_by: Mapping[str, str]
    policy: str
    parameters: Mapping[str, Mapping[str, Any]]

    def parameter_file(self, bundles: Mapping[str, str]) -> dict[str, Any]:
        """Return the contents of a parameter file for this planner on other `bundles` of the same kinds."""
        changed = {"planner": self.planner} | {name: bundles[kind] for kind, name in self.named_by.items()}
        nodes = {name: dict(values) for name, values in self.parameters.items() if name != "vjepa_planner"}
        # The last entry of a file has precedence, also over an entry for every node.
        nodes["vjepa_planner"] = {**self.parameters.get("vjepa_planner", {}), **changed}
        return {name: {"ros__parameters": values} for name, values in nodes.items()}


def warm_start(planner: str, params_file: str, given: Mapping[str, str]) -> WarmStart:
    """Return the bundles and the parameters with which `planner` acts.

    Args:
        planner: `cem`, `mppi`, `shooting` or `dreamer`.
        params_file: parameters over the stack's own, or empty.
        given: bundles by kind for `dreamer`, whose options do not name the bundles of its training.

    Raises:
        VjepaError: the planner is another one; or a bundle is not named, is missing, or does not fit the others. The
            message states a remedy.
    """
    parameters = read_parameter_file(Path(params_file)) if params_file else {}
    options = merged_parameters(StackOptions(params_file=params_file))["vjepa_planner"]
    given = {kind: path for kind, path in given.items() if path}
    if planner in SEARCHES:
        if given:
            raise VjepaError(
                f"--{OPTION_OF[min(given)]} is for dreamer; {planner} is trained with the bundles of its options"
            )
        found = _of_search(planner, options)
        return WarmStart(planner, *found, policy="", parameters=parameters)
    if planner == DREAMER:
        bundles, named_by, policy = _of_dreamer(options, given)
        return WarmStart(planner, bundles, named_by, policy, parameters)
    hint = "; a cloned policy improves by DAgger: vjepa train bc --dagger N" if planner == "bc" else ""
    valid = ", ".join((*SEARCHES, DREAMER))
    raise VjepaError(f"'{planner}' has no bundles that rounds can train; expected one of {valid}{hint}")


def training_config(kind: str, bundle: str) -> dict[str, Any]:
    """Return the config of `vjepa train` that makes the network of `bundle`, with the same objective.

    Raises:
        VjepaError: config.json of the bundle does not state its training.
    """
    training = read_bundle(bundle, kind).config.get("training")
    if not isinstance(training, dict):
        raise VjepaError(f"{bundle} does not record its training; rounds start from bundles of vjepa train {kind}")
    options = action_of(TRAINED_BY[kind]).options
    current = current_names(TRAINED_BY[kind], training, is_reported=False)
    return {name: value for name, value in current.items() if name in options}


def _of_search(planner: str, options: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    if options.get(f"{planner}.objective", "reward") != "reward":
        raise VjepaError(
            f"{planner}.objective is '{options[f'{planner}.objective']}'; rounds compare returns, so expected reward"
        )
    named_by = {kind: f"{planner}.{kind}" for kind in (DYNAMICS, REWARD)}
    bundles = {kind: options.get(name, "") for kind, name in named_by.items()}
    for kind, name in named_by.items():
        if not bundles[kind]:
            raise VjepaError(f"{name} names no bundle; name the bundle to start from in a file for --params-file")
    _require_heads_of(bundles)
    return bundles, named_by


def _of_dreamer(options: Mapping[str, Any], given: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str], str]:
    actor = options.get("dreamer.bundle", "")
    if not actor:
        raise VjepaError("dreamer.bundle names no actor; name the actor to start from in a file for --params-file")
    bundle = read_bundle(actor, ACTOR)
    known = {kind: _trained_with(bundle, kind) for kind in (DYNAMICS, REWARD, POLICY)}
    if watching := options.get("dreamer.dynamics", ""):
        known[DYNAMICS] = watching
    known |= given
    for kind in (DYNAMICS, REWARD, POLICY):
        if not known[kind] and (kind != POLICY or f"{kind}_sha256" in bundle.config):
            raise VjepaError(
                f"the {kind} of the training of {actor} is not found; name it with --{OPTION_OF[kind]} BUNDLE"
            )
    bundles = {DYNAMICS: known[DYNAMICS], REWARD: known[REWARD], ACTOR: actor}
    _require_heads_of(bundles)
    named_by = {ACTOR: "dreamer.bundle"} | ({DYNAMICS: "dreamer.dynamics"} if watching else {})
    return bundles, named_by, known[POLICY]


def _trained_with(actor: Bundle, kind: str) -> str:
    """Return the bundle of `kind` that `actor` was trained with: its old path, or a shipped one; '' for neither.

    A bundle whose weights have changed does not count.
    """
    known = actor.config.get("trained_with")
    paths = [str(known.get(kind, ""))] if isinstance(known, dict) else []
    for path in filter(None, [*paths, *shipped_bundles(kind)]):
        weights = Bundle(Path(find_bundle(path)).expanduser(), {})
        if weights.weights.is_file() and weights.weights_sha256 == actor.config.get(f"{kind}_sha256"):
            return path
    return ""


def _require_heads_of(bundles: Mapping[str, str]) -> None:
    """Refuse heads that read the states of another dynamics model."""
    read_bundle(bundles[REWARD], REWARD).check_dynamics(read_bundle(bundles[DYNAMICS], DYNAMICS))
