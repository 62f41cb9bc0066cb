"""What an Arrow stream's messages state of themselves, read without unfolding any of them.

Format: the Arrow IPC stream, https://arrow.apache.org/docs/format/Columnar.html, whose messages are flatbuffers:
`Message.fbs` has the order of fields that is used here.
"""

import struct
from pathlib import Path

import pyarrow as pa

_HEADER, _COMPRESSION = 2, 3
"""Numbers of fields: the header of a `Message`, and the compression of a `RecordBatch`."""
RECORD_BATCH, SCHEMA = "record batch", "schema"


class FoldedError(Exception):
    """A stream with compressed buffers or dictionaries, of which neither is written by this project."""


def check_unfolded(path: Path) -> None:
    """Refuse a stream that could unfold to more than its size: all its buffers must lie in the file as they are.

    Where a stream is damaged its readers find out; messages up to there are checked.

    Raises:
        FoldedError: it has compressed buffers, or another message than its schema and batches of rows.
    """
    try:
        with pa.memory_map(str(path)) as source:
            reader = pa.ipc.MessageReader.open_stream(source)
            while True:
                message = reader.read_next_message()
                if message.type not in (SCHEMA, RECORD_BATCH):
                    raise FoldedError(f"it has a {message.type}; expected rows alone")
                if message.type == RECORD_BATCH and _is_compressed(message.metadata.to_pybytes()):
                    raise FoldedError("its rows are compressed; expected them as they are, to be mapped into memory")
    except (StopIteration, pa.ArrowException, OSError, struct.error):
        return


def _is_compressed(message: bytes) -> bool:
    root = struct.unpack_from("<I", message)[0]
    header = _field(message, root, _HEADER)
    if not header:
        return False
    batch = header + struct.unpack_from("<I", message, header)[0]
    return bool(_field(message, batch, _COMPRESSION))


def _field(message: bytes, table: int, number: int) -> int:
    """Return the offset of a field of a flatbuffer's table, 0 where it is not there."""
    fields = table - struct.unpack_from("<i", message, table)[0]
    place = 4 + 2 * number
    if place >= struct.unpack_from("<H", message, fields)[0]:
        return 0
    offset = struct.unpack_from("<H", message, fields + place)[0]
    return table + offset if offset else 0
