"""Read the heads of an Arrow stream's messages without decompressing any message.

Format: the Arrow IPC stream, https://arrow.apache.org/docs/format/Columnar.html, whose messages are flatbuffers.
`Message.fbs` states the order of the fields.
"""

import struct
from pathlib import Path

import pyarrow as pa

_HEADER, _COMPRESSION = 2, 3
"""Numbers of fields: the header of a `Message`, and the compression of a `RecordBatch`."""
RECORD_BATCH, SCHEMA = "record batch", "schema"


class FoldedError(Exception):
    """A stream with compressed buffers or dictionaries; this project writes neither."""


def check_unfolded(path: Path) -> None:
    """Refuse a stream with a compressed buffer, which could decompress to more than its size.

    The check ends at the first damage, which the readers of the stream find too.

    Raises:
        FoldedError: it has compressed buffers, or a message that is neither its schema nor a batch of rows.
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
    """Return the offset of a field of a flatbuffer's table, or 0 if the field is missing."""
    fields = table - struct.unpack_from("<i", message, table)[0]
    place = 4 + 2 * number
    if place >= struct.unpack_from("<H", message, fields)[0]:
        return 0
    offset = struct.unpack_from("<H", message, fields + place)[0]
    return table + offset if offset else 0
