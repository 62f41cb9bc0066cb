"""Finding checkpoints: folders, the hub's cache, and everything that may be wrong with them."""

import json
import re
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.models.vjepa2.configuration_vjepa2 import VJEPA2Config
from transformers.models.vjepa2.modeling_vjepa2 import VJEPA2Model

from vjepa_perception.checkpoint import CheckpointError, find_checkpoint
from vjepa_perception.encoder import EncoderConfig, load_encoder

HUB_ID = "someone/vjepa2-tiny"
REVISION = "0123456789abcdef0123456789abcdef01234567"
OLDER = "fedcba9876543210fedcba9876543210fedcba98"


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "tiny"
    sizes = {"hidden_size": 24, "num_attention_heads": 2, "num_hidden_layers": 1, "crop_size": 32, "patch_size": 8}
    predictor = {"pred_hidden_size": 24, "pred_num_attention_heads": 2, "pred_num_hidden_layers": 1}
    VJEPA2Model(VJEPA2Config(**sizes, **predictor)).save_pretrained(path)
    (path / "video_preprocessor_config.json").write_text(json.dumps({"crop_size": 32}))
    return path


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "tiny"))


def load(encoder):
    return load_encoder(EncoderConfig(str(encoder), device="cpu"))


@pytest.fixture
def hub_cache(tmp_path, monkeypatch) -> Path:
    """An empty hub cache, with no network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def cache(hub_cache: Path, saved: Path) -> Path:
    """Lay a checkpoint into the cache as the hub's client does, and return the snapshot's folder."""
    repository = hub_cache / "models--someone--vjepa2-tiny"
    shutil.copytree(saved, repository / "snapshots" / REVISION)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(REVISION)
    return repository / "snapshots" / REVISION


def test_a_cached_hub_checkpoint_loads_with_no_network(hub_cache, saved):
    cache(hub_cache, saved)
    encoder = load(HUB_ID)
    assert encoder.name == f"{HUB_ID}@{REVISION}", "with the commit, though none was asked for"
    assert encoder.info()["model"] == encoder.name
    assert encoder.fingerprint == load(saved).fingerprint


def test_a_revision_of_a_cached_hub_checkpoint_loads_and_is_in_its_name(hub_cache, saved):
    folder = cache(hub_cache, saved)
    named = f"someone/vjepa2-tiny@{REVISION}"
    found = find_checkpoint(named)
    assert (found.path, found.name) == (folder, named)


def test_a_revision_that_cannot_be_had_is_named_and_no_other_is_taken(hub_cache, saved):
    cache(hub_cache, saved)
    with pytest.raises(CheckpointError, match=r"'someone/vjepa2-tiny@v2'.*--revision v2"):
        find_checkpoint("someone/vjepa2-tiny@v2")


def test_a_whole_cached_checkpoint_is_not_asked_for_again(hub_cache, saved, monkeypatch):
    cache(hub_cache, saved)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    assert find_checkpoint(HUB_ID).name == f"{HUB_ID}@{REVISION}"


def test_a_hub_checkpoint_that_is_not_cached_is_downloaded_without_pickles(saved, monkeypatch):
    calls = []

    def snapshot_download(repo_id, allow_patterns, revision, local_files_only=False):
        assert revision is None
        calls.append((repo_id, local_files_only))
        if local_files_only:
            raise huggingface_hub.errors.LocalEntryNotFoundError("not cached")
        assert not any(pattern in ("*", "*.bin", "*.pt") for pattern in allow_patterns)
        return str(saved)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert find_checkpoint(HUB_ID).path == saved
    assert calls == [(HUB_ID, True), (HUB_ID, False)]


class FakeHub:
    """A server that speaks the part of the Hub's protocol that a download needs, for one model repository.

    `commits` are folders by commit, `names` the commits of branches and tags; `asked` is every path that was asked for.
    """

    def __init__(self, commits: dict[str, Path], names: dict[str, str]):
        self.commits, self.names = commits, names
        self.asked: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_HEAD(self):
                self.do_GET()

            def do_GET(self):
                hub.asked.append(self.path)
                status, headers, body = hub.answer(self.path.partition("?")[0])
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body: what is in a revision, or one of its files."""
        is_file = path.startswith(f"/{HUB_ID}/resolve/")
        if not is_file and not path.startswith(f"/api/models/{HUB_ID}"):
            return 401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}, b""
        about, _, rest = (
            path.removeprefix("/api/models/")
            .removeprefix(f"/{HUB_ID}/")
            .removeprefix(HUB_ID)
            .lstrip("/")
            .partition("/")
        )
        revision, _, name = rest.partition("/")
        commit = self.names.get(revision or "main", revision)
        if commit not in self.commits:
            message = f"Invalid rev id: {revision}"
            return 404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": message}, b""
        folder = self.commits[commit]
        if is_file:
            body = (folder / name).read_bytes()
            return 200, {"ETag": f'"{commit[:8]}-{name}"', "X-Repo-Commit": commit}, body
        if about == "tree":
            files = [{"type": "file", "path": f.name, "size": f.stat().st_size, "oid": "0"} for f in folder.iterdir()]
            return 200, {"Content-Type": "application/json"}, json.dumps(files).encode()
        return 200, {"Content-Type": "application/json"}, json.dumps({"id": HUB_ID, "sha": commit}).encode()


@pytest.fixture
def hub(hub_cache, saved, tmp_path, monkeypatch) -> Iterator[FakeHub]:
    """Two commits of one checkpoint, which differ in their weights: the older one is the tag `v1`, the newer `main`."""
    older = Path(shutil.copytree(saved, tmp_path / "older"))
    tensors = load_file(older / "model.safetensors")
    tensors["encoder.layernorm.bias"] += 1.0
    save_file(tensors, older / "model.safetensors", {"format": "pt"})
    hub = FakeHub({REVISION: saved, OLDER: older}, {"main": REVISION, "v1": OLDER})
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.address)
    files = f"{hub.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield hub
    hub.server.shutdown()
    hub.server.server_close()


@pytest.mark.parametrize("revision", ["v1", "fedcba9876543210fedcba9876543210fedcba98"])
def test_the_revision_that_is_asked_for_is_downloaded_and_its_commit_is_known_of_what_it_makes(hub, saved, revision):
    encoder = load(f"{HUB_ID}@{revision}")
    assert encoder.info()["model"] == f"{HUB_ID}@{OLDER}"
    assert encoder.fingerprint != load(saved).fingerprint
    newest = load(HUB_ID)
    assert newest.info()["model"] == f"{HUB_ID}@{REVISION}"
    assert newest.fingerprint == load(saved).fingerprint
    hub.asked.clear()
    assert load(encoder.name).fingerprint == encoder.fingerprint, "the name alone finds the same weights again"
    assert hub.asked == []


def test_a_revision_that_is_not_there_is_named_and_no_other_one_is_taken(hub, saved, hub_cache):
    cache(hub_cache, saved)
    with pytest.raises(
        CheckpointError, match=r"the hub's 'someone/vjepa2-tiny' has no revision 'v9'; expected a commit, a tag or a"
    ):
        load(f"{HUB_ID}@v9")


def test_a_hub_checkpoint_that_cannot_be_had_tells_the_ways_to_get_it(hub_cache):
    with pytest.raises(CheckpointError, match=r"hf download someone/vjepa2-tiny --local-dir .*HF_HOME.*HF_HUB_OFFLINE"):
        load(HUB_ID)


def test_a_download_that_was_broken_off_is_told_where_it_cannot_go_on(hub_cache, saved):
    (cache(hub_cache, saved) / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"lacks model\.safetensors; copy or download the whole checkpoint"):
        load(HUB_ID)


@pytest.mark.parametrize("encoder", ["", "/no/such/folder", "./nothing", "one-name", "a/b/c", "a/b@", "a@v1"])
def test_what_is_neither_a_folder_nor_a_hub_id_is_refused(encoder):
    with pytest.raises(CheckpointError, match=r"expected a folder .* or a hub id such as facebook/"):
        find_checkpoint(encoder)


def test_a_folder_may_be_given_from_the_home_directory(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert find_checkpoint("~/tiny").path == folder


def test_another_model_is_refused(folder):
    (folder / "config.json").write_text(json.dumps({"model_type": "vit_mae"}))
    with pytest.raises(CheckpointError, match="model_type 'vit_mae'; expected 'vjepa2'"):
        load(folder)


@pytest.mark.parametrize(
    ("text", "match"), [("{", "not readable JSON"), ("[]", "holds a list"), (None, "has no config")]
)
def test_an_unreadable_config_is_refused(folder, text, match):
    (folder / "config.json").unlink()
    if text is not None:
        (folder / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=match):
        load(folder)


def test_a_checkpoint_without_preprocessing_is_refused(folder):
    (folder / "video_preprocessor_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"no preprocessing: expected one of processor_config\.json") as refusal:
        load(folder)
    ready = re.search(r"write into (\S+): (\{.*\})$", str(refusal.value))
    Path(ready[1]).write_text(ready[2])
    assert load(folder).shape[1] > 0, "the file of the message will do"


@pytest.mark.parametrize("size", [0, 5, 1000, -100])
def test_a_truncated_weights_file_is_refused(folder, size):
    file = folder / "model.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[:size])
    with pytest.raises(CheckpointError, match=r"model\.safetensors \(\d+ bytes\) is truncated or corrupt"):
        load(folder)


def test_a_pointer_in_place_of_the_weights_is_refused(folder):
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(CheckpointError, match=r"model\.safetensors \(\d+ bytes\) is truncated or corrupt"):
        load(folder)


def test_pickled_weights_are_never_loaded(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin .* never loaded: convert them.*save_pretrained"):
        load(folder)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"num_hidden_layers": 2}, r"16 missing \['layer\.1\.attention\.key\.bias'"),
        ({"num_hidden_layers": 0}, "'num_hidden_layers' is 0; expected at least 1 and at most 1000"),
        ({"hidden_size": 48}, r"has shape \(24,\) and type torch\.float32; the configuration expects \(48,\)"),
    ],
)
def test_weights_of_another_configuration_are_refused(folder, fields, match):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | fields))
    with pytest.raises(CheckpointError, match=match):
        load(folder)


@pytest.mark.parametrize("wrapper", ["module.", "backbone.", "_orig_mod.", "module._orig_mod.", "model.student."])
@pytest.mark.parametrize("inner", ["", "encoder."])
def test_wrapped_weights_are_refused_with_the_prefix_found(folder, wrapper, inner):
    tensors = load_file(folder / "model.safetensors")
    named = {
        wrapper + inner + key.removeprefix("encoder."): t for key, t in tensors.items() if key.startswith("encoder.")
    }
    save_file(named, folder / "model.safetensors")
    with pytest.raises(
        CheckpointError, match=f"are wrapped: the encoder's names begin with '{wrapper}{inner}', and 'enc"
    ):
        load(folder)


def test_weights_of_no_encoder_are_refused_with_what_they_are(folder):
    save_file({"vision.block": torch.zeros(2)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"no tensor's name begins with .*; the files have \['vision.block'\]"):
        load(folder)


@pytest.mark.parametrize("extra", ["encoder.norms_block.0.weight", "encoder.embeddings.video_mod_embed"])
def test_weights_of_v_jepa_2_1_are_refused_as_such(folder, extra):
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {extra: torch.zeros(24)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=f"are those of V-JEPA 2.1, .* have {extra.removeprefix('encoder.')}"):
        load(folder)


def test_weights_that_the_configuration_does_not_ask_for_are_refused(folder):
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {"encoder.register": torch.zeros(24)}, folder / "model.safetensors")
    with pytest.raises(
        CheckpointError, match=r"0 missing .*1 unknown \['register'\]; they are of another architecture"
    ):
        load(folder)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"hiden_size": 48}, r"config.json has unknown fields hiden_size \(is hidden_size meant\?\)"),
        ({"modality_embedding": True, "registers": 4}, "unknown fields modality_embedding, registers; .*V-JEPA 2.1"),
        ({"use_SiLU": True}, "unknown fields use_SiLU"),
    ],
)
def test_unknown_fields_of_a_checkpoint_are_refused_as_those_of_a_bundle(folder, fields, match):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | fields))
    with pytest.raises(CheckpointError, match=match):
        load(folder)


def test_fields_of_published_checkpoints_that_have_no_effect_are_read_over(folder):
    expected = load(folder).fingerprint
    config = json.loads((folder / "config.json").read_text())
    fields = {
        "image_size": 32,
        "hidden_dropout_prob": 0.0,
        "use_SiLU": False,
        "wide_SiLU": True,
        "torch_dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config | fields | {"_name_or_path": "x", "id2label": {"0": "a"}}))
    assert load(folder).fingerprint == expected


def test_integer_weights_are_refused(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["encoder.layernorm.bias"] = tensors["encoder.layernorm.bias"].to(torch.int8)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"type torch\.int8; the configuration expects \(24,\) in floating point"):
        load(folder)


@pytest.mark.parametrize(
    ("index", "match"),
    [
        ({"weight_map": {"encoder.a": "../elsewhere.safetensors"}}, "expected file names in the same folder"),
        ({"weight_map": {"encoder.a": "model-1.safetensors"}}, r"lacks model-1\.safetensors"),
        ({}, "no 'weight_map'"),
    ],
)
def test_an_index_of_shards_that_are_not_there_is_refused(folder, index, match):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=match):
        load(folder)
