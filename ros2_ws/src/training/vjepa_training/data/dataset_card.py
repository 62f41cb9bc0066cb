"""Write the card of a dataset for the Hugging Face Hub: its rows, their origin, and how to read them."""

import yaml

from vjepa_interfaces.tables import markdown_table
from vjepa_training.data.dataset import IMAGE, INFO_FILE, LATENT, PLAIN_IMAGE, Dataset, DatasetInfo, Source
from vjepa_training.data.lerobot_export import ACTION, REWARD, STATE, lerobot_episodes, lerobot_features

NATIVE, LEROBOT = "native", "lerobot"

CARD = """---
{front}---

# {title}

{rows} control steps in {episodes} episodes of a robot arm, made by `vjepa`, the V-JEPA 2 robot stack for ROS 2.

{facts}

## What made it

{sources}

All settings and versions are in `{description}`.

## Columns

{about}

{columns}

## Load it

```python
{loading}
```
"""

COLUMN_HEADS = ("column", "type", "shape of a row", "unit", "what it is")

MEANINGS = {
    "episode_index": ("", "from 0"),
    "frame_index": ("", "row in the episode, from 0"),
    "stamp_ns": ("ns", "time since the episode's first row"),
    "observation.joint_position": ("rad", "of each joint"),
    "observation.joint_velocity": ("rad/s", "of each joint"),
    LATENT: ("", "of the encoder, as a flat list: the mean of all tokens, then the grid of the last tubelet"),
    IMAGE: ("", "the camera's frame, red first"),
    PLAIN_IMAGE: ("", "the frame of the same state without look and shadows"),
    "target": ("m", "the simulation's truth, world frame"),
    "fingertip": ("m", "the simulation's truth, world frame"),
    "target_size": ("m", "the target's radius"),
    ACTION: ("", "applied from this row to the next, in [-1, 1]: the torque over the joint's largest"),
    "effort": ("N·m", "torque applied from this row to the next"),
    "command": ("N·m", "torque commanded in answer to this row"),
    REWARD: ("", "of the step to the next row"),
    "next.discount": ("", "of the step to the next row"),
    "next.done": ("", "whether the next row is the episode's last"),
    "has_next": ("", "whether the next row is the next control step"),
    STATE: ("rad, rad/s", "joint positions, then joint velocities where they are known"),
    "timestamp": ("s", "frame_index over the frame rate"),
    "index": ("", "row in the dataset, from 0"),
    "task_index": ("", "row of meta/tasks.parquet"),
}

ABOUT_NATIVE = """One row is one control step. What is not known is NaN. Where `has_next` is false the row's next
step is not in the dataset, and `action`, `effort`, `command` and `next.*` are NaN or false."""
ABOUT_LEROBOT = """A LeRobot dataset, format v3.0. A frame is a control step with an action: steps without a next one
are left out, and an episode that lacks a step is cut there."""

LOAD_NATIVE = """from datasets import load_dataset

dataset = load_dataset("{repo}", split="train"{revision})"""
LOAD_LEROBOT = """from lerobot.datasets.lerobot_dataset import LeRobotDataset

dataset = LeRobotDataset("{repo}"{revision})"""


def dataset_card(dataset: Dataset, repo: str, kind: str, license: str, branch: str = "") -> str:
    """Return the card, Markdown behind YAML, of `dataset` in the repository `repo`.

    Args:
        dataset: the dataset.
        repo: `owner/name`.
        kind: content of the repository, `native` or `lerobot`.
        license: identifier of a license.
        branch: branch of `repo`; empty for its main one.
    """
    revision = f', revision="{branch}"' if branch else ""
    info, lerobot = dataset.info, kind == LEROBOT
    episodes = list(lerobot_episodes(dataset)) if lerobot else dataset.episodes.tolist()
    config = {"split": "train", "path": "data/*/*.parquet" if lerobot else "data/train-*"}
    front = {
        "license": license,
        "task_categories": ["robotics"],
        "tags": [*(["LeRobot"] if lerobot else []), "robotics", "v-jepa-2", "ros2"],
        "configs": [{"config_name": "default", "data_files": [config]}],
    }
    facts = (
        ("", ""),
        ("task", info.task or "not known"),
        ("robot", f"joints {', '.join(info.joint_names)}; {info.arm.limits_text} N·m at most"),
        ("control step", f"{info.control_period_ns * 1e-6:g} ms"),
        ("encoder", _encoder(info)),
        ("license", license),
    )
    columns = _lerobot_columns(dataset) if lerobot else _columns(info)
    return CARD.format(
        front=yaml.safe_dump(front, sort_keys=False),
        title=repo.partition("/")[2],
        rows=sum(stop - start for start, stop in episodes),
        episodes=len(episodes),
        facts=markdown_table(facts),
        sources=markdown_table([("command", "policy", "seeds", "episodes"), *map(_source, info.sources)]),
        description="meta/vjepa.json" if lerobot else INFO_FILE,
        about=ABOUT_LEROBOT if lerobot else ABOUT_NATIVE,
        columns=markdown_table([COLUMN_HEADS, *(_column(*column) for column in columns)]),
        loading=(LOAD_LEROBOT if lerobot else LOAD_NATIVE).format(repo=repo, revision=revision),
    )


def _columns(info: DatasetInfo) -> list[tuple[str, str, tuple[int, ...]]]:
    return [(name, kind.name, shape) for name, (kind, shape) in info.columns().items()]


def _lerobot_columns(dataset: Dataset) -> list[tuple[str, str, tuple[int, ...]]]:
    features = lerobot_features(dataset).items()
    return [(name, feature["dtype"], tuple(feature["shape"])) for name, feature in features]


def _column(name: str, kind: str, shape: tuple[int, ...]) -> tuple[str, ...]:
    unit, meaning = MEANINGS[name]
    size = " x ".join(map(str, shape)) if shape not in ((), (1,)) else "scalar"
    return f"`{name}`", kind, size, unit, meaning


def _encoder(info: DatasetInfo) -> str:
    if info.encoder is None or info.latent_shape is None:
        return "none: there are no latents"
    rows, dimension = info.latent_shape
    name = info.encoder.get("model", "not named")
    return f"{name}, fingerprint `{info.encoder['fingerprint']}`; a latent has {rows} rows of {dimension}"


def _source(source: Source) -> tuple[str, ...]:
    """Return the row of the table of sources for a simulation or a bag."""
    recorded = source.get("recorded_with") or {}
    policy = source.get("policy") or recorded.get("planners") or "not known"
    episodes, seed = source.get("episodes"), source.get("seed", recorded.get("seed"))
    seeds = "not known" if seed is None else str(seed)
    if isinstance(seed, int) and isinstance(episodes, int) and episodes > 1:
        seeds = f"{seed} to {seed + episodes - 1}"
    return f"`{source.get('command', 'not known')}`", str(policy), seeds, str(episodes or "not known")
