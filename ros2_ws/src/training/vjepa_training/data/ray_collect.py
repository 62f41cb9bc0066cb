"""Simulate the episodes of `collect` on a Ray cluster instead of processes of this machine."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vjepa_interfaces.errors import VjepaError
from vjepa_perception.encoder import EncoderConfig, load_encoder
from vjepa_training.data.collect import CollectConfig, Collector
from vjepa_training.data.dataset import Dataset, EpisodeWriter, Source, finish_dataset


def collect_on_ray(
    folder: Path | str,
    config: CollectConfig,
    encoder: EncoderConfig | None,
    episodes: int,
    address: str,
    source: Source,
    on_episodes: Callable[[int], None] = lambda count: None,
) -> Dataset:
    """Collect as `collect.collect` does, on the Ray cluster at `address`, whose machines have this stack installed.

    Each CPU simulates; this machine receives and writes the rows. Ray restarts actors that died.

    Raises:
        VjepaError: Ray is not installed here, or there is no cluster at the address; else as `collect.collect`.
    """
    try:
        ray = importlib.import_module("ray")
        actor_pool = importlib.import_module("ray.util").ActorPool
    except ImportError as error:
        raise VjepaError(f"--ray-address needs Ray, which is not importable ({error}): pip install ray") from error
    try:
        ray.init(address=address, ignore_reinit_error=True)
    except (ConnectionError, ValueError) as error:
        raise VjepaError(f"no Ray cluster at '{address}': {error}") from error
    wanted = encoder if config.latents else None
    local = Collector(config, load_encoder(wanted) if wanted else None)
    info = local.info(source)
    local.close()
    remote = ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=-1)(_Simulator)
    try:
        with EpisodeWriter(folder, info) as writer:
            todo = [number for number in range(episodes) if number not in writer.episodes]
            on_episodes(len(writer.episodes))
            count = min(len(todo), int(ray.cluster_resources().get("CPU", 1)))
            pool = actor_pool([remote.remote(config, wanted) for _ in range(count)])
            for number, rows in pool.map_unordered(lambda actor, number: actor.episode.remote(number), todo):
                writer.add(number, rows)
                on_episodes(len(writer.episodes))
    finally:
        ray.shutdown()
    return finish_dataset(folder, info)


class _Simulator:
    """A Ray actor with a collector of its own."""

    def __init__(self, config: CollectConfig, encoder: EncoderConfig | None):
        self._collector = Collector(config, load_encoder(encoder) if encoder else None)

    def episode(self, number: int) -> Any:
        return number, self._collector.episode(number)
