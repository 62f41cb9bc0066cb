"""Online rounds: what is swapped in and what is not, and going on after a kill; its commands are not run for real.

Their makings are made in their place: datasets of a few rows, bundles without weights worth the name, results by table.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from vjepa_cli.actions import Command
from vjepa_cli.cli import main
from vjepa_cli.experiments.rounds import ROUND_SEEDS
from vjepa_cli.experiments.warm_start import training_config, warm_start
from vjepa_cli.result_files import write_result
from vjepa_interfaces.bundle import Bundle, write_bundle
from vjepa_interfaces.errors import VjepaError
from vjepa_training.data.dataset import LATENT, Dataset, DatasetInfo, EpisodeWriter, finish_dataset
from vjepa_training.data.dataset_tools import merge_datasets

ENCODER = "an-encoder"
SEED = 1_500_000_000
TRAINED = {
    "dynamics": {"preset": "dynamics-ensemble", "members": 2, "history": 0, "components": 8, "horizon": 2, "seed": 3},
    "reward": {"hidden": 16, "distance": False, "noise": 0.05},
    "actor": {"objective": "reward", "horizon": 3, "imagined_rollouts": 16, "entropy": 0.0},
}


def write_data(folder: Path, episodes: int, seed: int) -> Dataset:
    """Write a dataset of three rows an episode."""
    info = DatasetInfo(
        ("shoulder", "wrist"), (0.05, 0.05), 20_000_000, (1, 4), None, {"fingerprint": ENCODER}, "reacher-easy",
        ({"command": "of a test", "seed": seed, "episodes": episodes},),
    )  # fmt: skip
    with EpisodeWriter(folder, info) as writer:
        for number in range(episodes):
            columns = {name: np.zeros((3, *shape), kind) for name, (kind, shape) in info.columns().items()}
            columns[LATENT] += number
            writer.add(number, {name: column for name, column in columns.items() if name != "episode_index"})
    return finish_dataset(folder, info)


def write_trained(folder: Path, kind: str, **config) -> Bundle:
    """Write a bundle of `kind` whose weights are its path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_text(str(folder))
    described = {"kind": kind, "architecture": "a", "encoder_fingerprint": ENCODER, "training": TRAINED.get(kind, {})}
    return write_bundle(folder, {**described, "validation": 0.5, **config}, "# Of a test")


class Commands:
    """Runs commands of `vjepa` in its place.

    Attributes:
        returns: of evaluations, by the bundle of the dynamics.
        ran: the commands, in order.
        swapped_in: bundles of the dynamics that a running stack was given, in order.
        ends_before: is killed before it makes anything of the command of this number; None: never.
        ends_after: is killed behind it.
    """

    def __init__(self):
        self.returns: dict[str, list[float]] = {}
        self.ran: list[Command] = []
        self.swapped_in: list[str] = []
        self.ends_before: int | None = None
        self.ends_after: int | None = None

    def __call__(self, command: Command) -> int:
        self.ran.append(command)
        if len(self.ran) - 1 == self.ends_before:
            raise KeyboardInterrupt
        getattr(self, f"_{command.function.__name__}")(command.arguments)
        if len(self.ran) - 1 == self.ends_after:
            raise KeyboardInterrupt
        return 0

    def of(self, kind: str) -> list:
        """The options of all commands of a kind that were run."""
        return [command.arguments for command in self.ran if command.kind == kind]

    def _collect_command(self, parsed) -> None:
        write_data(Path(parsed.out), parsed.episodes, parsed.seed)

    def _run_command(self, parsed) -> None:
        bag = Path(parsed.record) / f"bag-{len(self.ran)}"
        bag.mkdir(parents=True)
        (bag / "seed").write_text(f"{parsed.seed} {parsed.episodes}")
        write_result(parsed.json, {})

    def _build_command(self, parsed) -> None:
        (bag,) = map(Path, parsed.bags)
        seed, episodes = map(int, (bag / "seed").read_text().split())
        write_data(Path(parsed.out), episodes, seed)

    def _record_command(self, parsed) -> None:
        bag = Path("bags-of-the-stack") / f"bag-{len(self.ran)}"
        bag.mkdir(parents=True)
        (bag / "seed").write_text(f"0 {parsed.episodes}")
        write_result(parsed.json, {"bag": str(bag), "episodes": parsed.episodes, "namespace": "left"})

    def _planner_set(self, parsed) -> None:
        self.swapped_in.append(options_in(Path(parsed.params_file))["cem.dynamics"])

    def _merge_command(self, parsed) -> None:
        merge_datasets([Dataset(folder) for folder in parsed.datasets], parsed.out)

    def _dynamics_command(self, parsed) -> None:
        assert Dataset(parsed.data)
        write_trained(Path(parsed.out), "dynamics")

    def _reward_command(self, parsed) -> None:
        write_trained(Path(parsed.out), "reward", dynamics_sha256=Bundle(Path(parsed.dynamics), {}).weights_sha256)

    def _dreamer_command(self, parsed) -> None:
        write_trained(Path(parsed.out), "actor")

    def _eval_command(self, parsed) -> None:
        bundle = options_in(Path(parsed.params_file))["cem.dynamics" if parsed.planner == "cem" else "dreamer.bundle"]
        returns = self.returns[bundle]
        result = {"returns": returns, "mean_return": float(np.mean(returns)), "interval_95": [0.0, 1.0]}
        write_result(parsed.json, {**result, "seed": parsed.seed, "episodes": parsed.episodes})

    @property
    def names(self) -> list[str]:
        """What was run, each with what it makes."""
        return [f"{command.kind} {made_by(command)}" for command in self.ran]


def options_in(file: Path) -> dict:
    return yaml.safe_load(file.read_text())["vjepa_planner"]["ros__parameters"]


def made_by(command: Command) -> str:
    return command.arguments.json if command.kind == "eval" else command.arguments.out


@pytest.fixture
def commands(tmp_path, monkeypatch) -> Commands:
    """A folder with data, a world and a parameter file, to which commands are given that are not run for real."""
    monkeypatch.chdir(tmp_path)
    write_data(Path("data"), 4, 100)
    dynamics = write_trained(Path("dynamics"), "dynamics")
    write_trained(Path("reward"), "reward", dynamics_sha256=dynamics.weights_sha256)
    parameters = {"cem.dynamics": "dynamics", "cem.reward": "reward", "cem.samples": 7}
    Path("cem.yaml").write_text(yaml.safe_dump({"vjepa_planner": {"ros__parameters": parameters}}))
    commands = Commands()
    commands.returns["dynamics"] = [1.0, 2.0, 3.0]
    run = Command.run
    monkeypatch.setattr(
        Command, "run", lambda command: run(command) if command.kind == "improve" else commands(command)
    )
    return commands


@pytest.fixture
def improve(commands, capsys) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs `vjepa improve` with further options: status, what it said and complained of."""

    def run(rounds: int, *options: str) -> tuple[int, str, str]:
        given = {
            "--planner": "cem", "--params-file": "cem.yaml", "--data": "data", "--out": "out", "--episodes": "2",
            "--eval-episodes": "3", **dict(zip(options[::2], options[1::2], strict=True)),
        }  # fmt: skip
        with pytest.raises(SystemExit) as ended:
            main(["improve", "--rounds", str(rounds), *(word for pair in given.items() for word in pair)])
        said = capsys.readouterr()
        return ended.value.code, said.out, said.err

    return run


def rounds_of(folder: str = "out") -> list[dict]:
    return json.loads(Path(folder, "rounds.json").read_text())["rounds"]


def current() -> dict:
    return options_in(Path("out/current.yaml"))


ROUND = ["collect", "dataset merge", "train dynamics", "train reward", "eval"]


def test_a_better_candidate_is_swapped_in_and_the_next_round_goes_on_from_it(commands, improve):
    commands.returns |= {"out/round-1/dynamics": [1.0, 2.0, 6.0], "out/round-2/dynamics": [0.0, 0.0, 0.0]}
    status, said, _ = improve(2)
    assert status == 0
    first, second = rounds_of()
    assert first["accepted"]
    assert first["difference"] == pytest.approx(1.0)
    assert (first["incumbent_mean_return"], first["candidate_mean_return"]) == (2.0, 3.0)
    assert (second["accepted"], second["incumbent"], second["incumbent_mean_return"]) == (False, 1, 3.0)
    assert current() == {
        "cem.dynamics": "out/round-1/dynamics",
        "cem.reward": "out/round-1/reward",
        "cem.samples": 7,
        "planner": "cem",
    }
    assert [each.start for each in commands.of("train dynamics")] == ["dynamics", "out/round-1/dynamics"]
    assert "swapped in" in said
    assert "--params-file out/current.yaml" in said


@pytest.mark.parametrize("returns", [[1.0, 2.0, 2.0], [3.0, 2.0, 1.0]], ids=["worse", "as good"])
def test_a_candidate_that_is_not_better_is_not_swapped_in(commands, improve, returns):
    commands.returns |= {"out/round-1/dynamics": returns, "out/round-2/dynamics": [9.0, 9.0, 9.0]}
    improve(1)
    assert not rounds_of()[0]["accepted"]
    assert (current()["cem.dynamics"], current()["cem.reward"]) == ("dynamics", "reward")
    improve(2)
    second = rounds_of()[1]
    assert (second["incumbent"], second["accepted"]) == (0, True)
    assert current()["cem.dynamics"] == "out/round-2/dynamics"
    training = commands.of("train reward")
    assert [each.start for each in training] == ["reward", "reward"]
    assert training[1].dynamics == "out/round-2/dynamics", "heads belong to the dynamics of their round"


def test_each_planner_is_evaluated_once(commands, improve):
    commands.returns |= {f"out/round-{number}/dynamics": [5.0 - number] * 3 for number in (1, 2, 3)}
    improve(3)
    evaluations = [each.json for each in commands.of("eval")]
    assert evaluations == ["out/start.json", *(f"out/round-{number}/candidate.json" for number in (1, 2, 3))]


@pytest.mark.parametrize("end", ["ends_before", "ends_after"])
@pytest.mark.parametrize("number", range(11))
def test_killed_at_any_step_it_goes_on_and_takes_no_whole_step_again(commands, improve, end, number):
    commands.returns |= {"out/round-1/dynamics": [2.0, 3.0, 4.0], "out/round-2/dynamics": [3.0, 4.0, 5.0]}
    setattr(commands, end, number)
    assert improve(2)[0] == 130
    killed = commands.names[-1]
    setattr(commands, end, None)
    assert improve(2)[0] == 0
    names = commands.names
    expected = ["eval out/start.json"]
    for folder in ("out/round-1", "out/round-2"):
        makes = ("recorded", "data", "dynamics", "reward", "candidate.json")
        expected += [f"{what} {folder}/{name}" for what, name in zip(ROUND, makes, strict=True)]
    if end == "ends_before":
        assert names.count(killed) == 2
        names.remove(killed)
    assert names == expected
    first, second = rounds_of()
    assert [first["accepted"], second["accepted"]] == [True, True]
    assert current()["cem.dynamics"] == "out/round-2/dynamics"
    assert [command.split()[1] for command in second["commands"]] == ["collect", "dataset", "train", "train", "eval"]


def test_when_all_rounds_are_done_nothing_is_run_and_more_go_on_from_there(commands, improve):
    commands.returns |= {f"out/round-{number}/dynamics": [number + 5.0] * 3 for number in (1, 2)}
    improve(1)
    before = len(commands.ran)
    status, said, _ = improve(1)
    assert (status, len(commands.ran)) == (0, before)
    assert "swapped in" in said
    improve(2)
    assert [Path(made_by(command)).parts[1] for command in commands.ran[before:]] == ["round-2"] * 5


def test_data_grows_and_only_the_last_merged_set_is_kept(commands, improve):
    commands.returns |= {f"out/round-{number}/dynamics": [1.0] * 3 for number in (1, 2, 3)}
    improve(3)
    assert [entry["data"]["episodes"] for entry in rounds_of()] == [6, 8, 10]
    assert [entry["recorded"]["rows"] for entry in rounds_of()] == [6, 6, 6]
    assert [path.parent.name for path in Path("out").glob("*/data")] == ["round-3"]
    assert len(Dataset("data").episodes) == 4


def test_no_two_rounds_and_no_evaluation_share_a_seed(commands, improve):
    commands.returns |= {f"out/round-{number}/dynamics": [1.0] * 3 for number in (1, 2)}
    improve(2)
    recorded = [each.seed for each in commands.of("collect")]
    assert {each.seed for each in commands.of("eval")} == {SEED}
    assert recorded == [SEED + ROUND_SEEDS, SEED + 2 * ROUND_SEEDS] == [e["recorded"]["seed"] for e in rounds_of()]


@pytest.mark.parametrize(("name", "value", "said"), [("--epochs", "9", "epochs"), ("--protocol", "full", "protocol")])
def test_rounds_do_not_go_on_with_other_settings(commands, improve, name, value, said):
    commands.returns["out/round-1/dynamics"] = [1.0] * 3
    improve(1)
    status, _, complained = improve(2, name, value)
    assert status == 1
    assert f"the rounds in out were begun with other {said}; give the same" in complained


def test_rounds_do_not_go_on_from_other_weights_or_data(commands, improve):
    commands.returns["out/round-1/dynamics"] = [1.0] * 3
    improve(1)
    Path("dynamics/model.safetensors").write_text("another training")
    weights = Bundle(Path("dynamics"), {}).weights_sha256
    write_trained(Path("reward"), "reward", dynamics_sha256=weights)
    assert "begun with other weights" in improve(2)[2]
    write_data(Path("more"), 5, 100)
    assert "begun with other data, rows, weights" in improve(2, "--data", "more")[2]


def test_what_trainers_keep_of_the_data_goes_with_the_round(commands, improve):
    commands.returns["out/round-1/dynamics"] = [1.0] * 3
    states = Path("out/round-1/dynamics.training/states-0.npy")
    states.parent.mkdir(parents=True)
    states.write_text("as large as the data")
    improve(1)
    assert not states.exists()


def test_through_ros_bags_are_recorded_and_built_and_evaluated_there_too(commands, improve):
    def cut_off(parsed) -> None:
        Path(parsed.record, "cut-off").mkdir(parents=True)

    commands.returns["out/round-1/dynamics"] = [5.0] * 3
    commands.ends_after = 1
    real, commands._run_command = commands._run_command, cut_off
    assert improve(1, "--through", "ros")[0] == 130
    commands.ends_after, commands._run_command = None, real
    assert improve(1, "--through", "ros")[0] == 0
    assert [command.kind for command in commands.ran[2:]] == ["run", "dataset build", *ROUND[1:]]
    run, build, evaluation = (commands.of(kind)[-1] for kind in ("run", "dataset build", "eval"))
    assert (run.seed, run.protocol, run.lockstep) == (SEED + ROUND_SEEDS, "short", True)
    assert build.bags == ("out/round-1/bags/bag-3",), "without the bag of the run that was killed"
    assert evaluation.through == "ros"
    assert rounds_of()[0]["accepted"]


def test_with_a_running_stack_it_records_that_and_swaps_in_there_what_is_better_and_nothing_else(commands, improve):
    commands.returns |= {"out/round-1/dynamics": [0.0] * 3, "out/round-2/dynamics": [5.0] * 3}
    assert improve(2, "--through", "stack", "--domain", "7")[0] == 0
    assert commands.swapped_in == ["dynamics", "out/round-2/dynamics"]
    assert {each.domain for each in [*commands.of("planner set"), *commands.of("record")]} == {7}
    assert {each.namespace for each in commands.of("dataset build")} == {"left"}
    assert {each.through for each in commands.of("eval")} == {"process"}
    assert [entry["recorded"]["seed"] for entry in rounds_of()] == [None, None]
    assert improve(2, "--through", "stack")[0] == 0
    assert commands.swapped_in[2:] == ["out/round-2/dynamics"], "to a stack that was started anew, too"


# What it starts from.


def dreamer(commands: Commands, reward: str = "reward") -> None:
    """Write a parameter file of an actor that was trained with the world of the folder and a policy."""
    hashes = {name: Bundle(Path(name), {}).weights_sha256 for name in ("dynamics", "reward")}
    hashes["policy"] = write_trained(Path("policy"), "policy").weights_sha256
    trained_with = {"dynamics": "dynamics", "reward": reward, "policy": "policy"}
    hashes = {f"{kind}_sha256": digest for kind, digest in hashes.items()}
    write_trained(Path("actor"), "actor", trained_with=trained_with, **hashes)
    parameters = {"vjepa_planner": {"ros__parameters": {"dreamer.bundle": "actor"}}}
    Path("dreamer.yaml").write_text(yaml.safe_dump(parameters))
    commands.returns |= {"actor": [1.0] * 3, "out/round-1/actor": [2.0] * 3}


def test_an_actor_is_trained_behind_its_world_with_what_it_was_trained_with(commands, improve):
    dreamer(commands)
    status, _, complained = improve(1, "--planner", "dreamer", "--params-file", "dreamer.yaml", "--steps", "50")
    assert (status, complained) == (0, "")
    assert [command.kind for command in commands.ran[1:]] == [*ROUND[:4], "train dreamer", ROUND[4]]
    (actor,) = commands.of("train dreamer")
    world = {name: f"out/round-1/{name}" for name in ("dynamics", "reward")} | {"prior": "policy", "start": "actor"}
    assert {name: getattr(actor, name) for name in world} == world
    assert (actor.steps, actor.cloning_steps) == (50, 0)
    assert current() == {"dreamer.bundle": "out/round-1/actor", "planner": "dreamer"}


def test_an_actor_whose_world_is_not_known_is_refused_until_it_is_named(commands, improve):
    dreamer(commands, reward="gone")
    _, _, complained = improve(1, "--planner", "dreamer", "--params-file", "dreamer.yaml")
    assert "the reward of the training of actor is not found; name it with --reward BUNDLE" in complained
    assert improve(1, "--planner", "dreamer", "--params-file", "dreamer.yaml", "--reward", "reward")[0] == 0


def test_a_world_trained_anew_since_is_not_taken_for_the_actors(commands):
    dreamer(commands)
    Path("policy/model.safetensors").write_text("another training")
    with pytest.raises(VjepaError, match="the policy of the training of actor is not found; name it with --prior"):
        warm_start("dreamer", "dreamer.yaml", {})


def test_the_same_network_is_trained_with_the_settings_of_its_first_training(commands, improve):
    assert training_config("dynamics", "dynamics") == TRAINED["dynamics"]
    write_trained(Path("other"), "dynamics", training={"rows": "mean", "components": 0, "of_an_older_version": 3})
    assert training_config("dynamics", "other") == {"rows": "mean", "components": 0}
    commands.returns["out/round-1/dynamics"] = [1.0] * 3
    improve(1, "--epochs", "9")
    (dynamics,), (reward,) = commands.of("train dynamics"), commands.of("train reward")
    assert (dynamics.members, dynamics.horizon, dynamics.seed, dynamics.epochs) == (2, 2, 3, 9)
    assert (reward.hidden, reward.distance, reward.noise, reward.epochs) == (16, False, 0.05, 9)


def changed(**parameters) -> None:
    content = yaml.safe_load(Path("cem.yaml").read_text())
    content["vjepa_planner"]["ros__parameters"].update(parameters)
    Path("cem.yaml").write_text(yaml.safe_dump(content))


def test_the_training_of_an_older_bundle_is_read_by_its_deprecated_names(commands, capsys):
    write_trained(Path("older"), "actor", training={"horizon": 3, "dreams": 16})
    assert training_config("actor", "older") == {"horizon": 3, "imagined_rollouts": 16}
    assert capsys.readouterr().err == ""


def test_what_no_rounds_can_start_from_is_refused_before_anything_runs(commands, improve):
    def refused(*options: str, status: int = 1) -> str:
        ended, _, complained = improve(1, *options)
        assert ended == status
        return complained

    assert "improves by DAgger: vjepa train bc --dagger N" in refused("--planner", "bc")
    assert "'random' has no bundles that rounds can train; expected one of cem" in refused("--planner", "random")
    changed(**{"shooting.dynamics": ""})
    assert "shooting.dynamics names no bundle" in refused("--planner", "shooting")
    assert "--reward is for dreamer; cem is trained with the bundles of its options" in refused("--reward", "reward")
    assert "episodes of the seeds 101 to 103" in refused("--seed", "101")
    assert "would have seeds beyond" in refused("--seed", "2147483000")
    assert "--epsilon is 2.0; expected at least 0 and at most 1" in refused("--epsilon", "2", status=2)
    assert "--domain is for a running stack" in refused("--domain", "7")
    assert "--hold is for --through process" in refused("--through", "ros", "--hold", "2")
    write_trained(Path("others"), "reward", dynamics_sha256="0123")
    changed(**{"cem.reward": "others"})
    assert "others reads the states of the dynamics model with weights 0123, but dynamics has weights" in refused()
    changed(**{"cem.reward": "reward", "cem.objective": "goal"})
    assert "cem.objective is 'goal'; rounds compare returns" in refused()
    write_trained(Path("dynamics"), "dynamics", encoder_fingerprint="another")
    changed(**{"cem.objective": "reward"})
    assert "was trained on latents of encoder another" in refused()
    write_trained(Path("dynamics"), "dynamics", training=None)
    assert "dynamics does not record its training" in refused()
    assert commands.ran == []
