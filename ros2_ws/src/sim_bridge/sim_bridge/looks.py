"""How the simulation looks to its camera: the benchmark's distractions, each by a name, a level and a seed.

`colour`, `camera` and `background` are those of the Distracting Control Suite, on its own scales (Stone et al., The
Distracting Control Suite, 2021); the others are what real cameras and rooms do. `random` draws scenes for training
encoders, `varied` scenes and cameras for training policies. None of them touches the physics, the reward or a start: an
episode's states are those of its seed, whatever it looks like. Draws come from random streams of their own.
"""

import zlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sim_bridge.backgrounds import Pictures
from sim_bridge.scene import Scene, orbit_pose
from vjepa_interfaces.errors import VjepaError, unknown_name

SCALES = {"easy": 0.1, "medium": 0.2, "hard": 0.3}
"""Of the Distracting Control Suite; 1 is as far as it goes."""
VIDEOS = {"easy": 4, "medium": 8, "hard": 60}
"""Backgrounds that a level draws from, as there."""
NOMINAL, ALL = "nominal", "all"
MOVING = "moving"

_STREAM = 5


class Effect:
    """One thing that makes frames look otherwise; this one does nothing.

    Attributes:
        scale: how much, from 0 to 1.
        videos: backgrounds to draw from.
        moving: whether it changes during an episode.
    """

    def __init__(self, scale: float, videos: int, moving: bool):
        self.scale, self.videos, self.moving = scale, videos, moving

    def begin(self, scene: Scene, rng: np.random.Generator) -> None:
        """Draw an episode's look; `scene` is nominal and at the episode's first state."""

    def advance(self, rng: np.random.Generator) -> None:
        """Go on by a control step."""

    def apply(self, scene: Scene) -> None:
        """Change `scene` before a frame is rendered."""

    def on_frame(self, frame: np.ndarray, step: int, rng: np.random.Generator) -> np.ndarray:
        """Return the frame as the camera would deliver it: (height, width, 3) uint8.

        Args:
            frame: as rendered; not changed.
            step: control steps since the episode's first.
            rng: the same for the same episode and step.
        """
        return frame


class Colour(Effect):
    """Every material's red, green and blue, moved by at most the scale; a random walk of 0.03 of it a step."""

    def begin(self, scene: Scene, rng: np.random.Generator) -> None:
        nominal = scene.nominal["mat_rgba"][:, :3]
        self._low, self._high = (np.clip(nominal + sign * self.scale, 0, 1) for sign in (-1, 1))
        self._rgb = rng.uniform(self._low, self._high)

    def advance(self, rng: np.random.Generator) -> None:
        walked = self._rgb + 0.03 * self.scale * rng.standard_normal(self._rgb.shape)
        self._rgb = np.clip(walked, self._low, self._high)

    def apply(self, scene: Scene) -> None:
        scene.model.mat_rgba[:, :3] = self._rgb


class Camera(Effect):
    """The camera on a sphere around what it looks at, up to a quarter turn a side and as far rolled, nearer or farther.

    It walks at random with a bounded velocity where it moves.
    """

    def begin(self, scene: Scene, rng: np.random.Generator) -> None:
        self._look_at = scene.look_at()
        radius, azimuth, polar = _spherical(scene.data.cam_xpos[scene.camera_id])
        reach = np.pi / 2 * self.scale
        self._low = np.array([radius * (1 - 0.5 * self.scale), azimuth - reach, polar - reach, -reach])
        self._high = np.array([radius * (1 + 1.5 * self.scale), azimuth + reach, polar + reach, reach])
        self._upright = scene.is_upright
        if self._upright:  # The camera stays in front of the arm and above its floor.
            self._low[1:3] = np.maximum(self._low[1:3], (-np.pi, 0.0))
            self._high[1:3] = np.minimum(self._high[1:3], (0.0, np.pi / 2))
        self._fastest, self._fastest_roll = 0.4 * self.scale * radius / 4, np.pi / 50 * self.scale
        self._shake = np.array([0.1 * radius / 4] * 3 + [np.pi / 300]) * self.scale
        self._place = self._reached(rng.uniform(self._low, self._high))
        direction = rng.standard_normal(3)
        speed = rng.uniform(0, 0.4 * self.scale) / np.linalg.norm(direction)
        self._velocity = np.append(speed * direction, rng.uniform(-self._fastest_roll, self._fastest_roll))

    def advance(self, rng: np.random.Generator) -> None:
        velocity = self._velocity + self._shake * rng.standard_normal(4)
        velocity[:3] *= min(1.0, self._fastest / max(np.linalg.norm(velocity[:3]), 1e-12))
        velocity[3] = np.clip(velocity[3], -self._fastest_roll, self._fastest_roll)
        before = _cartesian(self._place[:3])
        place = self._reached(np.append(_spherical(before + velocity[:3]), self._place[3] + velocity[3]))
        self._velocity = np.append(_cartesian(place[:3]) - before, place[3] - self._place[3])
        self._place = place

    def _reached(self, place: np.ndarray) -> np.ndarray:
        """Return where the camera is for a place that may lie beyond its limits.

        A negative polar angle is a positive one on the other side, where an azimuth has its limits too.
        """
        return np.clip(np.append(_spherical(_cartesian(place[:3])), place[3]), self._low, self._high)

    def apply(self, scene: Scene) -> None:
        position = _cartesian(self._place[:3])
        scene.place_camera(position, orbit_pose(self._look_at - position, self._place[3], self._upright))


class Background(Effect):
    """Another sky, and a floor through which it is seen."""

    def __init__(self, scale: float, videos: int, moving: bool, pictures: Pictures | None = None):
        super().__init__(scale, videos, moving)
        self._pictures = pictures or Pictures()

    def begin(self, scene: Scene, rng: np.random.Generator) -> None:
        self._video = self._pictures.video(int(rng.integers(self.videos)))
        self._show(int(rng.integers(len(self._video))))
        self._direction = int(rng.choice((-1, 1)))

    def advance(self, rng: np.random.Generator) -> None:
        at = self._at + self._direction
        if not 0 <= at < len(self._video):
            self._direction = -self._direction
            at = min(max(at, 0), len(self._video) - 1)
        self._show(at)

    def apply(self, scene: Scene) -> None:
        scene.set_sky(self._picture)

    def _show(self, at: int) -> None:
        self._at, self._picture = at, self._video[at]


class Light(Effect):
    """The lamp moved, brighter or darker and tinted; at scale 0.3 by a third of a metre, 60 % and 30 %."""

    def begin(self, scene: Scene, rng: np.random.Generator) -> None:
        self._strength = 1 + 2 * self.scale * rng.uniform(-1, 1)
        self._tint = 1 + self.scale * rng.uniform(-1, 1, 3)
        self._shift = self.scale * rng.uniform(-1, 1, 3)
        self._turn = rng.uniform(-0.1, 0.1, 3) * self.scale

    def advance(self, rng: np.random.Generator) -> None:
        self._shift = np.clip(self._shift + self._turn, -self.scale, self.scale)
        self._turn = np.where(np.abs(self._shift) == self.scale, -self._turn, self._turn)

    def apply(self, scene: Scene) -> None:
        scene.light(self._shift, np.maximum(self._strength * self._tint, 0))


class Exposure(Effect):
    """A gain of up to 4 x scale stops and a gamma, as of a camera that measures the light anew."""

    def begin(self, scene: Scene, rng: np.random.Generator) -> None:
        self._stops = 4 * self.scale * rng.uniform(-1, 1)
        self._gamma = np.exp(self.scale * rng.uniform(-1, 1))
        self._phase = rng.uniform(0, 2 * np.pi)

    def on_frame(self, frame: np.ndarray, step: int, rng: np.random.Generator) -> np.ndarray:
        drift = 2 * self.scale * np.sin(self._phase + step / 15) if self.moving else 0.0
        levels = (np.arange(256) / 255) ** self._gamma * 2.0 ** (self._stops + drift)
        return (np.clip(levels, 0, 1) * 255 + 0.5).astype(np.uint8)[frame]


class Noise(Effect):
    """Noise of the sensor, new in each frame: a part that grows with the root of the light, and one that does not."""

    def on_frame(self, frame: np.ndarray, step: int, rng: np.random.Generator) -> np.ndarray:
        light = frame.astype(np.float32)
        spread = self.scale * np.sqrt(20.0**2 + 15.0 * light)
        return _levels(light + spread * rng.standard_normal(frame.shape, np.float32))


class Blur(Effect):
    """Out of focus, and smeared along a direction: 5 x scale, and up to 10 x scale, in 64ths of the frame."""

    def begin(self, scene: Scene, rng: np.random.Generator) -> None:
        self._angle, self._length = rng.uniform(0, np.pi), rng.uniform(0, 10 * self.scale)
        self._focus = rng.uniform(0.5, 1)

    def advance(self, rng: np.random.Generator) -> None:
        self._angle += rng.uniform(-0.2, 0.2)

    def on_frame(self, frame: np.ndarray, step: int, rng: np.random.Generator) -> np.ndarray:
        import cv2

        unit = min(frame.shape[:2]) / 64
        smeared = cv2.filter2D(frame, -1, _line(self._length * unit, self._angle), borderType=cv2.BORDER_REPLICATE)
        return cv2.GaussianBlur(smeared, (0, 0), max(5 * self.scale * self._focus * unit, 1e-3))


class Jpeg(Effect):
    """Compressed and decompressed: quality 60, 35 and 15 at the three levels."""

    def on_frame(self, frame: np.ndarray, step: int, rng: np.random.Generator) -> np.ndarray:
        import cv2

        quality = round(np.interp(self.scale, (0, 0.1, 0.2, 0.3, 1), (95, 60, 35, 15, 1)))
        _, data = cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), (cv2.IMWRITE_JPEG_QUALITY, quality))
        return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB))


class Occlusion(Effect):
    """One to three patches of one colour each before the lens, each of up to 0.6 x scale of the frame's sides."""

    def begin(self, scene: Scene, rng: np.random.Generator) -> None:
        count = 1 + round(self.scale * 10) // 2 if self.scale else 0
        self._places = rng.uniform(0, 1, (count, 2))
        self._sizes = 0.6 * self.scale * rng.uniform(0.5, 1, (count, 2))
        self._colours = rng.integers(0, 256, (count, 3))
        self._velocities = rng.uniform(-0.02, 0.02, (count, 2))

    def advance(self, rng: np.random.Generator) -> None:
        self._places = (self._places + self._velocities) % 1

    def on_frame(self, frame: np.ndarray, step: int, rng: np.random.Generator) -> np.ndarray:
        frame = frame.copy()
        sides = np.array(frame.shape[:2])
        for place, size, colour in zip(self._places, self._sizes, self._colours, strict=True):
            top, left = np.round((place - size / 2) * sides).astype(int).clip(0)
            bottom, right = np.round((place + size / 2) * sides).astype(int)
            frame[top:bottom, left:right] = colour
        return frame


class Latency(Effect):
    """Frames that show what was 10 x scale control steps ago, under the stamp of now."""

    def begin(self, scene: Scene, rng: np.random.Generator) -> None:
        self._frames: dict[int, np.ndarray] = {}

    def on_frame(self, frame: np.ndarray, step: int, rng: np.random.Generator) -> np.ndarray:
        late = round(10 * self.scale)
        self._frames = {at: old for at, old in self._frames.items() if at >= step - late} | {step: frame}
        return self._frames[min(self._frames)]


class RandomScene(Effect):
    """For training: any of the scene's distractions, each as far as a little beyond `hard`, and the nominal scene too.

    Three of ten episodes have shadows off or reflections on, one of five a floor of another texture.
    """

    FARTHEST: ClassVar = 0.35
    NOMINAL_SHARE: ClassVar = 0.1

    def __init__(self, scale: float, videos: int, moving: bool):
        super().__init__(scale, videos, True)  # Each part knows for itself.

    def begin(self, scene: Scene, rng: np.random.Generator) -> None:
        self._parts: list[Effect] = []
        if rng.random() < self.NOMINAL_SHARE:
            return
        for kind, share in ((Colour, 0.7), (Camera, 0.7), (Background, 0.5), (Light, 0.7)):
            if rng.random() < share:
                scale = float(rng.uniform(0, self.FARTHEST))
                self._parts.append(kind(scale, 2**31, bool(rng.random() < 0.5)))
        shadows, reflections = rng.random() > 0.3, rng.random() < 0.3
        scene.set_flags(shadows, reflections)
        if rng.random() < 0.2:
            scene.set_floor(Pictures().video(int(rng.integers(2**31)))[0])
        for part in self._parts:
            part.begin(scene, rng)

    def advance(self, rng: np.random.Generator) -> None:
        for part in self._parts:
            if part.moving:
                part.advance(rng)

    def apply(self, scene: Scene) -> None:
        for part in self._parts:
            part.apply(scene)


class Varied(RandomScene):
    """For training policies: nominal in three episodes of ten, else a random scene and a camera's effects.

    An encoder is trained on random scenes, and its clips are augmented as they are drawn. Latents cannot be augmented,
    so a policy's data contains the camera's effects.
    """

    NOMINAL_SHARE: ClassVar = 0.3
    CAMERA_SHARES: ClassVar = {Exposure: 0.4, Noise: 0.25, Blur: 0.25, Jpeg: 0.25, Occlusion: 0.3}

    def begin(self, scene: Scene, rng: np.random.Generator) -> None:
        super().begin(scene, rng)
        if not self._parts:
            return
        for kind, share in self.CAMERA_SHARES.items():
            if rng.random() < share:
                effect = kind(float(rng.uniform(0, self.FARTHEST)), 0, bool(rng.random() < 0.5))
                effect.begin(scene, rng)
                self._parts.append(effect)

    def on_frame(self, frame: np.ndarray, step: int, rng: np.random.Generator) -> np.ndarray:
        for part in self._parts:
            frame = part.on_frame(frame, step, rng)
        return frame


EFFECTS: dict[str, type[Effect]] = {
    "colour": Colour,
    "camera": Camera,
    "background": Background,
    "light": Light,
    "exposure": Exposure,
    "noise": Noise,
    "blur": Blur,
    "jpeg": Jpeg,
    "occlusion": Occlusion,
    "latency": Latency,
}
_OF_ALL = ("background", "camera", "colour")
FOR_TRAINING: dict[str, type[Effect]] = {"random": RandomScene, "varied": Varied}
NAMES = (NOMINAL, *EFFECTS, ALL, *FOR_TRAINING)
WITH_BACKGROUNDS = ("background", ALL)
"""Looks that show the pictures of a folder, where there is one."""


@dataclass(frozen=True)
class Look:
    """A look by name.

    Attributes:
        name: one of `NAMES`; `all` is colour, camera and background at once.
        level: one of `SCALES`.
        moving: whether it changes during an episode.
    """

    name: str = NOMINAL
    level: str = "medium"
    moving: bool = False

    def __str__(self) -> str:
        """Return the look as `of` reads it, with its level."""
        if self.name == NOMINAL:
            return NOMINAL
        return ":".join([self.name, self.level, *([MOVING] if self.moving else [])])

    @classmethod
    def of(cls, text: str) -> "Look":
        """Return the look that is written as `NAME`, `NAME:LEVEL` or `NAME:LEVEL:moving`.

        Raises:
            VjepaError: there is no such look or level.
        """
        name, *rest = text.split(":")
        if name not in NAMES:
            raise unknown_name("look", name, NAMES)
        level, moving = rest[0] if rest else "medium", rest[1:] == [MOVING]
        if level not in SCALES or len(rest) > 2 or (rest[1:] and not moving):
            raise VjepaError(
                f"the look is '{text}'; expected a name, then a level of {', '.join(SCALES)}, and '{MOVING}' if it is "
                f"to change during an episode, as in {name}:medium or {name}:hard:{MOVING}"
            )
        return cls(name, level, moving)

    def effects(self, pictures: Pictures | None = None) -> list[Effect]:
        """Return the effects of the look; backgrounds are `pictures`, or procedural ones."""
        if self.name == NOMINAL:
            return []
        given = SCALES[self.level], VIDEOS[self.level], self.moving
        if self.name in FOR_TRAINING:
            return [FOR_TRAINING[self.name](*given)]
        names = _OF_ALL if self.name == ALL else (self.name,)
        return [Background(*given, pictures) if name == "background" else EFFECTS[name](*given) for name in names]


class Looks:
    """Gives the episodes of one environment a look."""

    def __init__(self, look: Look, scene: Scene, pictures: Pictures | None = None):
        self._scene, self._effects = scene, look.effects(pictures)
        self._seed, self._step = 0, 0
        self._rngs: list[np.random.Generator] = []

    def begin(self, seed: int) -> None:
        """Draw the look of the episode of `seed`, whose first state the physics is at."""
        if not self._effects:
            return
        self._scene.restore()
        self._seed, self._step = seed, 0
        self._rngs = [np.random.default_rng((seed, _STREAM, _number(effect))) for effect in self._effects]
        for effect, rng in zip(self._effects, self._rngs, strict=True):
            effect.begin(self._scene, rng)

    def advance(self) -> None:
        """Go on by a control step."""
        self._step += 1
        for effect, rng in zip(self._effects, self._rngs, strict=True):
            if effect.moving:
                effect.advance(rng)

    def apply(self) -> None:
        """Change the scene before a frame is rendered."""
        if self._rngs:
            for effect in self._effects:
                effect.apply(self._scene)

    def on_frame(self, frame: np.ndarray) -> np.ndarray:
        """Return the frame as the camera would deliver it."""
        if self._rngs:
            for effect in self._effects:
                rng = np.random.default_rng((self._seed, _STREAM, _number(effect), 1 + self._step))
                frame = effect.on_frame(frame, self._step, rng)
        return frame


def _number(effect: Effect) -> int:
    return zlib.crc32(type(effect).__name__.encode())


def _spherical(point: np.ndarray) -> np.ndarray:
    """Return radius, azimuth and polar angle of a point."""
    across = np.hypot(point[0], point[1])
    return np.array([np.linalg.norm(point), np.arctan2(point[1], point[0]), np.arctan2(across, point[2])])


def _cartesian(place: np.ndarray) -> np.ndarray:
    radius, azimuth, polar = place
    return radius * np.array([np.sin(polar) * np.cos(azimuth), np.sin(polar) * np.sin(azimuth), np.cos(polar)])


def _levels(values: np.ndarray) -> np.ndarray:
    return np.clip(values + 0.5, 0, 255).astype(np.uint8)


def _line(length: float, angle: float) -> np.ndarray:
    """Return a kernel that smears by `length` pixels along `angle`."""
    side = 2 * int(np.ceil(length / 2)) + 1
    offsets = np.linspace(-length / 2, length / 2, 4 * side)
    kernel = np.zeros((side, side), np.float32)
    at = np.round(side // 2 + np.stack((np.sin(angle) * offsets, np.cos(angle) * offsets))).astype(int)
    np.add.at(kernel, tuple(at), 1.0)
    return kernel / kernel.sum()
