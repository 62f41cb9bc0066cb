"""Planners are swapped while running: nothing stops, nothing goes unanswered, and nonsense is refused."""

import pytest

from vjepa_interfaces import topics


def test_swaps_in_mid_episode_leave_no_stamp_unanswered_in_lockstep(lockstep_stack):
    stack = lockstep_stack(planner="expert", episodes=2, episode_steps=150)
    frames, commands = stack.tap(topics.IMAGE), stack.tap(topics.JOINT_COMMAND)
    drivers = stack.tap(topics.ACTIVE_PLANNER)
    for name in ("random", "expert-p", "expert", "random", "expert"):
        stack.wait_for_steps(20)
        assert stack.set_planner(name).successful
        stack.wait_for(lambda name=name: stack.driver == name, f"{name} to drive")
    stack.wait_finished()
    stack.wait_for(lambda: len(set(frames.stamps)) == 2 * 151, "every frame")
    stack.wait_for(lambda: set(frames.stamps) <= set(commands.stamps), "an answer to every frame")
    assert len(set(frames.stamps)) == 2 * 151
    assert stack.monitor.value("sim_bridge", "resent_frames") == 0, "no frame had to be sent again"
    seen = [message.data for message in drivers.messages]
    assert seen[-5:] == ["random", "expert-p", "expert", "random", "expert"]


@pytest.mark.slow
@pytest.mark.real_time
def test_swaps_in_real_time_cost_at_most_one_step_in_a_hundred(start_stack, tmp_path):
    slow = tmp_path / "slow.yaml"
    slow.write_text("sim_bridge: {ros__parameters: {playback_speed: 0.2}}\n")  # Slow, so that a busy machine keeps up.
    stack = start_stack(planner="expert", episode_steps=10_000, params_file=str(slow))
    stack.wait_for_value("vjepa_planner", "commands", lambda count: count > 20)
    before = {name: stack.monitor.value("sim_bridge", name) for name in ("steps", "stale_steps")}
    for name in ["random", "expert"] * 5:
        assert stack.set_planner(name).successful
        stack.wait_for_steps(20)
    after_steps = stack.wait_for_value("sim_bridge", "steps", lambda count: count >= before["steps"] + 200)
    stale = stack.monitor.value("sim_bridge", "stale_steps") - before["stale_steps"]
    assert stale <= 0.01 * (after_steps - before["steps"])
    assert stack.monitor.value("vjepa_planner", "swaps") == 10


def test_an_unknown_planner_is_refused_and_the_old_one_drives_on(lockstep_stack):
    stack = lockstep_stack(planner="expert", episodes=1, episode_steps=150)
    stack.wait_for_steps(5)
    result = stack.set_planner("teleport")
    assert not result.successful
    for name in ("teleport", "expert", "expert-p", "random"):
        assert name in result.reason
    stack.wait_for_episodes(1)
    assert stack.driver == "expert"
    assert stack.scores.episodes[0].in_target_at_end


def test_a_planner_that_could_not_load_is_refused_with_the_reason(lockstep_stack, tmp_path):
    file = tmp_path / "bc.yaml"
    file.write_text("vjepa_planner: {ros__parameters: {planners: [expert, bc], bc: {bundle: /nowhere}}}\n")
    stack = lockstep_stack(planner="expert", params_file=str(file))
    stack.wait_for_steps(5)
    result = stack.set_planner("bc")
    assert not result.successful
    assert "/nowhere" in result.reason
    stack.wait_for_steps(5)


def test_other_parameters_cannot_be_changed_while_running(lockstep_stack):
    from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
    from rcl_interfaces.srv import SetParametersAtomically

    stack = lockstep_stack(planner="expert")
    stack.wait_for_steps(1)
    value = ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=99.0)
    request = SetParametersAtomically.Request(parameters=[Parameter(name="effort_limit", value=value)])
    result = stack.call(SetParametersAtomically, "vjepa_planner/set_parameters_atomically", request).result
    assert not result.successful
    assert "configure" in result.reason


def set_gain(stack, value: float) -> None:
    from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
    from rcl_interfaces.srv import SetParametersAtomically

    gain = ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=value)
    request = SetParametersAtomically.Request(parameters=[Parameter(name="expert-p.gain", value=gain)])
    result = stack.call(SetParametersAtomically, "vjepa_planner/set_parameters_atomically", request).result
    assert result.successful, result.reason


def loading_ended(stack) -> bool:
    values = stack.monitor.diagnostics.get("vjepa_planner", ("", "", {}))[2]
    return values.get("new options: expert-p", "loading") != "loading"


def test_a_planner_with_new_options_takes_its_own_place_while_it_drives(lockstep_stack, tmp_path):
    file = tmp_path / "gain.yaml"
    file.write_text("vjepa_planner: {ros__parameters: {expert-p.gain: 5.0}}\n")
    stack = lockstep_stack(planner="expert-p", params_file=str(file), episode_steps=100_000)
    frames, commands = stack.tap(topics.IMAGE), stack.tap(topics.JOINT_COMMAND)
    stack.wait_for_steps(5)
    assert any(any(message.effort) for message in commands.messages)
    set_gain(stack, 0.0)
    stack.wait_for(lambda: loading_ended(stack), "the new options to be loaded")
    assert any(commands.messages[-1].effort), "it drives as it was until it is set"
    assert stack.set_planner("expert-p").successful
    stack.wait_for(lambda: not any(commands.messages[-1].effort), "a command of the new gain")
    since = commands.stamps[-1]
    stack.wait_for_steps(5)
    assert not any(any(message.effort) for stamp, message in commands.by_stamp().items() if stamp >= since)
    assert stack.driver == "expert-p"
    assert stack.wait_for_value("vjepa_planner", "swaps", lambda count: count > 0) == 1
    answered, asked = set(commands.stamps), frames.stamps[:-1]
    assert set(asked) <= answered, "no latent went unanswered"
