"""The label of a `sensor_msgs/CompressedImage`, its field `format`: which samples the file in the message contains.

`compressed_image_transport` writes `ENCODING; CODEC compressed TARGET`. ENCODING is that of the raw topic. TARGET is
`bgr8` or `bgr16` if the picture was converted to colours before it was encoded. It is empty if the raw samples were
encoded unchanged: grey values, or the mosaic of a Bayer pattern. Other publishers write only the codec.

Source: compressed_publisher.cpp and compressed_subscriber.cpp of ros-perception/image_transport_plugins.
"""

import re

from vjepa_interfaces.errors import VjepaError

_COLOUR = re.compile(r"(rgb|bgr)a?(8|16)")
_TARGET = re.compile(r"bgra?(8|16)")
_MONO = re.compile(r"mono(8|16)")
_BAYER = re.compile(r"bayer_[rgb]{4}(8|16)")
_GENERIC = re.compile(r"(8|16|32|64)[USF]C\d*")
"""Encodings with OpenCV's names, which do not define their channels."""

_BY_CHANNELS = {1: "mono", 3: "bgr", 4: "bgra"}


class ImageCodecError(VjepaError):
    """An image that cannot be read: its encoding, its size or its bytes are wrong."""


class ImageLabelError(ImageCodecError):
    """A compressed image whose label does not define the colours of its picture. The message has no image's bytes."""


def raw_encoding(label: str) -> str | None:
    """Return the encoding of the raw topic from a label, or None if the label has only the codec.

    Raises:
        ImageLabelError: the label is that of a depth image or of a mosaic, and does not define how it was encoded.
    """
    encoding, separator, _ = (part.strip() for part in label.partition(";"))
    if "compresseddepth" in label.lower() or "rvl" in label.lower().split():
        raise ImageLabelError(f"compressed image has the label '{label}', a depth image's; expected a colour image")
    if separator:
        return encoding
    if _BAYER.fullmatch(encoding) or _GENERIC.fullmatch(encoding):
        raise ImageLabelError(
            f"compressed image has the label '{label}', which states no codec, so its colours are not known; "
            f"expected 'jpeg', 'png' or '{encoding}; png compressed '"
        )
    return None


def decoded_encoding(label: str, channels: int, bits: int) -> str:
    """Return the encoding of decoded samples, as for a raw image, for a label with a raw encoding.

    Args:
        label: `ENCODING; CODEC compressed TARGET`.
        channels: number of channels of the decoded samples, blue first as OpenCV returns them.
        bits: bits of each decoded sample, 8 or 16.

    Raises:
        ImageLabelError: label and samples contradict each other, or programs disagree on the meaning of the label.
    """
    encoding, _, rest = (part.strip() for part in label.partition(";"))
    _, _, target = (part.strip() for part in rest.partition("compressed"))
    found = f"{_BY_CHANNELS.get(channels, f'{channels}-channel ')}{bits}"

    def refuse(reason: str) -> ImageLabelError:
        return ImageLabelError(
            f"compressed image has the label '{label}' and decodes to {found}: {reason}; "
            f"publish it with 'ENCODING; CODEC compressed bgr8' and a colour picture, or read the raw topic"
        )

    if channels not in _BY_CHANNELS:
        raise refuse("a picture has 1, 3 or 4 channels")
    if target and (stated := _TARGET.fullmatch(target)):
        if int(stated[1]) != bits:
            raise refuse(f"its samples are not of {stated[1]} bits")
        if channels == 1 and not _COLOUR.fullmatch(encoding):
            raise refuse("it has no colours, though it was to be converted to them")
        return found
    grey = _MONO.fullmatch(encoding) or _BAYER.fullmatch(encoding)
    if grey and target in ("", encoding):
        if channels != 1:
            raise refuse("it has colours, though the raw topic's samples have one channel")
        if int(grey[1]) != bits:
            raise refuse(f"samples of {grey[1]} bits were cut to {bits}")
        return encoding
    if channels == 1 and _COLOUR.fullmatch(encoding) and not target:
        return found
    raise refuse(
        "without 'bgr8' or 'bgr16' behind 'compressed', some programs take the picture's red for blue and others do not"
    )
