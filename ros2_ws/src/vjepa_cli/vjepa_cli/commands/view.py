"""`vjepa view`: show a running stack or a bag in the rerun viewer, or write it as a file, animation or picture."""

import importlib
import math
import os
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, create_mutex_group

from vjepa_bringup.monitor import Monitor
from vjepa_cli import arguments as types
from vjepa_cli.command_line import Action, option, parsed_by
from vjepa_cli.commands.graph import OfStack, joined_stack
from vjepa_cli.result_files import require_writable
from vjepa_interfaces import topics
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.managed_node import STEADY
from vjepa_interfaces.ros_subscriptions import MatchedSubscription

if TYPE_CHECKING:
    from vjepa_cli.views.view import View

INSTALL = "./vjepa --with view --setup-only"
"""The command that installs the viewer, which only `vjepa view` needs."""
SUBSCRIPTION_DEPTH = 1000
"""Messages that are kept while the viewer stalls."""
HOST = "127.0.0.1"


_INSTEAD = create_mutex_group(required=False)


@dataclass(frozen=True, kw_only=True)
class ViewCommand(OfStack):
    """Look at a running stack, or at a bag, in the rerun viewer.

    Attributes:
        bag: a rosbag2 folder or file.
        save: write a file for the viewer instead of opening it.
        gif: write a bag as a short animation, without rerun.
        png: write a bag as one picture, without rerun.
        seconds: with a running stack: stop after this many seconds.
    """

    bag: Annotated[Positional[Path | None], option(metavar="[BAG]", default="the stack that runs here")] = None
    save: Annotated[str | None, option(metavar="FILE.rrd", default=""), _INSTEAD] = None
    gif: Annotated[str | None, option(metavar="FILE.gif", default=""), _INSTEAD] = None
    png: Annotated[str | None, option(metavar="FILE.png", default=""), _INSTEAD] = None
    seconds: Annotated[float | None, parsed_by(types.seconds, "S"), option(default="Ctrl-C")] = None


def view_command(arguments: ViewCommand) -> int:
    """Run `vjepa view`."""
    for kind in ("gif", "png"):
        if getattr(arguments, kind) and arguments.bag is None:
            raise VjepaError(f"--{kind} is made from a bag; record one with: vjepa record")
    if arguments.bag is not None and arguments.seconds is not None:
        raise VjepaError("--seconds is for a running stack; a bag is shown as a whole")
    for file in filter(None, (arguments.save, arguments.gif, arguments.png)):
        require_writable(file)
    bag, namespace = arguments.bag, arguments.namespace
    if bag and arguments.gif:
        return _animate(bag, namespace, arguments.gif)
    if bag and arguments.png:
        return _draw(bag, namespace, arguments.png)
    _require_rerun()
    from vjepa_cli.views.view import SHOWN, View

    if bag is None:
        with joined_stack(arguments) as monitor, _recording(arguments.save) as (recording, closed):
            _follow(monitor, View(recording), list(SHOWN), closed, arguments.seconds or math.inf)
    else:
        messages = _messages(bag, namespace, SHOWN)
        with _recording(arguments.save) as (recording, _):
            view = View(recording)
            for topic, message in messages:
                view.show(topic, message)
    if arguments.save:
        print(f"{arguments.save}: view it with: rerun {arguments.save}")
    return 0


def _require_rerun() -> None:
    try:
        importlib.import_module("rerun")
    except ImportError as error:
        raise VjepaError(f"rerun cannot be imported ({error}); install it with: {INSTALL}") from error


@contextmanager
def _recording(file: str | None) -> Iterator[tuple[Any, Callable[[], bool]]]:
    """Yield a recording into a file or a viewer, and a function that returns whether that viewer was closed.

    Raises:
        VjepaError: no viewer can be opened, or the viewer closed before it had everything.
    """
    import rerun

    recording = rerun.RecordingStream("vjepa")
    viewer = None
    if file:
        recording.save(file)
    else:
        viewer, address = _open_viewer()
        recording.connect_grpc(address)

    def closed() -> bool:
        return viewer is not None and viewer.poll() is not None

    try:
        yield recording, closed
        if not closed():
            recording.flush()
    except RuntimeError as error:  # Only rerun's flush raises this error here.
        raise VjepaError(f"the viewer did not take everything ({error}); write a file with --save") from error
    finally:
        recording.disconnect()


def _open_viewer() -> tuple[subprocess.Popen[Any], str]:
    """Start a viewer that listens on this host alone and outlives this process; return it and its address."""
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise VjepaError("no screen here (neither DISPLAY nor WAYLAND_DISPLAY is set); write a file with --save")
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-P", "-m", "rerun_cli", "--bind", HOST, "--port", str(port), "--expect-data-soon"]
    viewer = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env={"RUST_LOG": "error", **os.environ},
        start_new_session=True,
    )
    return viewer, f"rerun+http://{HOST}:{port}/proxy"


def _follow(
    monitor: Monitor, view: "View", shown: Iterable[topics.Topic], closed: Callable[[], bool], seconds: float
) -> None:
    """Show the messages of a running stack until Ctrl-C, until the viewer is closed, or for some seconds."""
    for topic in shown:
        depth = topic.depth if topic.latched else SUBSCRIPTION_DEPTH
        matched = MatchedSubscription(monitor.node, topic, partial(view.show, topic), depth)
        monitor.node.create_timer(1.0, matched.match, clock=STEADY)
    print("showing the running stack; Ctrl-C stops", flush=True)
    with suppress(KeyboardInterrupt):
        monitor.wait_until(closed, seconds)


def _messages(bag: Path, namespace: str | None, wanted: Iterable[topics.Topic]) -> Iterator[tuple[topics.Topic, Any]]:
    """Open a bag and return its messages in the order of arrival; its faults are printed at the end.

    Raises:
        VjepaError: there is no bag; or, raised at the end, it has none of the topics.
    """
    from vjepa_bags.bag_reader import messages_of

    prefix = f"/{namespace}" if namespace else ""
    faults: Counter[str] = Counter()
    messages = messages_of(bag, {f"{prefix}/{topic.name}": topic for topic in wanted}, faults)

    def tell() -> Iterator[tuple[topics.Topic, Any]]:
        count = 0
        for topic, _, message in messages:
            yield topic, message
            count += 1
        for fault, times in faults.items():
            print(f"vjepa: {bag}: {fault} ({times} times)", file=sys.stderr)
        if not count:
            raise VjepaError(f"{bag} has no topic of the stack under '{prefix}/'; see --namespace")

    return tell()


def _animate(bag: Path, namespace: str | None, file: str) -> int:
    from vjepa_cli.views.animation import ANIMATED, animate

    frames = animate(_messages(bag, namespace, ANIMATED), file)
    print(f"{file}: {frames} frames, {Path(file).stat().st_size / 1e6:.1f} MB")
    return 0


def _draw(bag: Path, namespace: str | None, file: str) -> int:
    from vjepa_cli.views.run_picture import DRAWN, draw_run

    draw_run(_messages(bag, namespace, DRAWN), file)
    print(f"{file}: a picture of {bag}")
    return 0


ACTIONS = {"view": Action(view_command)}
