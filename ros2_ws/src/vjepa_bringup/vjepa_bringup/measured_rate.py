"""The rate `auto`: the highest rate of the chosen planner's training that this machine can hold."""

import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

from vjepa_bringup.graph import AUTO_RATE, StackOptions, merged_parameters, trained_periods
from vjepa_bringup.supervisor import executable_of
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.rates import attainable_rate_hz

PLAN_AND_TRANSPORT_S = 0.003
"""Time from a frame to its command beside the encoding, s, of a policy without search; see docs/performance.md."""
MEASUREMENT_S = 180.0
"""Longest time to load and to measure an encoder, seconds."""


def with_measured_rate(options: StackOptions) -> StackOptions:
    """Return the options with the chosen rate in place of `auto`, and print a line about the choice on standard error.

    Raises:
        VjepaError: the rate cannot be chosen, or the encoder does not load; or as `merged_parameters`.
    """
    if options.rate != AUTO_RATE:
        return options
    parameters = merged_parameters(replace(options, rate=None))
    planner: dict[str, Any] = parameters["vjepa_planner"]
    if parameters["sim_bridge"].get("lockstep") and options.source == "sim":
        raise VjepaError("rate is auto, but lockstep waits for every command, so it holds any rate; give a number")
    if options.source == "camera" and not options.camera:
        raise VjepaError("rate is auto, but your own camera driver has its own rate; give that as a number")
    periods_s = trained_periods(planner["planner"], planner)
    if not periods_s:
        raise VjepaError(
            f"rate is auto, but planner '{planner['planner']}' has no bundle that records the rates of its training; "
            "give a number"
        )
    encode_s = _encode_time_s(parameters["vjepa_perception"])
    attainable_hz = attainable_rate_hz(encode_s + PLAN_AND_TRANSPORT_S)
    rates_hz = [1.0 / period_s for period_s in periods_s]
    rate_hz = max((each for each in rates_hz if each <= attainable_hz), default=min(rates_hz))
    trained = f"trained at {' and '.join(f'{each:.4g}' for each in sorted(rates_hz))} Hz"
    line = (
        f"vjepa: rate {rate_hz:.4g} Hz: planner '{planner['planner']}' was {trained}, and with {1e3 * encode_s:.1f} ms "
        f"an encode this machine can hold {attainable_hz:.1f} Hz"
    )
    too_slow = "; warning: expect frames without command" if rate_hz > attainable_hz else ""
    print(f"{line}{too_slow}", file=sys.stderr, flush=True)
    return replace(options, rate=f"{rate_hz:.10g}")


def _encode_time_s(perception: dict[str, Any]) -> float:
    """Return the usual time of one encode, s, with the parameters of `vjepa_perception`."""
    program = executable_of("vjepa_perception", "encode_time")
    try:
        done = subprocess.run(
            [str(program), json.dumps(perception)], capture_output=True, text=True, timeout=MEASUREMENT_S, check=True
        )
    except subprocess.TimeoutExpired as error:
        raise VjepaError(f"the encoder was not measured within {MEASUREMENT_S:.0f} s; give rate as a number") from error
    except subprocess.CalledProcessError as error:
        raise VjepaError(error.stderr.strip().splitlines()[-1] if error.stderr.strip() else str(error)) from error
    return float(done.stdout)
