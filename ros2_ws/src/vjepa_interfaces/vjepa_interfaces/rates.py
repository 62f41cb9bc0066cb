"""The rate at which a loop of camera, encoder and planner can run, from the time that a frame takes to its command."""

MARGIN = 1.25
"""The least period as a multiple of that time's usual value: some frames take longer."""


def attainable_rate_hz(frame_to_command_s: float) -> float:
    """Return the highest rate in Hz at which a command usually arrives within the period of its frame.

    Args:
        frame_to_command_s: usual time from a frame to its command, seconds: encoding, planning and transport.
    """
    return 1.0 / (MARGIN * frame_to_command_s)
