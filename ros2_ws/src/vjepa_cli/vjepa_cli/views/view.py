"""A run in rerun: each message of the stack is an entity at the message's stamp.

Messages of a running stack and of a bag take the same path, so both look the same.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import rerun as rr
import rerun.blueprint as rrb

from vjepa_cli.views.latent_picture import Projection, latent_picture
from vjepa_interfaces import topics
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.image_codec import image_to_rgb
from vjepa_interfaces.json_text import parse_json
from vjepa_interfaces.messages import latent_of, timestep_of
from vjepa_interfaces.stamps import to_nanoseconds

TIMELINE = "stamp"
TRAIL_S = 2.0
"""Time for which a point of the projection stays visible."""
POINT_RADIUS_M = 0.006
RED, BLUE = (220, 60, 40), (40, 110, 220)


class View:
    """Draws the stack's messages into a rerun recording; `SHOWN` defines the drawing of each topic.

    A message without a stamp, such as the name of the planner, gets the newest stamp before it. Messages before the
    first stamp wait for it.
    """

    def __init__(self, recording: rr.RecordingStream):
        """Draw into `recording`, which has a sink."""
        self._recording = recording
        self._stamp_ns = 0
        self._early: list[tuple[topics.Topic, Any]] = []
        self._projection = Projection()
        self._reason = ""
        recording.send_blueprint(_layout())

    def show(self, topic: topics.Topic, message: Any) -> None:
        """Draw a message of a topic in `SHOWN`, in the class of rclpy or of rosbags.

        A message that cannot be read becomes a line in the log.
        """
        try:
            self._stamp_ns = _stamp_of(topic, message) or self._stamp_ns
            if not self._stamp_ns:
                self._early.append((topic, message))
                return
            self._recording.set_time(TIMELINE, timestamp=np.datetime64(self._stamp_ns, "ns"))
            while self._early:
                earlier, what = self._early.pop(0)
                SHOWN[earlier](self, what)
            SHOWN[topic](self, message)
        except VjepaError as error:
            self.log_text(f"{topic.name}: {error}", rr.TextLogLevel.WARN)

    def log(self, entity: str, what: rr.AsComponents) -> None:
        """Draw `what` at the stamp of the newest message."""
        self._recording.log(entity, what)

    def log_text(self, text: str, level: rr.TextLogLevel = rr.TextLogLevel.INFO) -> None:
        """Write a line into the log."""
        self.log("log", rr.TextLog(text, level=level))

    def draw_point(self, entity: str, message: Any, color: tuple[int, int, int]) -> None:
        """Draw a `PointStamped`."""
        point = message.point
        self.log(entity, rr.Points3D([[point.x, point.y, point.z]], colors=color, radii=POINT_RADIUS_M))

    def draw_series(self, entity: str, names: Sequence[str], values: Sequence[float]) -> None:
        """Draw one value of each joint; an arm may omit values that it does not measure."""
        for name, value in zip(names, values, strict=False):
            self.log(f"{entity}/{name}", rr.Scalars(value))

    def draw_joints(self, message: Any) -> None:
        """Draw positions, and the torque that was applied during the step before them."""
        self.draw_series("position", message.name, message.position)
        self.draw_series("torque/applied", message.name, message.effort)

    def draw_latent(self, message: Any) -> None:
        """Draw a latent as a picture, and its mean row as a point."""
        latent = latent_of(message)
        self.log("latent", rr.Image(latent_picture(latent), color_model="L"))
        self.log("projection", rr.Points2D([self._projection.point(latent)], colors=BLUE))

    def draw_plan(self, message: Any) -> None:
        """Draw the figures of a plan, and write a line into the log for a new reason of a fallback."""
        plan = _plan_of(message)
        for name in ("cost", "disagreement", "novelty", "planning_time_s"):
            if plan.get(name) is not None:
                self.log(f"plan/{name}", rr.Scalars(plan[name]))
        if plan.get("imagined"):
            distance, steps = plan["imagined"]["distance"], plan["imagined"]["steps"]
            self.log("imagined", rr.BarChart(distance, abscissa=np.arange(len(distance)) * steps))
        reason = plan.get("fallback") or plan.get("refused") or ""
        if reason and reason != self._reason:
            self.log_text(reason, rr.TextLogLevel.WARN)
        self._reason = reason


SHOWN: dict[topics.Topic, Callable[[View, Any], None]] = {
    topics.IMAGE: lambda view, m: view.log("camera", rr.Image(image_to_rgb(m))),
    topics.COMPRESSED_IMAGE: lambda view, m: view.log("camera", rr.EncodedImage(contents=bytes(m.data))),
    topics.TARGET: lambda view, m: view.draw_point("plane/target", m, RED),
    topics.FINGERTIP: lambda view, m: view.draw_point("plane/fingertip", m, BLUE),
    topics.JOINT_STATES: View.draw_joints,
    topics.JOINT_COMMAND: lambda view, m: view.draw_series("torque/command", m.name, m.effort),
    topics.TIMESTEP: lambda view, m: view.log("reward", rr.Scalars(timestep_of(m).reward)),
    topics.LATENT: View.draw_latent,
    topics.PLAN: View.draw_plan,
    topics.ACTIVE_PLANNER: lambda view, m: view.log_text(f"planner '{m.data}' drives"),
}
"""The function that draws the messages of each topic."""


def _stamp_of(topic: topics.Topic, message: Any) -> int:
    """Return the stamp of a message in nanoseconds; 0 if it has none."""
    if topic == topics.PLAN:
        return _plan_of(message)["stamp"]
    return to_nanoseconds(message.header.stamp) if hasattr(message, "header") else 0


def _plan_of(message: Any) -> dict[str, Any]:
    """Return the content of a message of `~/plan`, which `Decision.record` of `vjepa_planner/fallback.py` defines."""
    try:
        plan = parse_json(message.data)
        return {"stamp": int(plan["stamp"]), **plan}
    except (ValueError, TypeError, KeyError) as error:
        raise VjepaError(f"expected a plan as JSON with its stamp, not {message.data!r}") from error


def _layout() -> rrb.Blueprint:
    """Return the layout of the viewer."""
    trail = rr.VisibleTimeRange(
        TIMELINE,
        start=rr.TimeRangeBoundary.cursor_relative(seconds=-TRAIL_S),
        end=rr.TimeRangeBoundary.cursor_relative(),
    )
    above = rrb.EyeControls3D(position=(0.0, -0.001, 0.6), look_target=(0.0, 0.0, 0.0), eye_up=(0.0, 1.0, 0.0))
    legend = rrb.PlotLegend(rrb.Corner2D.RightBottom)  # The first steps of a run, at the left, show the most.
    return rrb.Blueprint(
        rrb.Horizontal(
            rrb.Vertical(
                rrb.Spatial2DView(origin="camera", name="camera"),
                rrb.Spatial3DView(origin="plane", name="target (red) and fingertip (blue)", eye_controls=above),
            ),
            rrb.Vertical(
                rrb.Spatial2DView(origin="latent", name="latent: rows x dimension"),
                rrb.Spatial2DView(origin="projection", name="mean row, projected", time_ranges=trail),
                rrb.BarChartView(origin="imagined", name="imagined way to the target, m, over steps ahead"),
            ),
            rrb.Vertical(
                rrb.TimeSeriesView(origin="torque", name="torque, N·m", plot_legend=legend),
                rrb.TimeSeriesView(origin="position", name="joint position, rad", plot_legend=legend),
                rrb.TimeSeriesView(origin="reward", name="reward", plot_legend=rrb.PlotLegend(visible=False)),
                rrb.TimeSeriesView(origin="plan", name="plan", plot_legend=legend),
                rrb.TextLogView(origin="log", name="who drives"),
                row_shares=(4, 3, 2, 3, 2),
            ),
        ),
        rrb.TimePanel(timeline=TIMELINE, state="collapsed"),
        collapse_panels=True,
    )
