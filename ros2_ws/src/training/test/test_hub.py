"""A push puts on the Hub what others can read, and says in a line why it did not.

The Hub is a server here that speaks the part of its protocol that an upload needs; huggingface_hub is the real one.
"""

import base64
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import huggingface_hub
import numpy as np
import pytest
import yaml
from huggingface_hub.errors import HFValidationError

from vjepa_interfaces.errors import VjepaError
from vjepa_training.data.dataset import INFO_FILE, Dataset, DatasetInfo, EpisodeWriter, finish_dataset
from vjepa_training.data.hub import PushConfig, push_dataset, write_hub_files

INFO = DatasetInfo(
    joint_names=("shoulder", "wrist"),
    effort_limit=(0.05, 0.05),
    control_period_ns=20_000_000,
    latent_shape=(3, 4),
    encoder={"fingerprint": "abc", "model": "tiny"},
    task="reacher-easy",
    sources=(
        {"command": "vjepa collect", "policy": "mix", "seed": 7, "episodes": 2},
        {"command": "vjepa dataset build", "recorded_with": {"planners": "expert", "seed": 3}},
    ),
)


class FakeHub:
    """Repositories by name, each a dictionary of file contents by path; `refuse` is a status for every request."""

    def __init__(self):
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.created: list[dict] = []
        self.tags: dict[str, dict[str, str]] = {}
        self.commits = 0
        self.refuse = 0
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_POST(self):
                self._answer(*hub.post(urlsplit(self.path).path, self._body()))

            def do_GET(self):
                self._answer(*hub.get(urlsplit(self.path).path))

            def do_DELETE(self):
                self._answer(*hub.delete(urlsplit(self.path).path))

            def _body(self) -> bytes:
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))

            def _answer(self, status: int, content, code: str = "") -> None:
                data = json.dumps(content).encode()
                self.send_response(hub.refuse or status)
                if code:
                    self.send_header("X-Error-Code", code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def post(self, path: str, body: bytes) -> tuple:
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            url = f"{self.address}/datasets/{name}"
            if name in self.repositories:
                return 409, {"error": "You already created this dataset repo", "url": url}
            self.created.append(asked)
            self.repositories[name] = {".gitattributes": b""}
            return 200, {"url": url, "name": name, "id": name}
        _, _, _, owner, repo, action, *rest = path.split("/")
        name = f"{owner}/{repo}"
        if action == "preupload":
            paths = [file["path"] for file in json.loads(body)["files"]]
            return 200, {"files": [{"path": p, "uploadMode": "regular", "shouldIgnore": False} for p in paths]}
        if action == "tag":
            assert re.fullmatch("[0-9a-f]{40}", rest[0]), "of the commit that was made"
            self.tags.setdefault(name, {})[json.loads(body)["tag"]] = rest[0]
            return 200, {}
        if action == "branch":
            self.repositories[f"{name}@{rest[0]}"] = dict(self.repositories[name])
            return 200, {}
        assert action == "commit"
        self.commits += 1
        commit = f"{self.commits:040x}"
        files = self.repositories[name if rest == ["main"] else f"{name}@{rest[0]}"]
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        return 200, {"commitUrl": f"{self.address}/datasets/{name}/commit/{commit}", "commitOid": commit}

    def get(self, path: str) -> tuple:
        if not path.startswith("/api/datasets/"):
            return 404, {"error": f"{path} is not of this Hub"}
        _, _, _, owner, repo, *rest = path.split("/")
        files = self.repositories[f"{owner}/{repo}"]
        if rest[:1] == ["tree"]:
            return 200, [{"type": "file", "path": p, "size": len(c), "oid": "0" * 40} for p, c in files.items()]
        return 200, {"id": f"{owner}/{repo}", "sha": "0" * 40, "siblings": [{"rfilename": p} for p in files]}

    def delete(self, path: str) -> tuple:
        _, _, _, owner, repo, _, tag = path.split("/")
        if tag not in self.tags.get(f"{owner}/{repo}", {}):
            return 404, {"error": "no such tag"}, "RevisionNotFound"
        del self.tags[f"{owner}/{repo}"][tag]
        return 200, {}

    def download(self, name: str, folder: Path) -> Path:
        for path, content in self.repositories[name].items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        return folder


@pytest.fixture
def hub(monkeypatch, tmp_path) -> Iterator[FakeHub]:
    from huggingface_hub import constants

    hub = FakeHub()
    monkeypatch.setattr(constants, "ENDPOINT", hub.address)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield hub
    hub.server.shutdown()
    hub.server.server_close()


@pytest.fixture
def dataset(tmp_path) -> Dataset:
    with EpisodeWriter(tmp_path / "ds", INFO) as writer:
        for number, length in enumerate((4, 2, 7)):
            rng = np.random.default_rng(number)
            rows = {n: rng.normal(size=(length, *shape)).astype(kind) for n, (kind, shape) in INFO.columns().items()}
            rows["stamp_ns"] = np.arange(length) * INFO.control_period_ns
            rows["has_next"] = np.arange(length) < length - 1
            del rows["episode_index"]
            writer.add(number, rows)
    return finish_dataset(tmp_path / "ds", INFO)


def card_of(folder: Path) -> tuple[dict, str]:
    _, front, text = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(front), text


def test_what_is_pushed_is_what_load_dataset_reads(tmp_path, hub, dataset, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr("vjepa_training.data.hub.SHARD_BYTES", 1000)
    assert push_dataset(dataset, PushConfig("me/arm", private=True)) == f"{hub.address}/datasets/me/arm/tree/{1:040x}"
    assert [(asked["type"], asked.get("private"), asked.get("visibility")) for asked in hub.created] in (
        [("dataset", True, None)],
        [("dataset", None, "private")],
    )
    repository = hub.download("me/arm", tmp_path / "repository")
    assert len(list((repository / "data").iterdir())) == 3
    assert json.loads((repository / INFO_FILE).read_text()) == json.loads((dataset.folder / INFO_FILE).read_text())
    theirs = datasets.load_dataset(str(repository), split="train", cache_dir=str(tmp_path / "cache"))
    assert theirs.num_rows == len(dataset)
    table = theirs.with_format("arrow")[:]
    for name, (kind, shape) in INFO.columns().items():
        values = np.array(table[name].to_pylist(), kind).reshape(-1, *shape)
        np.testing.assert_array_equal(values, np.asarray(dataset[name]), name)
    assert not list(dataset.folder.glob(".push-*"))


def test_a_dataset_of_format_version_1_is_pushed_as_the_present_version(tmp_path, dataset, as_version_1):
    old = as_version_1(dataset, tmp_path / "old")
    for kind, description in (("native", INFO_FILE), ("lerobot", "meta/vjepa.json")):
        write_hub_files(old, tmp_path / kind, PushConfig("me/arm", format=kind))
        written = json.loads((tmp_path / kind / description).read_text())
        assert (written["format_version"], written["effort_limit"]) == (2, [0.05, 0.05])
        assert "in [-1, 1]" in card_of(tmp_path / kind)[1]


def test_a_lerobot_push_has_the_tag_by_which_lerobot_finds_it(tmp_path, hub, dataset):
    push_dataset(dataset, PushConfig("me/arm", format="lerobot"))
    push_dataset(dataset, PushConfig("me/arm", format="lerobot", update=True))
    assert hub.tags == {"me/arm": {"v3.0": f"{2:040x}"}}, "the tag is on the commit of the second push"
    write_hub_files(dataset, tmp_path / "dry", PushConfig("me/arm", format="lerobot"))
    dry = {str(path.relative_to(tmp_path / "dry")) for path in (tmp_path / "dry").rglob("*") if path.is_file()}
    assert hub.repositories["me/arm"].keys() - {".gitattributes"} == dry


def test_a_repository_that_exists_is_replaced_only_when_asked_to(hub, dataset, monkeypatch):
    push_dataset(dataset, PushConfig("me/arm", format="lerobot"))
    before = dict(hub.repositories["me/arm"])
    with pytest.raises(VjepaError, match=r"the repository 'me/arm' exists; choose another name, or .* --update"):
        push_dataset(dataset, PushConfig("me/arm"))
    assert hub.repositories["me/arm"] == before
    push_dataset(dataset, PushConfig("me/arm", update=True))
    assert set(hub.repositories["me/arm"]) == {
        ".gitattributes",
        "README.md",
        INFO_FILE,
        "data/train-00000-of-00001.parquet",
    }


@pytest.mark.parametrize("kind", ["native", "lerobot"])
def test_a_branch_is_made_and_pushed_to_and_the_card_loads_from_it(tmp_path, hub, dataset, kind):
    address = push_dataset(dataset, PushConfig("me/arm@two-cameras", format=kind))
    assert address == f"{hub.address}/datasets/me/arm/tree/{1:040x}"
    assert set(hub.repositories["me/arm"]) == {".gitattributes"}, "the main branch is as it was"
    assert hub.tags.get("me/arm", {}) == ({"v3.0": f"{1:040x}"} if kind == "lerobot" else {})
    _, text = card_of(hub.download("me/arm@two-cameras", tmp_path / "repository"))
    loader = 'load_dataset("me/arm", split="train"' if kind == "native" else 'LeRobotDataset("me/arm"'
    assert f'{loader}, revision="two-cameras")' in text


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "does not know this token; run: hf auth login"),
        (403, "may not write to repositories of 'me'"),
        (400, "the Hugging Face Hub refused 'me/arm'"),
    ],
)
def test_a_push_that_the_hub_refuses_says_what_to_do(hub, dataset, status, message):
    hub.refuse = status
    with pytest.raises(VjepaError, match=message):
        push_dataset(dataset, PushConfig("me/arm"))
    assert not list(dataset.folder.glob(".push-*"))


def test_without_a_network_the_push_says_so(hub, dataset, monkeypatch):
    hub.server.shutdown()
    hub.server.server_close()
    with pytest.raises(VjepaError, match=r"at http://127.0.0.1:\d+ cannot be reached: .*--dry-run"):
        push_dataset(dataset, PushConfig("me/arm"))


def test_nobody_pushes_without_a_token(hub, dataset, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(VjepaError, match="nobody is logged in to the Hugging Face Hub; run: hf auth login"):
        push_dataset(dataset, PushConfig("me/arm"))
    assert hub.created == []


@pytest.mark.parametrize("repo", ["arm", "me/my/arm", "/arm", "me/"])
def test_a_name_without_an_owner_is_refused(repo):
    with pytest.raises(VjepaError, match=f"'{repo}' is not a repository; expected owner/name"):
        PushConfig(repo)


def test_an_empty_branch_is_refused():
    with pytest.raises(VjepaError, match="'me/arm@' has no branch behind the @; expected owner/name@BRANCH"):
        PushConfig("me/arm@")


@pytest.mark.parametrize("name", ["a--b", "a..b", "a b", "-a", "a.", "ärm", "a.git", "a" * 97, "a:b", "a\n"])
def test_a_name_that_the_hub_cannot_have_is_refused_before_anything_is_written(name):
    with pytest.raises(HFValidationError):
        huggingface_hub.utils.validate_repo_id(f"me/{name}")
    with pytest.raises(VjepaError, match="is not a name that the Hub allows"):
        PushConfig(f"me/{name}")


@pytest.mark.parametrize("name", ["a", "A_b-c.d", "a" * 96, "_a", "0"])
def test_a_name_that_the_hub_takes_is_taken(name):
    huggingface_hub.utils.validate_repo_id(f"me/{name}")
    assert PushConfig(f"me/{name}@a--b").name == f"me/{name}"


@pytest.mark.parametrize("kind", ["native", "lerobot"])
def test_the_card_says_what_the_data_are_and_what_made_them(tmp_path, dataset, kind):
    write_hub_files(dataset, tmp_path / "out", PushConfig("me/arm", format=kind, license="cc-by-4.0"))
    front, text = card_of(tmp_path / "out")
    assert front["license"] == "cc-by-4.0"
    assert front["task_categories"] == ["robotics"]
    assert ("LeRobot" in front["tags"]) == (kind == "lerobot")
    for path in (file["path"] for file in front["configs"][0]["data_files"]):
        assert list((tmp_path / "out").glob(path))
    for phrase in ("reacher-easy", "shoulder, wrist; 0.05 N·m", "20 ms", "tiny, fingerprint `abc`"):
        assert phrase in text
    steps = {"native": 13, "lerobot": 10}  # Three episodes, whose last rows have no action.
    assert f"{steps[kind]} control steps in 3 episodes" in text
    assert "| `vjepa collect` | mix | 7 to 8 | 2 |" in text
    assert "| `vjepa dataset build` | expert | 3 | not known |" in text
    if kind == "native":
        columns, loader = INFO.columns(), 'load_dataset("me/arm", split="train")'
    else:
        columns = json.loads((tmp_path / "out/meta/info.json").read_text())["features"]
        loader = 'LeRobotDataset("me/arm")'
    for name in columns:
        assert f"| `{name}` |" in text
    assert loader in text


def test_a_license_is_nobodys_but_the_owners_to_state(tmp_path, dataset):
    write_hub_files(dataset, tmp_path / "out", PushConfig("me/arm"))
    assert card_of(tmp_path / "out")[0]["license"] == "unknown"


def test_every_column_that_a_dataset_can_have_is_explained():
    from vjepa_training.data.dataset_card import MEANINGS

    assert replace(INFO, image_shape=(5, 6, 3)).columns().keys() <= MEANINGS.keys()


def test_what_would_be_pushed_is_not_written_over_something(tmp_path, dataset):
    for kind in ("native", "lerobot"):
        with pytest.raises(VjepaError, match="exists already; choose another folder"):
            write_hub_files(dataset, tmp_path, PushConfig("me/arm", format=kind))
