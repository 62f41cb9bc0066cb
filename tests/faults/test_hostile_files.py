"""Every loader, given files that are cut, flipped, of another kind or made to hurt, refuses them in words.

A damaged file is read correctly or refused with a `VjepaError` that says something: never another exception, never a
hang, never memory that the file's size does not explain, and never code that runs because a file asks for it.
"""

import contextlib
import copy
import functools
import json
import random
import shutil
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.bag_recipes import READERS, RECIPE, follow, make_recipe
from tests.peak_memory import peak_bytes
from vjepa_bags.bag_repair import repair_bag
from vjepa_bags.bag_writer import BagWriter
from vjepa_bringup.graph import StackOptions, build_graph
from vjepa_cli.experiments.experiments import read_experiments
from vjepa_interfaces import topics
from vjepa_interfaces.bundle import find_bundle, read_bundle
from vjepa_interfaces.errors import VjepaError
from vjepa_perception.calibration import read_calibration

pytestmark = pytest.mark.faults

PATIENCE_S, PATIENCE_ON_A_BUSY_MACHINE_S = 20.0, 120.0
"""Time on processors that reading one damaged file may take, and time at all."""
MEMORY_BYTES = 512 * 2**20
"""What reading one damaged file may add to the process's peak; sound ones here have a few megabytes."""
FLIPS, FLIPS_IN_FULL = 8, 300
SPOILED = 20
"""Of the ways to spoil one value, which are hundreds, in the short form."""
HOSTILE_VALUES = (None, True, -1, 0, 10**6, 10**30, 1e999, "", "no such thing", "../../etc/passwd", [], {}, [[[]]])
DEEP = 10_000
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
"""A billion values in a few lines, by aliases."""
BOMB_OF_MAPPINGS = "a: &a {x: 1, y: 1}\n" + "".join(
    f"n{i}: &{new} {{x: *{old}, y: *{old}}}\n"
    for i, (old, new) in enumerate(
        zip(("a", *(f"m{j}" for j in range(40))), (f"m{j}" for j in range(41)), strict=False)
    )
)


@dataclass(frozen=True)
class Loader:
    """What makes something sound at a path, what loads it from there, and the file of it that is damaged."""

    make: Callable[[Path], None]
    load: Callable[[Path], object]
    file: str = ""


def damages(content: bytes, suffix: str, full_size: bool) -> Iterator[tuple[str, bytes]]:
    """Yield damaged forms of a file's `content`, by what was done to it."""
    yield "nothing in it", b""
    for share in (0.01, 0.3, 0.7, 0.99):
        yield f"cut at {share:.0%}", content[: int(len(content) * share)]
    yield "without its last byte", content[:-1]
    yield "with a tail", content + b"\0" * 1000
    yield "zeros", bytes(len(content))
    yield "other bytes", random.Random(1).randbytes(4096)
    yield "an executable", Path("/bin/true").read_bytes()
    for seed in range(FLIPS_IN_FULL if full_size else FLIPS):
        draw = random.Random(seed)
        changed = bytearray(content)
        end = len(changed) if seed % 2 else min(len(changed), 2000)  # Headers are where it hurts.
        for _ in range(draw.randint(1, 8)):
            changed[draw.randrange(end)] ^= 1 << draw.randrange(8)
        yield f"bits flipped, {seed}", bytes(changed)
    if suffix == ".safetensors":
        for length in (2**63, 2**40, 2**31, len(content), 0):
            yield f"header of {length} bytes", length.to_bytes(8, "little") + content[8:]
    if suffix == ".mcap":
        for length in (2**63, 2**40, 2**31):
            yield f"record of {length} bytes", content[:9] + length.to_bytes(8, "little") + content[17:]
    if suffix in (".json", ".yaml"):
        yield "not UTF-8", b"\xff\xfe\x00" + content
        yield "very deep", b"[" * DEEP
        yield "very deep mappings", b'{"a":' * DEEP
        yield "of another type", b"[1, 2]"
        yield "a number", b"3"
        yield "null", b"null"
        all_spoiled = list(spoiled(content, suffix))
        yield from all_spoiled if full_size else random.Random(1).sample(all_spoiled, min(SPOILED, len(all_spoiled)))
    if suffix == ".yaml":
        yield "with a call", b'a: !!python/object/apply:os.system ["touch called"]\n'
        yield "with an object", b"a: !!python/object:subprocess.Popen {args: [touch, called]}\n"
        yield "a bomb", BOMB.encode()
        yield "a bomb of mappings", BOMB_OF_MAPPINGS.encode()
        yield "a bomb as parameters", f"sim_bridge:\n  ros__parameters:\n{indented(BOMB_OF_MAPPINGS)}".encode()


def indented(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.splitlines())


def spoiled(content: bytes, suffix: str) -> Iterator[tuple[str, bytes]]:
    """Yield a JSON or YAML file with one value replaced, for each value and each hostile one; or one left out."""
    values = yaml.safe_load(content) if suffix == ".yaml" else json.loads(content)
    for way in ways(values):
        for hostile in (*HOSTILE_VALUES, KeyError):
            changed = copy.deepcopy(values)
            holder = changed
            for key in way[:-1]:
                holder = holder[key]
            if hostile is KeyError:
                del holder[way[-1]]
            else:
                holder[way[-1]] = hostile
            dumped = yaml.safe_dump(changed) if suffix == ".yaml" else json.dumps(changed)
            yield (
                f"{'.'.join(map(str, way))} {'left out' if hostile is KeyError else f'= {hostile!r}'}",
                dumped.encode(),
            )


def ways(values, depth: int = 3) -> Iterator[tuple]:
    """Yield the ways to the values of nested mappings and lists; of a list's, to the first one."""
    items = (
        values.items() if isinstance(values, dict) else list(enumerate(values))[:1] if isinstance(values, list) else ()
    )
    for key, value in items:
        yield (key,)
        if depth > 1:
            yield from ((key, *way) for way in ways(value, depth - 1))


@contextlib.contextmanager
def patience(seconds: float):
    """Raise TimeoutError in the context after `seconds`."""

    def late(*_):
        raise TimeoutError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def trouble_with(load: Callable[[Path], object], path: Path) -> str:
    """Load a damaged thing, and return what went wrong in another way than it should: empty where all is well."""
    before, started_s, spent_s = peak_bytes(reset=True), time.monotonic(), time.process_time()
    try:
        with patience(PATIENCE_ON_A_BUSY_MACHINE_S):
            load(path)
    except VjepaError as error:
        if len(str(error)) < 20:
            return f"refused without saying much: '{error}'"
    except (Exception, RecursionError) as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {str(error)[:100]} ({Path(where.filename).name}:{where.lineno})"
    if (spent_s := time.process_time() - spent_s) >= PATIENCE_S:
        return f"took {spent_s:.0f} s on processors"
    if time.monotonic() - started_s >= PATIENCE_ON_A_BUSY_MACHINE_S:  # A loader took the alarm for an error of its own.
        return f"took more than {PATIENCE_ON_A_BUSY_MACHINE_S} s"
    grown = peak_bytes() - before
    return f"took {grown / 2**20:.0f} MiB" if grown > MEMORY_BYTES else ""


# ------------------------------------------------------------------------------------------------------------ loaders


def shipped(name: str) -> Callable[[Path], None]:
    """Make a copy of a bundle that has no hash of its weights: who means harm would write a fitting one."""

    def make(path: Path) -> None:
        shutil.copytree(find_bundle(name), path)
        config = json.loads((path / "config.json").read_text())
        del config["weights_sha256"]
        (path / "config.json").write_text(json.dumps(config))

    return make


def make_encoder(path: Path) -> None:
    """A very small V-JEPA 2 as a bundle with weights."""
    from transformers.models.vjepa2.configuration_vjepa2 import VJEPA2Config
    from transformers.models.vjepa2.modeling_vjepa2 import VJEPA2Model

    sizes = {"hidden_size": 24, "num_attention_heads": 2, "num_hidden_layers": 1, "crop_size": 32, "patch_size": 8}
    predictor = {"pred_hidden_size": 24, "pred_num_attention_heads": 2, "pred_num_hidden_layers": 1}
    VJEPA2Model(VJEPA2Config(**sizes, **predictor)).save_pretrained(path)
    config = {"kind": "encoder", "architecture": "vjepa2", "clip_frames": 4, "model": {**sizes, **predictor}}
    (path / "config.json").write_text(json.dumps({**config, "preprocessing": {"resize": 32, "crop": 32}}))


def make_untrained_encoder(path: Path) -> None:
    make_encoder(path)
    (path / "model.safetensors").unlink()
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "init_seed": 0}))


def load_encoder(path: Path) -> None:
    from vjepa_perception.encoder import EncoderConfig
    from vjepa_perception.encoder import load_encoder as load

    load(EncoderConfig(str(path), device="cpu", clip_frames=4, grid=2)).warm_up()


def load_policy(path: Path) -> None:
    from vjepa_planner.models.policy import load_policy as load

    load(read_bundle(path, "policy"))


def load_dynamics(path: Path) -> None:
    from vjepa_planner.models.dynamics import load_dynamics as load

    load(path)


def load_reward(path: Path) -> None:
    from vjepa_planner.models.reward import load_reward as load

    load(path)


def load_actor(path: Path) -> None:
    from vjepa_planner.models.actor import load_actor as load

    load(path)


def make_bag(path: Path) -> None:
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    header, stamp = store.types["std_msgs/msg/Header"], store.types["builtin_interfaces/msg/Time"]
    writer = BagWriter(path, {"seed": "1"}, clock=lambda: 0.0)
    writer.add_topic("/" + topics.JOINT_STATES.name, topics.JOINT_STATES.type, 10, latched=False)
    writer.add_topic("/" + topics.IMAGE.name, topics.IMAGE.type, 10, latched=False)
    for number in range(1, 31):
        head = header(stamp(sec=number, nanosec=0), "world")
        joints = store.types[topics.JOINT_STATES.type](head, ["a"], np.zeros(1), np.zeros(1), np.zeros(1))
        image = store.types[topics.IMAGE.type](head, 2, 2, "rgb8", 0, 6, np.zeros(12, np.uint8))
        for topic, message in ((topics.JOINT_STATES, joints), (topics.IMAGE, image)):
            data = bytes(store.serialize_cdr(message, topic.type))
            writer.write("/" + topic.name, data, number, number, number)
        if number % 10 == 0:
            writer.flush()
    writer.close()


def load_bag(path: Path) -> None:
    from collections import Counter

    from vjepa_bags.bag_reader import Bag, topic_names

    for _ in Bag(path, topic_names()).frames(10**8, Counter()):
        pass


def repair(path: Path) -> None:
    out = path.with_name("out")
    try:
        repair_bag(path, out)
        load_bag(out)
    finally:
        shutil.rmtree(out, ignore_errors=True)


def make_dataset(path: Path) -> None:
    from vjepa_training.data.dataset import DatasetInfo, EpisodeWriter, finish_dataset

    info = DatasetInfo(
        ("a", "b"), (0.05, 0.05), 20_000_000, (3, 4), (4, 4, 3), {"fingerprint": "abc"}, "reacher-easy", ({},)
    )
    with EpisodeWriter(path, info) as writer:
        for episode in range(3):
            rows = {name: np.zeros((5, *shape), kind) for name, (kind, shape) in info.columns().items()}
            del rows["episode_index"]
            rows["stamp_ns"] = np.arange(5) * 20_000_000
            writer.add(episode, rows)
    finish_dataset(path, info)


def load_dataset(path: Path) -> None:
    from vjepa_training.data.dataset import Dataset

    dataset = Dataset(path)
    for name in dataset.info.columns():
        np.asarray(dataset[name]).sum()


def training(path: Path):
    import torch

    from vjepa_training.trainers.training_run import TrainingRun

    return TrainingRun(path, {"seed": 1}, {"network": torch.nn.Linear(3, 3)}, "cpu")


def make_training(path: Path) -> None:
    training(path).save(5)


def resume_training(path: Path) -> None:
    training(path).resume()


def write_yaml(values: dict) -> Callable[[Path], None]:
    return lambda path: (path.mkdir(), (path / "file.yaml").write_text(yaml.safe_dump(values)))[0]


PARAMETERS = {
    "sim_bridge": {"ros__parameters": {"task": "reacher-easy", "seed": 1, "rate_hz": 50.0, "effort_limit": 0.05}},
    "/**": {"ros__parameters": {"lockstep": False}},
    "vjepa_planner": {
        "ros__parameters": {"planners": ["bc"], "planner": "bc", "bc": {"bundle": "bc-small"}, "control_period_s": 0.02}
    },
    "vjepa_perception": {"ros__parameters": {"encoder": "encoder-small", "grid": 4}},
}
CALIBRATION = {
    "image_width": 640,
    "image_height": 480,
    "camera_matrix": {"data": [500.0, 0.0, 320.0, 0.0, 500.0, 240.0, 0.0, 0.0, 1.0]},
    "distortion_model": "plumb_bob",
    "distortion_coefficients": {"data": [0.1, -0.2, 0.0, 0.0, 0.0]},
    "rectification_matrix": {"data": [1, 0, 0, 0, 1, 0, 0, 0, 1]},
    "projection_matrix": {"data": [500.0, 0.0, 320.0, 0.0, 0.0, 500.0, 240.0, 0.0, 0.0, 0.0, 1.0, 0.0]},
}
EXPERIMENT = {
    "what": "a test",
    "earlier": "none",
    "needs": [],
    "only_by_name": False,
    "stages": [{"kind": "collect", "config": {"out": "{data}/x", "episodes": 3}, "params": {"bc.bundle": "x"}}],
}


def load_parameters(path: Path) -> None:
    for source in ("sim", "camera"):
        build_graph(StackOptions(source=source, planner="bc", params_file=str(path / "file.yaml")))


def load_mapping(path: Path) -> None:
    from vjepa_bags.bag_reader import topic_names

    topic_names("", path / "file.yaml")


LOADERS = {
    "weights of an encoder": Loader(make_encoder, load_encoder, "model.safetensors"),
    "an encoder's configuration": Loader(make_encoder, load_encoder, "config.json"),
    "an untrained encoder's configuration": Loader(make_untrained_encoder, load_encoder, "config.json"),
    "weights of a policy": Loader(shipped("bc-small"), load_policy, "model.safetensors"),
    "a policy's configuration": Loader(shipped("bc-small"), load_policy, "config.json"),
    "weights of a dynamics model": Loader(shipped("dynamics-small"), load_dynamics, "model.safetensors"),
    "a dynamics model's configuration": Loader(shipped("dynamics-small"), load_dynamics, "config.json"),
    "weights of a reward model": Loader(shipped("reward-small"), load_reward, "model.safetensors"),
    "a reward model's configuration": Loader(shipped("reward-small"), load_reward, "config.json"),
    "weights of an actor": Loader(shipped("dreamer-small"), load_actor, "model.safetensors"),
    "an actor's configuration": Loader(shipped("dreamer-small"), load_actor, "config.json"),
    "a bag's messages": Loader(make_bag, load_bag, "bag_0.mcap"),
    **{f"the account of {name}": Loader(make_recipe, functools.partial(follow, name), RECIPE) for name in READERS},
    "a bag's metadata": Loader(make_bag, load_bag, "metadata.yaml"),
    "messages of a bag to repair": Loader(make_bag, repair, "bag_0.mcap"),
    "metadata of a bag to repair": Loader(make_bag, repair, "metadata.yaml"),
    "a dataset's rows": Loader(make_dataset, load_dataset, "data-00000.arrow"),
    "a dataset's description": Loader(make_dataset, load_dataset, "info.json"),
    "a training's checkpoint": Loader(make_training, resume_training, "checkpoint.pt"),
    "parameters": Loader(write_yaml(PARAMETERS), load_parameters, "file.yaml"),
    "a calibration": Loader(
        write_yaml(CALIBRATION), lambda path: read_calibration(str(path / "file.yaml"), 640, 480), "file.yaml"
    ),
    "an experiment": Loader(write_yaml(EXPERIMENT), read_experiments, "file.yaml"),
    "a mapping of topics": Loader(write_yaml({"camera/image_raw": "/other"}), load_mapping, "file.yaml"),
}


IN_FULL_SIZE = ("metadata of a bag to repair",)
"""Loaders whose test takes long for what it adds to the others."""


@pytest.mark.parametrize("name", LOADERS)
def test_a_damaged_file_is_refused_in_words_or_read(tmp_path, monkeypatch, full_size, name):
    if name in IN_FULL_SIZE and not full_size:
        pytest.skip("in full size: make test-faults")
    monkeypatch.chdir(tmp_path)
    loader, path = LOADERS[name], tmp_path / "bag"
    loader.make(path)
    loader.load(path)
    file = path / loader.file
    content = file.read_bytes()
    troubles = {}
    for damage, damaged in damages(content, file.suffix, full_size):
        file.write_bytes(damaged)
        if trouble := trouble_with(loader.load, path):
            troubles[damage] = trouble
    file.unlink()
    for damage, act in {"missing": lambda: None, "a folder": file.mkdir}.items():
        act()
        if trouble := trouble_with(loader.load, path):
            troubles[damage] = trouble
    assert not troubles, "\n" + "\n".join(f"{damage}: {trouble}" for damage, trouble in troubles.items())
    assert not (tmp_path / "called").exists(), "a file ran a command"


def test_a_bag_whose_metadata_leads_to_another_bag_is_refused(tmp_path):
    make_bag(tmp_path / "bag")
    make_bag(tmp_path / "other")
    about = tmp_path / "bag/metadata.yaml"
    for name in ("../other/other_0.mcap", str(tmp_path / "other/other_0.mcap")):
        about.write_text(about.read_text().replace("bag_0.mcap", name))
        with pytest.raises(VjepaError, match="expected files in the bag's own folder"):
            load_bag(tmp_path / "bag")
