"""What perception makes of other people's frames: converted where that is well defined, else refused by name."""

import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage, Image

from vjepa_interfaces import topics
from vjepa_interfaces.image_codec import fill_image
from vjepa_interfaces.messages import latent_of

pytestmark = pytest.mark.faults


class Camera:
    """A stack whose frames come from the test."""

    def __init__(self, stack, kind=Image, topic="my_camera"):
        self.stack = stack
        self.latents = stack.tap(topics.LATENT)
        self.frames = stack.node.create_publisher(kind, topic, 50)
        self.stamp = 10**9
        stack.wait_for(lambda: self.frames.get_subscription_count() == 1, "perception to listen")
        stack.wait_for(lambda: stack.monitor.is_active(1.0), "the stack to be active")

    def show(self, message) -> np.ndarray:
        """Show one frame, as the first of an episode, and return its latent."""
        self.stamp += 10**9
        self.frames.publish(self.stack.stamped(message, self.stamp))
        self.stack.wait_for(lambda: self.stamp in self.latents.stamps, "the frame's latent")
        return latent_of(self.latents.by_stamp()[self.stamp])


def picture(height: int = 64, width: int = 64) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 255 // height, columns * 255 // width, (rows + columns) % 256], -1).astype(np.uint8)


def image(rgb: np.ndarray, encoding: str = "rgb8") -> Image:
    message = Image()
    fill_image(message, rgb)
    message.encoding = encoding
    return message


@pytest.fixture
def camera(start_stack):
    return lambda **options: Camera(start_stack(source="camera", planner="random", image_topic="my_camera", **options))


def test_other_encodings_and_sizes_are_converted_and_senseless_ones_refused_by_name(camera):
    camera = camera()
    rgb = picture()
    latent = camera.show(image(rgb))
    assert latent.shape == (5, 32), "as that of tests/light"
    np.testing.assert_array_equal(camera.show(image(rgb[..., ::-1], "bgr8")), latent)
    assert camera.show(image(picture(480, 640))).shape == latent.shape
    assert not np.array_equal(camera.show(image(255 - rgb)), latent), "another picture has another latent"

    depth = Image(height=64, width=64, encoding="32FC1", step=256, data=bytes(64 * 256))
    short = Image(height=64, width=64, encoding="rgb8", step=192, data=bytes(100))
    for message, words in ((depth, ("32FC1", "rgb8")), (short, ("100", "12288"))):
        camera.stamp += 10**9
        camera.frames.publish(camera.stack.stamped(message, camera.stamp))
        camera.stack.wait_for(
            lambda words=words: all(word in camera.stack.message_of("vjepa_perception") for word in words),
            f"a refusal that names {words}",
        )
    np.testing.assert_array_equal(camera.show(image(rgb)), latent)
    assert len(camera.latents.messages) == 5, "a refused frame has no latent"


def test_compressed_frames_are_an_input_too(start_stack, tmp_path):
    import cv2

    file = tmp_path / "compressed.yaml"
    file.write_text("vjepa_perception: {ros__parameters: {input_transport: compressed}}\n")
    stack = start_stack(source="camera", planner="random", params_file=str(file))
    camera = Camera(stack, CompressedImage, topics.IMAGE.name + "/compressed")
    _, png = cv2.imencode(".png", picture()[..., ::-1])
    assert camera.show(CompressedImage(format="png", data=png.tobytes())).shape == (5, 32)
