"""Planners are swapped while running: nothing stops, nothing goes unanswered, and nonsense is refused."""

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
    stack.wait_for(lambda: set(frames.stamps) <= set(commands.stamps), "an answer to every frame")
    assert len(set(frames.stamps)) == 2 * 151
    assert stack.monitor.value("sim_bridge", "resent_frames") == 0, "no frame had to be sent again"
    seen = [message.data for message in drivers.messages]
    assert seen[-5:] == ["random", "expert-p", "expert", "random", "expert"]


def test_swaps_in_real_time_cost_at_most_one_step_in_a_hundred(start_stack, tmp_path):
    slow = tmp_path / "slow.yaml"
    slow.write_text("sim_bridge: {ros__parameters: {rate_hz: 10.0}}\n")  # Slow, so that a busy machine keeps up.
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
    assert stack.keeper.episodes[0].in_target_at_end


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
