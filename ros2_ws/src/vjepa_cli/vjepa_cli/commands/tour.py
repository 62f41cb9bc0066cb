"""`vjepa tour`: a first look in a minute or two. It runs, swaps, records and draws, and explains each step."""

import contextlib
import textwrap
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from sim_bridge.score import RunScores
from vjepa_bringup.graph import StackOptions, build_graph
from vjepa_bringup.monitor import Monitor, text_in
from vjepa_bringup.run_graph import running_graph, watch
from vjepa_bringup.supervisor import Supervisor
from vjepa_cli import arguments as types
from vjepa_cli.command_line import Action, LogLevel, option, parsed_by
from vjepa_cli.commands.graph import set_parameters
from vjepa_cli.dashboard import Dashboard
from vjepa_cli.screen import PLAIN_WIDTH, Screen
from vjepa_cli.start_up import StartUp
from vjepa_cli.views.run_picture import DRAWN, draw_run
from vjepa_interfaces import topics

EPISODE_STEPS = 200
RUN = """
Run. Five programs start, each a node of ROS 2: a simulated arm with a camera, an encoder that turns the last 8
frames into a V-JEPA 2 latent, a planner that turns latents into torques, a recorder, and a manager of them all.
First nobody thinks: the planner `random` drives. The arm's fingertip should reach a target; a step there is
worth 1, an episode at most 200.
"""
BC = """
Swap. `./vjepa planner set bc` puts another planner in while the arm moves. `bc` was trained to do what a
scripted expert does, and has nothing to go by but latents and joint angles: it has never been told where the
target is.
"""
CEM = """
Search. `./vjepa planner set cem`: this one imagines. It tries out torques in a learned model of the world, in
latents, and takes those that end best. Where the processor is too slow for that, `bc` helps out.
"""
RECORDED = """
Look back. All of it was recorded as a rosbag2 bag, which every tool of ROS reads, and from which `./vjepa
dataset build` makes data to train on.
"""
STAGES = (("random", RUN), ("bc", BC), ("cem", CEM))
NEXT = (
    ("./vjepa run --planner cem", "the whole loop for five episodes, with a scoreboard"),
    ("./vjepa run --camera /dev/video0", "your own camera's frames in the simulation's place"),
    ("docs/concepts.md", "frames, stamps, latents, bundles and planners in one page"),
    ("docs/tutorial.md", "train an encoder and a policy of your own, and swap them in"),
)


@dataclass(frozen=True)
class TourCommand:
    """Take a first look in a minute or two: run, swap, record, draw.

    Attributes:
        out: folder of the bag and the picture.
        domain: ROS domain.
        log_level: log level of the nodes.
    """

    out: Path = Path("tour")
    domain: Annotated[int | None, parsed_by(types.domain, "INT"), option(default="a free one")] = None
    log_level: LogLevel = "error"


def tour_command(arguments: TourCommand) -> int:
    """Run `vjepa tour`."""
    options = StackOptions(
        planner=STAGES[0][0],
        episodes=0,
        episode_steps=EPISODE_STEPS,
        record=True,
        bag_dir=str(arguments.out),
        log_level=arguments.log_level,
    )
    scores = RunScores()
    with contextlib.ExitStack() as stack:
        print_paragraph(1, STAGES[0][1])  # Printed before the wait for the start.
        supervisor, domain = stack.enter_context(running_graph(options, arguments.domain, {"planner": "of the tour"}))
        monitor = stack.enter_context(Monitor(domain, scores=scores))
        # A planner is swapped in the middle of an episode, so there are more episodes than planners.
        dashboard = Dashboard(0, EPISODE_STEPS, StartUp(build_graph(options)))
        for number, (planner, words) in enumerate(STAGES, 1):
            if number > 1:
                print_paragraph(number, words)
                set_parameters(monitor, {"planner": planner})
            _follow_an_episode(supervisor, monitor, scores, dashboard)
            print(f"  {planner}: a return of {scores.finished[-1].episode_return:.0f} of {EPISODE_STEPS}", flush=True)
        bag = text_in(monitor.diagnostics, "episode_recorder", "bag")
    print_paragraph(len(STAGES) + 1, RECORDED)
    _draw(Path(bag), arguments.out / "tour.png")
    print("\nNext:")
    for what, why in NEXT:
        print(f"  {what}\n      {why}")
    return 0


def print_paragraph(number: int, words: str) -> None:
    """Print a paragraph of the tour."""
    text = f"{number} of {len(STAGES) + 1}. {' '.join(words.split())}"
    print(f"\n{textwrap.fill(text, PLAIN_WIDTH, subsequent_indent='        ')}", flush=True)


def _follow_an_episode(supervisor: Supervisor, monitor: Monitor, scores: RunScores, dashboard: Dashboard) -> None:
    """Watch until the end of an episode that the current planner drove from its first step on."""
    started, begun = time.monotonic(), scores.begun
    with Screen() as screen:
        for _ in watch(supervisor, monitor, scores):
            lines = dashboard.lines(
                scores, monitor.driver, monitor.diagnostics, time.monotonic() - started, screen.width
            )
            screen.show(*lines)
            if scores.finished_from(begun):
                return


def _draw(bag: Path, picture: Path) -> None:
    """Print the contents of a bag, and draw it."""
    from vjepa_bags.bag_reader import messages_of

    counts: Counter[str] = Counter()
    faults: Counter[str] = Counter()

    def counted(wanted: Sequence[topics.Topic]) -> Iterator[tuple[topics.Topic, Any]]:
        for topic, _, message in messages_of(bag, {f"/{topic.name}": topic for topic in wanted}, faults):
            counts[topic.name] += 1
            yield topic, message

    draw_run(counted(DRAWN), str(picture))
    print(f"  {bag}")
    for fault, times in faults.items():
        print(f"  {fault} ({times} times)")
    for name, count in counts.items():
        print(f"  {count:7} messages of /{name}")
    print(f"  {picture}: the camera's frames, and below them distance, reward and torques", flush=True)


ACTIONS = {"tour": Action(tour_command)}
