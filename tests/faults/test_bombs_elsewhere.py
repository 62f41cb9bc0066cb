"""Bombs inside the formats that are no bags: rows and pictures that hold far more than their size."""

import struct
import zlib
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.image_codec import compressed_to_rgb
from vjepa_training.data.dataset import DatasetError, DatasetInfo, EpisodeWriter, _open_batches, arrow_schema

pytestmark = pytest.mark.faults


def zeros(kind: pa.DataType, rows: int) -> pa.Array:
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(zeros(kind.value_type, rows * kind.list_size), kind.list_size)
    return pa.array(np.zeros(rows, kind.to_pandas_dtype()))


@pytest.fixture
def dataset_info() -> DatasetInfo:
    return DatasetInfo(
        ("a", "b"), (0.05, 0.05), 20_000_000, (3, 4), (4, 4, 3), {"fingerprint": "abc"}, "reacher-easy", ({},)
    )


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_rows_that_are_compressed_are_refused_before_they_are_unfolded(codec, dataset_info, tmp_path):
    schema, file = arrow_schema(dataset_info), tmp_path / "rows.arrow"
    rows = 60_000
    columns = [zeros(field.type, rows) for field in schema]
    batch = pa.RecordBatch.from_arrays(columns, schema=schema)
    with pa.ipc.new_stream(str(file), schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as stream:
        stream.write_batch(batch)
    assert file.stat().st_size < batch.nbytes / 50
    with pytest.raises(DatasetError, match="its rows are compressed"):
        _open_batches(file, schema)
    (tmp_path / ".parts").mkdir()
    with pa.ipc.new_stream(str(file), schema) as stream:
        stream.write_batch(batch.slice(0, 5))
    assert len(_open_batches(file, schema)) == 1


def test_a_part_that_somebody_compressed_is_refused_and_left_as_it_is(dataset_info, tmp_path):
    with EpisodeWriter(tmp_path, dataset_info) as writer:
        rows = {name: np.zeros((5, *shape), kind) for name, (kind, shape) in dataset_info.columns().items()}
        del rows["episode_index"]
        writer.add(0, rows)
    (part,) = tmp_path.rglob("*.arrow")
    with pa.ipc.open_stream(str(part)) as stream:
        batches, schema = list(stream), stream.schema
    with pa.ipc.new_stream(str(part), schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as stream:
        for batch in batches:
            stream.write_batch(batch)
    before = part.read_bytes()
    with pytest.raises(DatasetError, match="its rows are compressed"):
        EpisodeWriter(tmp_path, dataset_info)
    assert part.read_bytes() == before


def png(width: int, height: int) -> bytes:
    def piece(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = b"\0" + bytes(width * 3)
    folded = zlib.compress(row * min(height, 100))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + piece(b"IHDR", head) + piece(b"IDAT", folded) + piece(b"IEND", b"")


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_a_picture_that_states_more_pixels_than_any_camera_has_is_refused(kind):
    import cv2

    data = png(30_000, 30_000)
    if kind == "jpeg":
        whole = bytearray(cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1].tobytes())
        frame = whole.index(b"\xff\xc0")
        whole[frame + 5 : frame + 9] = struct.pack(">HH", 30_000, 30_000)
        data = bytes(whole)
    with pytest.raises(VjepaError, match="states 30000 x 30000 pixels; expected at most"):
        compressed_to_rgb(SimpleNamespace(format=kind, data=np.frombuffer(data, np.uint8)))


def test_pictures_of_every_header_that_encoders_write_are_read():
    import cv2

    rgb = np.full((24, 40, 3), 100, np.uint8)
    for suffix, options in ((".png", []), (".jpg", []), (".jpg", [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])):
        data = cv2.imencode(suffix, rgb, options)[1]
        assert compressed_to_rgb(SimpleNamespace(format=suffix[1:], data=data)).shape == rgb.shape
