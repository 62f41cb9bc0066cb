"""A policy bundle in the loop: it drives on the latents it was made for, and is refused on any others."""

import numpy as np
import torch
from sensor_msgs.msg import Image

from vjepa_interfaces import topics
from vjepa_interfaces.bundle import find_bundle
from vjepa_interfaces.image_codec import fill_image
from vjepa_interfaces.stamps import to_nanoseconds
from vjepa_perception.encoder import EncoderConfig, load_encoder
from vjepa_planner.models.policy import Policy, PolicyConfig, save_policy


def write_policy(path, fingerprint: str, latent_dim: int = 128, joint_state: bool = True, **facts):
    torch.manual_seed(0)
    policy = Policy(PolicyConfig(latent_dim=latent_dim, latent_rows=(0,), joint_state=joint_state, action_size=2))
    save_policy(path, policy, fingerprint, "# A policy with random weights, for a test\n", facts)
    return path


def parameters(tmp_path, bundle):
    file = tmp_path / "bc.yaml"
    file.write_text(f"vjepa_planner: {{ros__parameters: {{planners: [expert, bc], bc: {{bundle: {bundle}}}}}}}\n")
    return str(file)


def test_a_policy_bundle_is_swapped_in_and_drives(lockstep_stack, tmp_path):
    fingerprint = load_encoder(EncoderConfig(encoder=find_bundle("encoder-small"))).fingerprint
    bundle = write_policy(tmp_path / "policy", fingerprint)
    stack = lockstep_stack(
        planner="expert", light=False, params_file=parameters(tmp_path, bundle), episodes=1, episode_steps=200
    )
    commands = stack.tap(topics.JOINT_COMMAND)
    stack.wait_for_steps(5)
    assert stack.set_planner("bc").successful
    stack.wait_for(lambda: stack.driver == "bc", "the policy to drive")
    stack.wait_finished()
    assert stack.monitor.value("vjepa_planner", "refused_latents") == 0
    efforts = {tuple(message.effort) for message in commands.messages[-50:]}
    assert len(efforts) > 10, "a policy answers to what it sees"


def test_a_policy_of_another_encoder_is_refused_with_both_fingerprints(lockstep_stack, tmp_path):
    bundle = write_policy(tmp_path / "policy", "0123456789abcdef")
    stack = lockstep_stack(planner="expert", params_file=parameters(tmp_path, bundle), episode_steps=1000)
    stack.wait_for_steps(5)
    stack.wait_for(lambda: stack.monitor.encoder_info, "the encoder's info")
    result = stack.set_planner("bc")
    assert not result.successful
    assert "0123456789abcdef" in result.reason
    assert stack.monitor.encoder_info["fingerprint"] in result.reason
    stack.wait_for_steps(5)


def test_started_with_a_policy_of_another_encoder_the_arm_gets_zero_torque_and_the_reason(lockstep_stack, tmp_path):
    bundle = write_policy(tmp_path / "policy", "0123456789abcdef")
    stack = lockstep_stack(planner="bc", params_file=parameters(tmp_path, bundle), episodes=1, episode_steps=20)
    commands = stack.tap(topics.JOINT_COMMAND)
    stack.wait_finished()
    assert {tuple(message.effort) for message in commands.messages} == {(0.0, 0.0)}
    stack.wait_for(lambda: "0123456789abcdef" in stack.monitor.errors().get("vjepa_planner", ""), "the reason")


def test_a_camera_of_another_rate_than_the_policys_training_is_a_warning_until_it_is_right(start_stack, tmp_path):
    fingerprint = load_encoder(EncoderConfig(encoder=find_bundle("encoder-small"))).fingerprint
    bundle = write_policy(tmp_path / "policy", fingerprint, joint_state=False, control_period_s=0.02)
    stack = start_stack(
        source="camera", planner="bc", image_topic="my_camera", params_file=parameters(tmp_path, bundle)
    )
    camera, latents = stack.node.create_publisher(Image, "my_camera", 50), stack.tap(topics.LATENT)
    stack.wait_for(lambda: camera.get_subscription_count() == 1, "perception to listen")
    stack.wait_for(lambda: stack.monitor.is_active(1.0), "the stack to be active")
    frame, stamp = Image(), 10**9
    fill_image(frame, np.zeros((64, 64, 3), np.uint8))

    def film(period_ns: int, message: str) -> None:
        """Show frames so far apart, the next one when the last one's latent is there, until the planner says so."""

        def said() -> bool:
            nonlocal stamp
            if stamp == 10**9 or (latents.messages and to_nanoseconds(latents.messages[-1].header.stamp) == stamp):
                stamp += period_ns
                camera.publish(stack.stamped(frame, stamp))
            return stack.message_of("vjepa_planner") == message

        stack.wait_for(said, message)

    film(33_333_333, "latents of frames 33.3 ms apart; planner 'bc' was trained on frames 20 ms apart")
    film(20_000_000, "planning")
