"""Push a dataset to the Hugging Face Hub: its rows as Parquet shards or as a LeRobot dataset, and its card."""

import contextlib
import json
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet

from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.json_text import write_json
from vjepa_training.data.configs import PushConfig
from vjepa_training.data.dataset import INFO_FILE, Dataset, arrow_schema, hub_features
from vjepa_training.data.dataset_card import LEROBOT, dataset_card
from vjepa_training.data.lerobot_export import CODEBASE_VERSION, export_lerobot
from vjepa_training.data.new_folder import new_folder

SHARD_BYTES = 400 * 2**20
"""Uncompressed size in bytes from which the next episode, or the next piece of a long one, begins another shard."""
REPLACED = ["data/*", "meta/*", "videos/*", INFO_FILE]
"""Files of the repository that an update deletes, unless the new files replace them."""


def push_dataset(dataset: Dataset, config: PushConfig) -> str:
    """Upload `dataset` to the Hub and return the address of its repository, at the new commit.

    The files are first written into the dataset's folder, and deleted there at the end. A missing branch is created. A
    LeRobot dataset gets the tag of its format, by which LeRobot finds it.

    Raises:
        VjepaError: nobody is logged in, the repository exists and must not be updated, or the Hub refused or is
            unreachable. The message states the cause and the remedy.
    """
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError, RevisionNotFoundError

    if huggingface_hub.get_token() is None:
        raise VjepaError("nobody is logged in to the Hugging Face Hub; run: hf auth login")
    api = huggingface_hub.HfApi()
    with tempfile.TemporaryDirectory(prefix=".push-", dir=dataset.folder) as temporary:
        folder = Path(temporary) / "files"
        write_hub_files(dataset, folder, config)
        try:
            address = api.create_repo(config.name, repo_type="dataset", private=config.private, exist_ok=config.update)
            if config.branch:
                api.create_branch(config.name, branch=config.branch, repo_type="dataset", exist_ok=True)
            commit = api.upload_folder(
                repo_id=config.name,
                repo_type="dataset",
                revision=config.branch or None,
                folder_path=folder,
                delete_patterns=REPLACED if config.update else None,
                commit_message=f"{len(dataset)} rows in {len(dataset.episodes)} episodes",
            )
            if config.format == LEROBOT:
                with contextlib.suppress(RevisionNotFoundError):
                    api.delete_tag(config.name, tag=CODEBASE_VERSION, repo_type="dataset")
                api.create_tag(config.name, tag=CODEBASE_VERSION, revision=commit.oid, repo_type="dataset")
        except HFValidationError as error:
            raise VjepaError(f"'{config.name}' is not a repository: {error}") from error
        except HfHubHTTPError as error:
            raise VjepaError(_refusal(config, error)) from error
        except (HTTPError, OSError) as error:
            raise VjepaError(
                f"the Hugging Face Hub at {api.endpoint} cannot be reached: {error}; try again with a "
                "network, or write the files into a folder with --dry-run"
            ) from error
    return f"{address}/tree/{commit.oid}"


def _refusal(config: PushConfig, error: Any) -> str:
    status = error.response.status_code if error.response is not None else None
    if status == 409 and not config.update:
        return f"the repository '{config.name}' exists; choose another name, or replace its data with --update"
    if status == 401:
        return "the Hugging Face Hub does not know this token; run: hf auth login"
    if status == 403:
        owner = config.name.partition("/")[0]
        return (
            f"this token may not write to repositories of '{owner}'; see: hf auth whoami, or log in with one that may"
        )
    return f"the Hugging Face Hub refused '{config.name}': {error}; see: hf auth whoami"


def write_hub_files(dataset: Dataset, folder: Path | str, config: PushConfig) -> None:
    """Write the files of the Hub's repository for `dataset` into the new folder `folder`.

    They are `README.md`, and `data/train-*.parquet` with `info.json`, or a LeRobot dataset.

    Raises:
        VjepaError: `folder` exists or cannot be written, or the dataset cannot become a LeRobot dataset.
    """
    with new_folder(folder) as making:
        if config.format == LEROBOT:
            export_lerobot(dataset, making)
        else:
            _write_shards(dataset, making)
        card = dataset_card(dataset, config.name, config.format, config.license, config.branch)
        (making / "README.md").write_text(card, encoding="utf-8")


def _write_shards(dataset: Dataset, folder: Path) -> None:
    (folder / "data").mkdir(parents=True)
    features = {"info": {"features": hub_features(dataset.info)}}
    schema = arrow_schema(dataset.info).with_metadata({"huggingface": json.dumps(features)})
    shards: list[list[pa.RecordBatch]] = [[]]
    shard_bytes = 0
    for _, batch in dataset.pieces():
        if shards[-1] and shard_bytes + batch.nbytes > SHARD_BYTES:
            shards.append([])
            shard_bytes = 0
        shards[-1].append(batch)
        shard_bytes += batch.nbytes
    for number, batches in enumerate(shards):
        table = pa.Table.from_batches(batches).replace_schema_metadata(schema.metadata)
        name = f"train-{number:05d}-of-{len(shards):05d}.parquet"
        parquet.write_table(table, folder / "data" / name, compression="zstd")
    write_json(folder / INFO_FILE, dataset.description())
