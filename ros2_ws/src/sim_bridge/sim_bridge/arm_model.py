"""Arms of MuJoCo models: the arm of a task, or the arm of a user's MJCF file."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sim_bridge.gl import choose_gl_backend
from sim_bridge.motors import Motors
from sim_bridge.tasks import task_named
from vjepa_interfaces.errors import VjepaError, unknown_name

TASK = "reacher-easy"


@dataclass(frozen=True)
class ArmModel:
    """An arm to simulate.

    Attributes:
        physics: the model's physics, of dm_control.
        motors: the model's motors.
        camera_id: number of the camera that renders frames.
        begin: moves the arm to the pose of a seed.
    """

    physics: Any
    motors: Motors
    camera_id: int
    begin: Callable[[int], None]


def load_arm(path: str, camera: str) -> ArmModel:
    """Return the arm of an MJCF file.

    A seed chooses one of the file's keyframes. Without keyframes, the arm begins in the pose of the model.

    Args:
        path: path of the file; empty for the reacher, whose pose and target are drawn from the seed.
        camera: name of one of the model's cameras; empty for the first camera, or for the camera of the reacher's task.

    Raises:
        VjepaError: MuJoCo cannot read the file, an actuator is not a plain motor, or the camera does not exist.
    """
    if path:
        physics = _physics_of(Path(path).expanduser())
        begin = _keyframes(physics)
    else:
        task = task_named(TASK)
        environment = task.load(0)
        physics, camera = environment.physics, camera or task.camera

        def begin(seed: int) -> None:
            environment.task.random.seed(seed)
            environment.reset()

    whose = path or "the reacher"
    try:
        motors = Motors(physics)
    except VjepaError as error:
        raise VjepaError(f"model {whose}: {error}") from error
    return ArmModel(physics, motors, _camera_id(physics.model, camera, whose), begin)


def _physics_of(path: Path) -> Any:
    """Return dm_control's physics of the model in a file."""
    if not path.is_file():
        raise VjepaError(f"model file '{path}' does not exist; give the path of an MJCF file")
    choose_gl_backend()  # The first import of dm_control fixes the backend.
    import mujoco
    from dm_control.mujoco import Physics

    try:
        return Physics.from_xml_path(str(path))
    except (ValueError, mujoco.FatalError) as error:
        raise VjepaError(f"MuJoCo cannot read model {path}: {' '.join(str(error).split())}") from error


def _keyframes(physics: Any) -> Callable[[int], None]:
    """Return a function that moves a model to the keyframe that a seed chooses."""

    def begin(seed: int) -> None:
        count = physics.model.nkey
        physics.reset(keyframe_id=seed % count if count else None)

    return begin


def _camera_id(model: Any, name: str, whose: str) -> int:
    """Return the number of the camera `name`, or of the first camera if the name is empty."""
    names = [model.id2name(number, "camera") for number in range(model.ncam)]
    if not names:
        raise VjepaError(f"model {whose} has no camera; add a <camera name= pos= xyaxes=/> that shows arm and target")
    if name and name not in names:
        raise VjepaError(f"model {whose}: {unknown_name('camera', name, names)}")
    return names.index(name) if name else 0
