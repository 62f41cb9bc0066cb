"""Finding a V-JEPA 2 checkpoint: a bundle, a local folder in transformers' format, or a hub id.

Only JSON and safetensors are read: no pickle.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vjepa_interfaces.bundle import CONFIG_FILE, WEIGHTS_FILE, read_bundle
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.json_text import read_json
from vjepa_perception.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing

ARCHITECTURE = "vjepa2"
INDEX_FILE = "model.safetensors.index.json"
PREPROCESSING_FILES = ("processor_config.json", "video_preprocessor_config.json", "preprocessor_config.json")
"""Files of the video processor in the order of transformers; the first may nest it in `video_processor`."""

_HUB_ID = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([A-Za-z0-9][\w./-]*))?")
"""Owner and name on the hub, and a revision: a commit, a tag or a branch."""
_COMMIT = re.compile(r"[0-9a-f]{40}")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


class CheckpointError(VjepaError):
    """A checkpoint that cannot be loaded; the message states the file, its content and what to do."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint found on disk, not loaded yet.

    Attributes:
        name: its name: the folder's name, or the hub id with `@` and the commit of its files.
        path: its folder.
        model: the fields of a `ModelConfig`, which are those of transformers' `VJEPA2Config`.
        preprocessing: the preprocessing of its frames.
        weights: its safetensors files; empty if the weights are drawn from `init_seed`.
        init_seed: seed of an untrained encoder's weights, or None.
        clip_frames: frames of the clips of its training if a bundle records them, else None.
    """

    name: str
    path: Path
    model: dict[str, Any]
    preprocessing: Preprocessing
    weights: tuple[Path, ...]
    init_seed: int | None = None
    clip_frames: int | None = None


def find_checkpoint(encoder: str) -> Checkpoint:
    """Return the checkpoint that `encoder` names: a folder if there is one, else a hub id, downloaded if not cached.

    A hub id may end in `@REVISION`, a commit, tag or branch. Without one it is the newest commit of the main branch.

    Raises:
        CheckpointError: the folder does not exist and the hub id is neither cached nor downloadable. Or it is not a
            V-JEPA 2 checkpoint with safetensors.
        BundleError: the bundle is not an encoder's, lacks a field, or has other weights than at its writing.
        PreprocessingError: V-JEPA 2 does not have this preprocessing.
    """
    folder = Path(encoder).expanduser()
    if encoder and folder.is_dir():
        return _open_folder(folder, folder.resolve().name)
    if not _HUB_ID.fullmatch(encoder):
        raise CheckpointError(
            f"no encoder at '{encoder}': expected a folder (a bundle or a transformers checkpoint) "
            "or a hub id such as facebook/vjepa2-vitl-fpc64-256, with @REVISION behind it where one is meant"
        )
    repository, _, revision = encoder.partition("@")
    folder = _snapshot(repository, revision)
    commit = folder.name if _COMMIT.fullmatch(folder.name) else revision  # The cache names a snapshot by its commit.
    return _open_folder(folder, f"{repository}@{commit}" if commit else repository)


def _open_folder(folder: Path, name: str) -> Checkpoint:
    config = _read_json(folder / CONFIG_FILE)
    if "kind" in config:
        return _open_bundle(folder, name)
    if config.get("model_type") != ARCHITECTURE:
        raise CheckpointError(
            f"{folder / CONFIG_FILE} has model_type {config.get('model_type')!r}; expected '{ARCHITECTURE}'"
        )
    return Checkpoint(name, folder, config, _video_processor(folder, config), _weight_files(folder))


def _open_bundle(folder: Path, name: str) -> Checkpoint:
    bundle = read_bundle(folder, "encoder")
    architecture = bundle.require("architecture", str)
    if architecture != ARCHITECTURE:
        raise CheckpointError(f"{folder / CONFIG_FILE} has architecture '{architecture}'; expected '{ARCHITECTURE}'")
    seed = bundle.require("init_seed", int) if "init_seed" in bundle.config else None
    if seed is not None and not 0 <= seed < 2**63:
        raise CheckpointError(f"{folder / CONFIG_FILE} has init_seed {seed}; expected a number from 0 to below 2^63")
    if seed is not None and bundle.weights.exists():
        raise CheckpointError(f"{folder} has {WEIGHTS_FILE} and an init_seed; expected one of them: remove the other")
    bundle.check_weights()
    return Checkpoint(
        name=name,
        path=folder,
        model=bundle.require("model", dict),
        preprocessing=Preprocessing.from_bundle(bundle.require("preprocessing", dict)),
        weights=_weight_files(folder) if seed is None else (),
        init_seed=seed,
        clip_frames=bundle.require("clip_frames", int),
    )


def _video_processor(folder: Path, config: Mapping[str, Any]) -> Preprocessing:
    for name in PREPROCESSING_FILES:
        fields = _read_json(folder / name) if (folder / name).is_file() else None
        if fields is not None and name == PREPROCESSING_FILES[0]:
            fields = fields.get("video_processor")
        if isinstance(fields, dict):
            return Preprocessing.from_video_processor(fields)
    raise CheckpointError(
        f"{folder} has no preprocessing: expected one of {', '.join(PREPROCESSING_FILES)}; copy it from the "
        f"checkpoint's hub page. For one that was trained on frames prepared as Meta's, write into "
        f"{folder / PREPROCESSING_FILES[1]}: {json.dumps(published_preprocessing(config.get('crop_size', 256)))}"
    )


def published_preprocessing(crop: int) -> dict[str, Any]:
    """Return the preprocessing fields of the published checkpoints, with frames of `crop` pixels."""
    return {
        "video_processor_type": "VJEPA2VideoProcessor",
        "crop_size": {"height": crop, "width": crop},
        "do_resize": True,
        "do_center_crop": True,
        "do_rescale": True,
        "do_normalize": True,
        "resample": 2,
        "rescale_factor": 1 / 255,
        "image_mean": IMAGENET_MEAN,
        "image_std": IMAGENET_STD,
    }


def _weight_files(folder: Path) -> tuple[Path, ...]:
    names = {WEIGHTS_FILE}
    if (folder / INDEX_FILE).is_file() and not (folder / WEIGHTS_FILE).is_file():
        index = _read_json(folder / INDEX_FILE).get("weight_map")
        if not isinstance(index, dict) or not index:
            raise CheckpointError(f"{folder / INDEX_FILE} has no 'weight_map'; download the checkpoint again")
        names = set(index.values())
    strange = [name for name in names if not isinstance(name, str) or Path(name).name != name]
    if strange:
        raise CheckpointError(f"{folder / INDEX_FILE} names {strange[0]!r}; expected file names in the same folder")
    missing = sorted(name for name in names if not (folder / name).is_file())
    if not missing:
        return tuple(folder / name for name in sorted(names))
    pickles = sorted(file.name for pattern in _PICKLES for file in folder.glob(pattern))
    if pickles:
        raise CheckpointError(
            f"{folder} has its weights in {pickles[0]} and not in {missing[0]}; pickled weights can run code and are "
            "never loaded: convert them where you trust them, with "
            "VJEPA2Model.from_pretrained(folder).save_pretrained(folder), which writes safetensors"
        )
    raise CheckpointError(f"{folder} lacks {', '.join(missing)}; copy or download the whole checkpoint")


def _snapshot(repository: str, revision: str) -> Path:
    """Return the folder of a cached snapshot of the hub, downloaded first if the cache has no complete one.

    Args:
        repository: owner and name.
        revision: a commit, a tag or a branch; empty for the newest commit of the main branch.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import RevisionNotFoundError

    wanted = [CONFIG_FILE, *PREPROCESSING_FILES, "*.safetensors", INDEX_FILE]
    which = revision or None
    try:
        folder = Path(snapshot_download(repository, allow_patterns=wanted, revision=which, local_files_only=True))
        if _video_processor(folder, {}) and _weight_files(folder):
            return folder
    except (OSError, ValueError, VjepaError):
        pass
    try:
        return Path(snapshot_download(repository, allow_patterns=wanted, revision=which))
    except RevisionNotFoundError as error:
        raise CheckpointError(
            f"the hub's '{repository}' has no revision '{revision or 'main'}'; expected a commit, a tag or a branch of "
            f"it behind the @, or '{repository}' alone for the newest commit of its main branch"
        ) from error
    except (OSError, ValueError) as error:
        hub_id = f"{repository}@{revision}" if revision else repository
        named = f"{repository} --revision {revision}" if revision else repository
        raise CheckpointError(
            f"no folder '{hub_id}', and the hub's checkpoint of that name is neither cached nor downloadable "
            f"({type(error).__name__}: {str(error).splitlines()[0]}); on a machine with network run "
            f"'hf download {named} --local-dir FOLDER', copy the folder here and give its path, "
            "or point HF_HOME to a cache that has it (and unset HF_HUB_OFFLINE to allow downloads)"
        ) from error


def _read_json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise CheckpointError(f"{file.parent} has no {file.name}; expected a bundle or a transformers checkpoint")
    return read_json(file, CheckpointError)
