"""From a camera frame to the tensor that V-JEPA 2 was trained on, one frame at a time.

The arithmetic equals that of transformers' `VJEPA2VideoProcessor` with torchvision, operation by operation, so the
results are equal. torchvision itself is not needed. A sliding clip preprocesses each frame only once.
"""

import math
import platform
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from vjepa_interfaces.errors import VjepaError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
MAX_ASPECT = 16
"""The largest ratio of a frame's sides: a longer frame would be enlarged without bound."""

_BILINEAR = 2
_UINT8_ON_CPU = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512") or platform.machine() == "aarch64"


MAX_SIDE = 4096
"""The largest side of a preprocessed frame, pixels: a damaged file could ask for more memory than there is."""


class FrameError(VjepaError):
    """A frame that cannot be preprocessed: not a picture of the kind the camera topics carry."""


class PreprocessingError(VjepaError):
    """A checkpoint's preprocessing that V-JEPA 2 does not have."""


@dataclass(frozen=True)
class Preprocessing:
    """The preprocessing of a frame: resize, crop, scale, normalise.

    Attributes:
        resize: shorter side after the bilinear resize, pixels.
        crop: side of the square that is cut from the middle, pixels, at most `resize`.
        rescale_factor: factor of each 8-bit sample.
        mean: value of each of the three colours that is subtracted after rescaling.
        std: value of each of the three colours that divides the result.
    """

    resize: int
    crop: int
    rescale_factor: float = 1 / 255
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __post_init__(self) -> None:
        for name in ("resize", "crop"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_SIDE:
                raise PreprocessingError(
                    f"preprocessing has {name} {value!r}; expected a whole number of pixels, at most {MAX_SIDE}"
                )
        if self.crop > self.resize:
            raise PreprocessingError(f"preprocessing crops {self.crop} pixels out of {self.resize}; expected no more")

    @classmethod
    def from_bundle(cls, fields: dict[str, Any]) -> "Preprocessing":
        """Return the preprocessing of a bundle: an object with the attributes' names, the last three optional.

        Raises:
            PreprocessingError: a name is missing or unknown, or a value is out of range.
        """
        unknown = fields.keys() - cls.__dataclass_fields__.keys()
        missing = {"resize", "crop"} - fields.keys()
        if unknown or missing:
            raise PreprocessingError(
                f"preprocessing has unknown {sorted(unknown)} and lacks {sorted(missing)}; "
                f"expected {', '.join(cls.__dataclass_fields__)}, of which resize and crop are needed"
            )
        return cls._checked(fields["resize"], fields["crop"], fields, "mean", "std")

    @classmethod
    def from_video_processor(cls, fields: dict[str, Any]) -> "Preprocessing":
        """Return the preprocessing of `VJEPA2VideoProcessor` with these fields of its JSON file.

        Like that processor, this derives the resize from the crop (256/224 of it) and ignores `size`.

        Raises:
            PreprocessingError: a step is switched off, the resampling is another, or the crop is not square.
        """
        crop = fields.get("crop_size", 256)
        if isinstance(crop, dict):
            if crop.get("height") != crop.get("width"):
                raise PreprocessingError(f"crop_size is {crop}; V-JEPA 2 takes square frames: height equal to width")
            crop = crop.get("height")
        off = [name for name in ("resize", "center_crop", "rescale", "normalize") if fields.get(f"do_{name}") is False]
        if off:
            raise PreprocessingError(f"preprocessing has do_{off[0]} false; expected every step of V-JEPA 2's on")
        if fields.get("resample", _BILINEAR) != _BILINEAR:
            raise PreprocessingError(f"preprocessing has resample {fields['resample']}; expected {_BILINEAR}, bilinear")
        if isinstance(crop, bool) or not isinstance(crop, int):
            raise PreprocessingError(f"crop_size is {crop!r}; expected a whole number of pixels")
        return cls._checked(int(crop * 256 / 224), crop, fields, "image_mean", "image_std")

    @classmethod
    def _checked(cls, resize: Any, crop: Any, fields: dict[str, Any], mean: str, std: str) -> "Preprocessing":
        return cls(
            resize=resize,
            crop=crop,
            rescale_factor=_numbers("rescale_factor", fields.get("rescale_factor", 1 / 255), 1, above=0.0)[0],
            mean=_numbers(mean, fields.get(mean, IMAGENET_MEAN), 3, above=-math.inf),
            std=_numbers(std, fields.get(std, IMAGENET_STD), 3, above=0.0),
        )

    def apply(self, rgb: np.ndarray) -> torch.Tensor:
        """Return a frame, uint8 of shape (height, width, 3), as float32 of shape (3, crop, crop), on the CPU.

        Raises:
            FrameError: the frame has another type or shape, no pixels, or sides in a ratio above `MAX_ASPECT`.
        """
        if not isinstance(rgb, np.ndarray) or rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
            found = f"{rgb.dtype} of shape {rgb.shape}" if isinstance(rgb, np.ndarray) else type(rgb).__name__
            raise FrameError(f"frame is {found}; expected a numpy array, uint8 of shape (height, width, 3)")
        height, width = rgb.shape[:2]
        if not rgb.size or max(height, width) > MAX_ASPECT * min(height, width):
            raise FrameError(
                f"frame has {height} x {width} pixels; expected sides above 0, none over {MAX_ASPECT} times the other"
            )
        image = _resized(torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1))), self._size(height, width))
        top, left = ((side - self.crop) // 2 for side in image.shape[1:])
        image = image[:, top : top + self.crop, left : left + self.crop]
        return image.to(torch.float32).sub_(self._scaled_mean).div_(self._scaled_std)

    def picture(self, frame: torch.Tensor) -> np.ndarray:
        """Return the output of `apply` as a picture to look at: uint8 of shape (crop, crop, 3)."""
        samples = frame * self._scaled_std + self._scaled_mean
        return samples.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()

    def _size(self, height: int, width: int) -> tuple[int, int]:
        longer = int(self.resize * max(height, width) / min(height, width))
        return (longer, self.resize) if width <= height else (self.resize, longer)

    @cached_property
    def _scaled_mean(self) -> torch.Tensor:
        return (torch.tensor(self.mean) * (1.0 / self.rescale_factor)).view(-1, 1, 1)

    @cached_property
    def _scaled_std(self) -> torch.Tensor:
        return (torch.tensor(self.std) * (1.0 / self.rescale_factor)).view(-1, 1, 1)


def _numbers(name: str, values: Any, count: int, above: float) -> tuple[float, ...]:
    numbers = values if isinstance(values, list | tuple) else [values]
    if len(numbers) != count or not all(isinstance(v, int | float) and above < v < math.inf for v in numbers):
        raise PreprocessingError(f"preprocessing has {name} {values}; expected {count} finite numbers above {above}")
    return tuple(float(v) for v in numbers)


def _resized(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Return `image`, uint8 (3, height, width), in `size`: bilinear, antialiased, rounded as torchvision does."""
    if tuple(image.shape[1:]) == size:
        return image
    # torchvision interpolates integers where the CPU does that fast, with other rounding than the float path.
    samples = image[None] if _UINT8_ON_CPU else image[None].to(torch.float32)
    samples = functional.interpolate(samples, size=size, mode="bilinear", align_corners=False, antialias=True)
    return (samples if _UINT8_ON_CPU else samples.round_().to(torch.uint8))[0]
