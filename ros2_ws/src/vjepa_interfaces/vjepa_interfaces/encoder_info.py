"""The message of an encoder on the topic `vjepa_perception/latent_info`, without ROS."""

from typing import TypedDict


class EncoderInfo(TypedDict, total=False):
    """The origin and the shape of latents. Datasets contain it too.

    Attributes:
        model: name of the encoder.
        fingerprint: fingerprint of the encoder.
        clip_frames: number of frames in a clip.
        grid: side of the grid of tokens.
        shape: rows and dimension of a latent.
        image_size: side of the encoder's picture, pixels.
        untrained: whether the weights are drawn from a seed.
        dtype: type of the products, `float32` or `bfloat16`.
    """

    model: str
    fingerprint: str
    clip_frames: int
    grid: int
    shape: list[int]
    image_size: int
    untrained: bool
    dtype: str
