"""A dataset on the Hugging Face Hub: Parquet shards, which `datasets.load_dataset` reads, and a card about them."""

import json
import shutil
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import yaml

from vjepa_interfaces.errors import VjepaError
from vjepa_training.dataset import INFO_FILE, Dataset, arrow_schema, hub_features

SHARD_BYTES = 400 * 2**20
"""Uncompressed size from which on the next episode goes into another shard."""

CARD = """---
{front}---

# {title}

{rows} rows in {episodes} episodes of a robot arm with {joints} joints ({names}), made by `vjepa` of the V-JEPA 2 robot
stack for ROS 2. One row is one control step of {period_ms:g} ms. `info.json` says what made it.

{latent}

An action is the torque applied from this row to the next, N·m; {limit:g} N·m is an action of 1. Where `has_next` is
false the row's next control step is not in the dataset, and `action`, `command` and `next.*` are NaN or false.

| column | type | shape of a row |
| --- | --- | --- |
{columns}
"""


def push_dataset(dataset: Dataset, repo: str, private: bool = False) -> str:
    """Upload `dataset` to the dataset repository `repo`, made if need be, in one commit, and return its address.

    Shards that lie there already are replaced.

    Args:
        dataset: what to upload.
        repo: `owner/name`.
        private: whether a repository that is made is private.

    Raises:
        VjepaError: `repo` is no such name, nobody is logged in, or the Hub refused.
    """
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    if repo.count("/") != 1:
        raise VjepaError(f"'{repo}' is no repository; expected owner/name")
    api = huggingface_hub.HfApi()
    with tempfile.TemporaryDirectory(prefix=".push-", dir=dataset.folder) as temporary:
        folder = Path(temporary)
        write_hub_files(dataset, folder, title=repo.partition("/")[2])
        try:
            address = api.create_repo(repo, repo_type="dataset", private=private, exist_ok=True)
            api.upload_folder(
                repo_id=repo,
                repo_type="dataset",
                folder_path=folder,
                delete_patterns="data/*.parquet",
                commit_message=f"{len(dataset)} rows in {len(dataset.episodes)} episodes",
            )
        except HFValidationError as error:
            raise VjepaError(f"'{repo}' is no repository: {error}") from error
        except LocalTokenNotFoundError as error:
            raise VjepaError("nobody is logged in to the Hugging Face Hub; run: hf auth login") from error
        except (HfHubHTTPError, OSError) as error:
            raise VjepaError(f"the Hugging Face Hub refused '{repo}': {error}; see: hf auth whoami") from error
    return str(address)


def write_hub_files(dataset: Dataset, folder: Path, title: str) -> None:
    """Write what a repository of the Hub holds of `dataset`: `data/train-*.parquet`, `README.md` and `info.json`."""
    (folder / "data").mkdir(parents=True)
    features = {"info": {"features": hub_features(dataset.info)}}
    schema = arrow_schema(dataset.info).with_metadata({"huggingface": json.dumps(features)})
    shards: list[list[pa.RecordBatch]] = [[]]
    shard_bytes = 0
    for batch in dataset.episode_batches():
        if shards[-1] and shard_bytes + batch.nbytes > SHARD_BYTES:
            shards.append([])
            shard_bytes = 0
        shards[-1].append(batch)
        shard_bytes += batch.nbytes
    for number, batches in enumerate(shards):
        table = pa.Table.from_batches(batches).replace_schema_metadata(schema.metadata)
        name = f"train-{number:05d}-of-{len(shards):05d}.parquet"
        parquet.write_table(table, folder / "data" / name, compression="zstd")
    (folder / "README.md").write_text(_card(dataset, title), encoding="utf-8")
    shutil.copyfile(dataset.folder / INFO_FILE, folder / INFO_FILE)


def _card(dataset: Dataset, title: str) -> str:
    info = dataset.info
    front = {
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*"}]}],
        "tags": ["robotics", "v-jepa-2", "ros2"],
        "task_categories": ["robotics"],
    }
    latent = "It has no latents."
    if info.encoder is not None and info.latent_shape is not None:
        latent = (
            f"`observation.latent` is the latent of {info.encoder.get('model')} (fingerprint "
            f"{info.encoder['fingerprint']}), {info.latent_shape[0]} x {info.latent_shape[1]} float16, as a flat list."
        )
    return CARD.format(
        front=yaml.safe_dump(front, sort_keys=False),
        title=title,
        rows=len(dataset),
        episodes=len(dataset.episodes),
        joints=len(info.joint_names),
        names=", ".join(info.joint_names),
        period_ms=info.control_period_ns * 1e-6,
        limit=info.effort_limit,
        latent=latent,
        columns="\n".join(
            f"| `{n}` | {kind.name} | {shape or 'scalar'} |" for n, (kind, shape) in info.columns().items()
        ),
    )
