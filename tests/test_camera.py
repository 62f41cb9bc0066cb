"""The camera node in real processes: a video file becomes frames, frames become latents. No camera is needed."""

import base64
import http.server
import json
import subprocess
import sys
import threading
import urllib.parse
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from lifecycle_msgs.msg import Transition
from rcl_interfaces.msg import ParameterEvent
from rcl_interfaces.srv import GetParameters
from rclpy.parameter import parameter_value_to_python
from rosbags.highlevel import AnyReader

from vjepa_cli.cli import main
from vjepa_interfaces import topics
from vjepa_interfaces.image_codec import image_to_rgb

ENCODER = {
    "kind": "encoder",
    "architecture": "vjepa2",
    "clip_frames": 4,
    "init_seed": 0,
    "model": {
        "crop_size": 32,
        "patch_size": 8,
        "tubelet_size": 2,
        "frames_per_clip": 4,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "mlp_ratio": 2.0,
    },
    "preprocessing": {"resize": 36, "crop": 32},
}
STEP = 16
"""Levels of grey between two frames: more than JPEG loses."""
FRAMES, RATE_HZ = 10, 20.0
K = [50.0, 0.0, 32.0, 0.0, 50.0, 24.0, 0.0, 0.0, 1.0]
CALIBRATION = {
    "image_width": 64,
    "image_height": 48,
    "distortion_model": "plumb_bob",
    "camera_matrix": {"rows": 3, "cols": 3, "data": K},
    "distortion_coefficients": {"rows": 1, "cols": 5, "data": [0.1, 0.0, 0.0, 0.0, 0.0]},
    "rectification_matrix": {"rows": 3, "cols": 3, "data": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]},
    "projection_matrix": {"rows": 3, "cols": 4, "data": [50.0, 0, 32.0, 0, 0, 50.0, 24.0, 0, 0, 0, 1.0, 0]},
}


@pytest.fixture
def encoder(tmp_path) -> Path:
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(ENCODER))
    return folder


@pytest.fixture
def video(tmp_path) -> Path:
    """Frame i of 64 x 48 pixels is grey of level i * STEP."""
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), RATE_HZ, (64, 48))
    for number in range(FRAMES):
        writer.write(np.full((48, 64, 3), number * STEP, np.uint8))
    writer.release()
    return path


@pytest.fixture
def play(start_stack, encoder, video, tmp_path):
    """Return a function that starts a stack whose camera plays the video with the given parameters."""

    def start(**camera):
        file = tmp_path / "parameters.yaml"
        nodes = {"camera": camera, "vjepa_perception": {"clip_frames": 4, "grid": 2}}
        file.write_text(yaml.safe_dump({name: {"ros__parameters": values} for name, values in nodes.items()}))
        return start_stack(
            source="camera", camera=str(video), planner="random", encoder=str(encoder), params_file=str(file)
        )

    return start


LIGHT = Path(__file__).parent / "light"


def run_on(*arguments: object) -> int:
    """Run `vjepa run` with a light stack and return its exit status."""
    light = ["--encoder", LIGHT / "encoder", "--params-file", LIGHT / "stack.yaml"]
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in ("run", *light, *arguments)])
    return ended.value.code


def test_one_command_runs_the_stack_on_a_video_to_its_end(forking, video, tmp_path, capsys):
    status = run_on("--camera", video, "--planner", "random", "--crop", 8, 4, 40, 30, "--record", tmp_path / "bags")
    shown = capsys.readouterr()
    assert status == 0, shown.err
    for expected in (f"camera   {video}, 40 x 30 pixels", f"frames   {FRAMES}", "planner  random: ", "score    none"):
        assert expected in shown.out
    (bag,) = (tmp_path / "bags").iterdir()
    assert f"./vjepa view {bag} --png run.png" in shown.out
    with AnyReader([bag]) as reader:
        assert 0 < reader.topics["/camera/image_raw"].msgcount <= FRAMES


def test_a_run_without_a_single_plan_fails_and_names_a_planner_that_has_one(forking, video, capsys):
    status = run_on("--camera", video, "--planner", "expert")
    shown = capsys.readouterr()
    assert status == 1
    assert f"./vjepa run --camera {video} --planner bc --bc-bundle bc-latents  # reads the camera alone" in shown.out
    (line,) = [line for line in shown.err.splitlines() if line.startswith("vjepa: ")]
    assert "expert made no plan from any frame" in line
    assert "a camera alone has no joint states and no target" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--planner", "random", "--crop", 60, 0, 40, 30], "beyond the picture of 64 x 48 pixels"),
        (["--planner", "random", "--flip", "sideways"], "valid are: both, horizontal, vertical"),
        (["--planner", "random", "--episodes", 3], "--episodes is for the simulation: leave it out"),
        (["--planner", "random", "--lockstep"], "--lockstep is for the simulation: leave it out"),
        (["--params-file", ""], "no planner is chosen"),
    ],
    ids=str,
)
def test_what_a_camera_cannot_have_is_refused_before_any_process_starts(arguments, message, video, capsys, monkeypatch):
    monkeypatch.setattr("vjepa_cli.camera_run.run_camera", None)
    assert run_on("--camera", video, *arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_an_empty_source_is_no_simulation(capsys, monkeypatch):
    monkeypatch.setattr("vjepa_bringup.run_graph.run_graph", None)
    assert run_on("--camera", "", "--planner", "random") == 1
    assert "--camera is empty; expected a device such as /dev/video0, a video file or" in capsys.readouterr().err


def test_options_of_a_camera_need_one(capsys):
    assert run_on("--crop", 1, 2, 3, 4) == 1
    assert "--crop is for a camera: give --camera SOURCE with it" in capsys.readouterr().err


def said(stack) -> tuple[str, dict]:
    """What the camera says of itself: message and values."""
    _, message, values = stack.monitor.diagnostics.get("camera", ("", "", {}))
    return message, values


@pytest.mark.real_time
def test_a_video_in_a_loop_becomes_frames_in_order_and_latents_with_their_stamps(play):
    stack = play(loop=True, expected_rate_hz=RATE_HZ)
    images, infos, latents = (stack.tap(topic) for topic in (topics.IMAGE, topics.CAMERA_INFO, topics.LATENT))
    stack.wait_for(lambda: len(latents.messages) >= 3 * FRAMES, "latents of three rounds")
    first = images.stamps[0]  # A latent whose frame came before this test was known to the camera may have come.
    stack.wait_for(
        lambda: {stamp for stamp in latents.stamps if stamp >= first} <= set(images.stamps), "the frame of every latent"
    )
    assert images.stamps == sorted(set(images.stamps)), "stamps rise strictly"
    numbers = [round(float(image_to_rgb(message).mean()) / STEP) for message in images.messages]
    following = np.diff(numbers) % FRAMES
    assert set(numbers) == set(range(FRAMES))
    assert np.mean(following == 1) > 0.8, "one after the other, but for those that a busy machine drops"
    now_ns = stack.node.get_clock().now().nanoseconds
    assert 0 < now_ns - images.stamps[-1] < 60e9, "the time of the wall clock"

    assert {message.header.frame_id for message in images.messages} == {"camera_optical_frame"}
    assert {(message.width, message.height, message.encoding) for message in images.messages} == {(64, 48, "rgb8")}
    stack.wait_for(lambda: len(infos.messages) > 3, "camera info")
    assert set(infos.stamps[:3]) <= set(images.stamps)
    assert set(infos.messages[0].k) == {0.0}, "uncalibrated, as the message's definition has it"
    stack.wait_for(lambda: stack.monitor.value("camera", "rate_hz") > RATE_HZ / 2, "a rate")
    _, values = said(stack)
    assert values["size"] == "64 x 48"
    assert values["reconnects"] == "0"
    assert values["calibration"] == "none"


def test_crop_and_calibration_reach_the_topics_and_an_unexpected_rate_is_a_warning(play, tmp_path):
    (tmp_path / "camera.yaml").write_text(yaml.safe_dump(CALIBRATION))
    stack = play(
        loop=True,
        crop=[8, 4, 40, 30],
        frame_id="wrist_camera",
        calibration=str(tmp_path / "camera.yaml"),
        expected_rate_hz=50.0,
    )
    images, infos = stack.tap(topics.IMAGE), stack.tap(topics.CAMERA_INFO)
    stack.wait_for(lambda: images.messages and infos.messages, "frames")
    assert (images.messages[0].width, images.messages[0].height) == (40, 30)
    info = infos.messages[0]
    assert (info.width, info.height, info.header.frame_id) == (40, 30, "wrist_camera")
    assert list(info.k) == [50.0, 0.0, 24.0, 0.0, 50.0, 20.0, 0.0, 0.0, 1.0]
    assert (info.p[2], info.p[6], info.d[0], info.distortion_model) == (24.0, 20.0, 0.1, "plumb_bob")
    stack.wait_for(lambda: "frames a second; expected_rate_hz is 50" in said(stack)[0], "a warning")
    assert said(stack)[1]["calibration"].endswith("camera.yaml")


def test_a_rotated_camera_is_uncalibrated_and_the_end_of_a_file_is_a_warning(play, tmp_path):
    (tmp_path / "camera.yaml").write_text(yaml.safe_dump(CALIBRATION))
    stack = play(rotate=90, calibration=str(tmp_path / "camera.yaml"))
    infos = stack.tap(topics.CAMERA_INFO)
    stack.wait_for(lambda: f"has ended after {FRAMES} frames; set 'loop'" in said(stack)[0], "a warning")
    assert said(stack)[1]["calibration"].startswith("left out: ")
    assert said(stack)[1]["frames"] == str(FRAMES)
    assert {(info.width, info.height, info.k[0]) for info in infos.messages} <= {(48, 64, 0.0)}


def test_a_source_that_is_not_there_is_refused_at_configure_with_what_to_do(play, video):
    video.unlink()
    stack = play()
    stack.wait_for(
        lambda: f"configure refused: no video file {video}; see that the path is right" in said(stack)[0], "the reason"
    )


def test_a_refusal_is_said_before_it_is_answered(play, video):
    """Who asked for the transition finds the reason on /diagnostics at once, not with the next of the seconds."""
    video.unlink()
    stack = play()
    stack.wait_for(lambda: "configure refused" in said(stack)[0], "a node that can be asked")
    diagnostics = stack.tap(topics.DIAGNOSTICS)
    stack.wait_for(lambda: diagnostics.messages, "diagnostics")
    asked = stack.node.get_clock().now().nanoseconds
    assert not stack.transition("camera", Transition.TRANSITION_CONFIGURE)
    answered = stack.node.get_clock().now().nanoseconds

    def reasons() -> list[str]:
        found = zip(diagnostics.stamps, diagnostics.messages, strict=True)
        return [array.status[0].message for stamp, array in found if asked < stamp < answered]

    stack.wait_for(lambda: any("configure refused" in reason for reason in reasons()), "the reason", 5.0)


def test_a_check_shows_size_rate_and_what_the_encoder_sees(commands, encoder, tmp_path):
    """On a picture whose left half is red, flipped and cropped to the half that is then right."""
    writer = cv2.VideoWriter(str(tmp_path / "red.avi"), cv2.VideoWriter_fourcc(*"MJPG"), RATE_HZ, (64, 48))
    bgr = np.zeros((48, 64, 3), np.uint8)
    bgr[:, :32] = (0, 0, 255)
    for _ in range(FRAMES):
        writer.write(bgr)
    writer.release()
    options = ["--encoder", str(encoder), "--crop", "8", "0", "48", "48", "--flip", "horizontal"]
    commands.finish(commands.start("camera", "check", "red.avi", *options, "--out", "preview.png"))
    assert "size      64 x 48 pixels\n" in commands.said
    assert f", over {FRAMES} frames\n" in commands.said
    assert "tiny sees 32 x 32 pixels of it\n" in commands.said
    rate_hz = float(commands.said.partition("rate")[2].split()[0])
    assert RATE_HZ / 2 < rate_hz < RATE_HZ * 1.5
    rgb = cv2.imread(str(tmp_path / "preview.png"))[..., ::-1].astype(int)
    assert rgb.shape == (48, 64 + 8 + 48, 3)
    for column, red in ((5, 255), (60, 0), (72 + 5, 0), (72 + 42, 255)):
        np.testing.assert_allclose(rgb[24, column], [red, 0, 0], atol=12, err_msg=f"column {column}")


def test_a_check_of_no_source_says_what_to_do(commands):
    assert commands.start("camera", "check", "none.avi").wait(60.0) == 1
    assert "vjepa: no video file none.avi; see that the path is right" in commands.said


# Passwords of network cameras.

USER, PASSWORD, IN_PATH, TOKEN = "op3rator", "pass!w0rd", "path-w0rd", "t0ken-w0rd"
WORDS = [USER, PASSWORD, IN_PATH, TOKEN]
FORMS = {
    form.encode()
    for word in [*WORDS, f"{USER}:{PASSWORD}"]
    for form in (word, urllib.parse.quote(word, safe=""), base64.b64encode(word.encode()).decode().rstrip("="))
}
"""The secrets, plain, quoted as in an address, and as in a header of HTTP."""


class WebCamera(http.server.BaseHTTPRequestHandler):
    """A camera on the web: pictures one after the other (MJPEG), for whoever names user, password and token."""

    def do_GET(self) -> None:
        expected = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if self.headers["Authorization"] != expected:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="arm"')
            self.end_headers()
            return
        assert self.path == f"/user={USER}_password={IN_PATH}?token={TOKEN}"
        jpeg = cv2.imencode(".jpg", np.full((48, 64, 3), 80, np.uint8))[1].tobytes()
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=picture")
        self.end_headers()
        head = f"--picture\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n".encode()
        while not self.server.off.wait(1.0 / RATE_HZ):
            self.wfile.write(head + jpeg + b"\r\n")

    def log_message(self, *_) -> None:
        """Log nothing."""


def switched_on(port: int = 0) -> http.server.ThreadingHTTPServer:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), WebCamera)
    server.daemon_threads = True
    server.off = threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def switch_off(server: http.server.ThreadingHTTPServer) -> None:
    server.off.set()
    server.shutdown()
    server.server_close()


def address_of(port: int) -> str:
    return f"http://{USER}:{PASSWORD}@127.0.0.1:{port}/user={USER}_password={IN_PATH}?token={TOKEN}"


def secrets_in(data: bytes) -> set[bytes]:
    return {form for form in FORMS if form in data}


def recorded(folder: Path) -> tuple[bytes, bytes]:
    """All bytes of a bag's files, and those of its messages, which may be compressed in there."""
    files = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    with AnyReader([folder]) as reader:
        return files, b"".join(data for _, _, data in reader.messages())


@pytest.fixture
def guarded(start_stack, encoder, tmp_path, monkeypatch, capfd):
    """Return a function that starts a recording stack with a camera on the web, and one that returns all it left."""
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path / "log"))
    file = tmp_path / "parameters.yaml"
    nodes = {"vjepa_perception": {"clip_frames": 4, "grid": 2}, "camera": {"reconnect_s": 0.2}}
    file.write_text(yaml.safe_dump({name: {"ros__parameters": values} for name, values in nodes.items()}))
    options = {"source": "camera", "planner": "random", "encoder": str(encoder), "params_file": str(file)}
    options |= {"record": True, "bag_dir": str(tmp_path / "bags"), "log_level": "debug"}

    def start(port: int):
        return start_stack(camera=address_of(port), **options)

    def left(stack) -> dict[str, bytes]:
        """End the stack; return what it wrote and what of it anybody could see."""
        words = [sys.executable, "-P", "-m", "vjepa_cli.cli", "status", "--domain", str(stack.domain)]
        status = subprocess.run(words, capture_output=True, check=False)
        pids = stack.supervisor.pids().values()
        found = {
            "vjepa status": status.stdout + status.stderr,
            "command lines": b"".join(Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids),
            "parameter files": b"".join(path.read_bytes() for path in stack.supervisor._folder.iterdir()),
            "diagnostics": repr(stack.monitor.diagnostics).encode(),
        }
        stack.supervisor.stop()
        (bag,) = (tmp_path / "bags").iterdir()
        found["bag"], found["messages of the bag"] = recorded(bag)
        said = capfd.readouterr()
        found["output"] = (said.out + said.err).encode()
        found["logs of ROS"] = b"".join(path.read_bytes() for path in (tmp_path / "log").rglob("*") if path.is_file())
        return found

    return start, left


def test_a_camera_that_is_lost_leaves_none_of_its_secrets_anywhere(guarded):
    start, left = guarded
    server = switched_on()
    port = server.server_port
    stack = start(port)
    events = []
    stack.node.create_subscription(ParameterEvent, "/parameter_events", events.append, 100)
    stack.wait_for(lambda: stack.monitor.value("camera", "frames") > 5, "frames")
    switch_off(server)
    stack.wait_for(
        lambda: "http://127.0.0.1 of env:VJEPA_CAMERA_SOURCE cannot be opened" in said(stack)[0], "the reason"
    )
    server = switched_on(port)
    stack.wait_for(lambda: stack.monitor.value("camera", "reconnects") == 1, "the camera")
    response = stack.call(GetParameters, "camera/get_parameters", GetParameters.Request(names=["source"]))
    assert [parameter_value_to_python(value) for value in response.values] == ["env:VJEPA_CAMERA_SOURCE"]
    switch_off(server)
    stack.wait_for(lambda: "http://127.0.0.1" in said(stack)[0], "a reason again")
    found = left(stack) | {"parameter events": repr(events).encode()}
    assert {what: secrets_in(data) for what, data in found.items() if secrets_in(data)} == {}
    for what in ("vjepa status", "messages of the bag", "diagnostics"):
        assert b"video stream http://127.0.0.1 of env:VJEPA_CAMERA_SOURCE" in found[what], f"{what} names the camera"
    assert all(found.values()), "each has been looked at"


def test_a_camera_that_is_not_there_leaves_none_of_its_secrets_anywhere(guarded):
    start, left = guarded
    server = switched_on()
    switch_off(server)
    stack = start(server.server_port)
    refusal = "configure refused: video stream http://127.0.0.1 of env:VJEPA_CAMERA_SOURCE cannot be opened"
    stack.wait_for(lambda: refusal in said(stack)[0], "the reason")
    found = left(stack)
    assert {what: secrets_in(data) for what, data in found.items() if secrets_in(data)} == {}
    assert refusal.encode() in found["output"]
