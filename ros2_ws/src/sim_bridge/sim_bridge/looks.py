"""Visual distractions of the simulation, each with a name, a level and a seed.

`colour`, `camera` and `background` come from the Distracting Control Suite (Stone et al., 2021), on its own scales. The
others are effects of real cameras and surroundings. `random` draws scenes to train encoders; `varied` draws scenes and
effects of the camera to train policies. No look changes the physics, the reward or the first state: an episode's states
depend on its seed alone. Draws use random streams of their own.
"""

import zlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sim_bridge.backgrounds import Pictures
from sim_bridge.scene import Scene, orbit_pose
from vjepa_interfaces.errors import VjepaError, unknown_name

SCALES = {"easy": 0.1, "medium": 0.2, "hard": 0.3}
"""Scales of the Distracting Control Suite; 1 is its largest."""
VIDEOS = {"easy": 4, "medium": 8, "hard": 60}
"""Number of backgrounds at each level, as in the Distracting Control Suite."""
NOMINAL, ALL = "nominal", "all"
MOVING = "moving"

_STREAM = 5


class Effect:
    """The base class of effects on frames. It changes nothing itself.

    Attributes:
        scale: strength, from 0 to 1.
        videos: number of backgrounds to draw from.
        moving: whether the effect changes during an episode.
    """

    def __init__(self, scale: float, videos: int, moving: bool):
        self.scale, self.videos, self.moving = scale, videos, moving

    def begin(self, scene: Scene, rng: np.random.Generator) -> None:
        """Draw an episode's look. `scene` is nominal and in the episode's first state."""

    def advance(self, rng: np.random.Generator) -> None:
        """Advance by one control step."""

    def apply(self, scene: Scene) -> None:
        """Change `scene` before a frame is rendered."""

    def on_frame(self, frame: np.ndarray, step: int, rng: np.random.Generator) -> np.ndarray:
        """Return the frame with the effect: (height, width, 3) uint8.

        Args:
            frame: the rendered frame, which is not changed.
            step: control steps since the episode's first.
            rng: a generator that depends on the episode and the step alone.
        """
        return frame


class Colour(Effect):
    """Changes red, green and blue of every material by at most the scale; a random walk moves 0.03 of it a step."""

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
    """Moves the camera on a sphere around the point that it looks at, and changes its distance.

    At scale 1 it turns by up to a quarter turn to each side, and rolls as far. A moving camera walks at random with a
    bounded velocity.
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
        """Return a place within the camera's limits.

        A negative polar angle becomes a positive one on the other side, where the azimuth has limits too.
        """
        return np.clip(np.append(_spherical(_cartesian(place[:3])), place[3]), self._low, self._high)

    def apply(self, scene: Scene) -> None:
        position = _cartesian(self._place[:3])
        scene.place_camera(position, orbit_pose(self._look_at - position, self._place[3], self._upright))


class Background(Effect):
    """Replaces the sky, and makes the floor transparent."""

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
    """Moves, brightens or darkens, and tints the lamp: at scale 0.3 by a third of a metre, 60 % and 30 %."""

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
    """Applies a gain of up to 4 x scale stops and a gamma, as automatic exposure does."""

    def begin(self, scene: Scene, rng: np.random.Generator) -> None:
        self._stops = 4 * self.scale * rng.uniform(-1, 1)
        self._gamma = np.exp(self.scale * rng.uniform(-1, 1))
        self._phase = rng.uniform(0, 2 * np.pi)

    def on_frame(self, frame: np.ndarray, step: int, rng: np.random.Generator) -> np.ndarray:
        drift = 2 * self.scale * np.sin(self._phase + step / 15) if self.moving else 0.0
        levels = (np.arange(256) / 255) ** self._gamma * 2.0 ** (self._stops + drift)
        return (np.clip(levels, 0, 1) * 255 + 0.5).astype(np.uint8)[frame]


class Noise(Effect):
    """Adds sensor noise, new in each frame: a part that grows with the root of the light, and a constant part."""

    def on_frame(self, frame: np.ndarray, step: int, rng: np.random.Generator) -> np.ndarray:
        light = frame.astype(np.float32)
        spread = self.scale * np.sqrt(20.0**2 + 15.0 * light)
        return _levels(light + spread * rng.standard_normal(frame.shape, np.float32))


class Blur(Effect):
    """Blurs by up to 5 x scale and smears along a direction by up to 10 x scale, in 64ths of the frame."""

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
    """Compresses and decompresses the frame: quality 60, 35 and 15 at the three levels."""

    def on_frame(self, frame: np.ndarray, step: int, rng: np.random.Generator) -> np.ndarray:
        import cv2

        quality = round(np.interp(self.scale, (0, 0.1, 0.2, 0.3, 1), (95, 60, 35, 15, 1)))
        _, data = cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), (cv2.IMWRITE_JPEG_QUALITY, quality))
        return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB))


class Occlusion(Effect):
    """Covers parts of the frame with one to three patches of one colour, up to 0.6 x scale of its sides each."""

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
    """Returns the frame of 10 x scale control steps ago, under the present stamp."""

    def begin(self, scene: Scene, rng: np.random.Generator) -> None:
        self._frames: dict[int, np.ndarray] = {}

    def on_frame(self, frame: np.ndarray, step: int, rng: np.random.Generator) -> np.ndarray:
        late = round(10 * self.scale)
        self._frames = {at: old for at, old in self._frames.items() if at >= step - late} | {step: frame}
        return self._frames[min(self._frames)]


class RandomScene(Effect):
    """Random scenes for training: any distractions of the scene, up to a little beyond `hard`, or the nominal scene.

    In other than nominal episodes, shadows are off and reflections are on in three of ten each. In one of five, the
    floor has another texture.
    """

    FARTHEST: ClassVar = 0.35
    NOMINAL_SHARE: ClassVar = 0.1

    def __init__(self, scale: float, videos: int, moving: bool):
        super().__init__(scale, videos, True)  # Each part has its own `moving`.

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
    """Random scenes for training policies: nominal in three episodes of ten, else with effects of the camera too.

    The training of an encoder augments its clips. Latents cannot be augmented, so a policy's data must contain the
    effects of the camera.
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
"""Looks that show the pictures of a folder, if one is given."""


@dataclass(frozen=True)
class Look:
    """A look by name.

    Attributes:
        name: one of `NAMES`; `all` is colour, camera and background at once.
        level: one of `SCALES`.
        moving: whether the look changes during an episode.
    """

    name: str = NOMINAL
    level: str = "medium"
    moving: bool = False

    def __str__(self) -> str:
        """Return the look with its level, in the form that `of` reads."""
        if self.name == NOMINAL:
            return NOMINAL
        return ":".join([self.name, self.level, *([MOVING] if self.moving else [])])

    @classmethod
    def of(cls, text: str) -> "Look":
        """Return the look of a text `NAME`, `NAME:LEVEL` or `NAME:LEVEL:moving`.

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
        """Return the effects of the look. Backgrounds come from `pictures`, or are drawn."""
        if self.name == NOMINAL:
            return []
        given = SCALES[self.level], VIDEOS[self.level], self.moving
        if self.name in FOR_TRAINING:
            return [FOR_TRAINING[self.name](*given)]
        names = _OF_ALL if self.name == ALL else (self.name,)
        return [Background(*given, pictures) if name == "background" else EFFECTS[name](*given) for name in names]


class Looks:
    """Applies a look to the episodes of one environment."""

    def __init__(self, look: Look, scene: Scene, pictures: Pictures | None = None):
        self._scene, self._effects = scene, look.effects(pictures)
        self._seed, self._step = 0, 0
        self._rngs: list[np.random.Generator] = []

    def begin(self, seed: int) -> None:
        """Draw the look of an episode by its `seed`. The physics must be in the episode's first state."""
        if not self._effects:
            return
        self._scene.restore()
        self._seed, self._step = seed, 0
        self._rngs = [np.random.default_rng((seed, _STREAM, _number(effect))) for effect in self._effects]
        for effect, rng in zip(self._effects, self._rngs, strict=True):
            effect.begin(self._scene, rng)

    def advance(self) -> None:
        """Advance by one control step."""
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
        """Return the frame with all effects: (height, width, 3) uint8."""
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
