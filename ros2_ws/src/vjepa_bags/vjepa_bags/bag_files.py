"""Find and open the files of a rosbag2 bag of any recorder, and compare them with its metadata.yaml."""

import re
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from vjepa_bags.bag_counts import compare, message_type
from vjepa_bags.bag_limits import ADVICE, Allowance, BagLimitError, check_entries, require_file
from vjepa_bags.bag_source import FOLDED, BagError, Source, open_source
from vjepa_bags.sqlite_reader import LOG
from vjepa_interfaces.yaml_file import YamlDuplicateError, YamlLimitError, read_yaml

METADATA_FILE = "metadata.yaml"
SUFFIXES = (".mcap", ".db3")
FILE_MODE, MESSAGE_MODE = "file", "message"


class BagFiles(NamedTuple):
    """The opened files of a bag, and the bytes that all of them together may decompress to."""

    sources: list[Source]
    allowance: Allowance


def open_files(path: Path, faults: Counter[str]) -> BagFiles:
    """Open the readable part of each file of a bag.

    Args:
        path: a rosbag2 folder, or an `.mcap` or `.db3` file.
        faults: counter of faults of the bag, in words; increased.

    Raises:
        BagError: there is no bag, it decompresses to more than its size allows, or a link leads out of its folder.
    """
    if not path.exists():
        raise BagError(f"no bag at '{path}'; expected a rosbag2 folder, or an .mcap or .db3 file")
    try:
        if path.is_dir():
            return _open_folder(path, faults)
        if path.suffix not in SUFFIXES:
            raise BagError(f"'{path}' is not a rosbag2 bag: unknown suffix '{path.suffix}'; expected .mcap or .db3")
        require_file(path)
        allowance = Allowance.of(path, _size(path))
        return BagFiles([open_source(path, allowance, faults)], allowance)
    except BagLimitError as error:
        raise BagError(str(error)) from error
    except OSError as error:
        raise BagError(f"'{path}' cannot be read: {error.strerror}") from error


def custom_data(path: Path) -> dict[str, str]:
    """Return the `custom_data` of a bag's metadata, which its recorder wrote, as far as it is readable.

    Raises:
        BagError: metadata.yaml stands for more values than a bound allows, or is not a file.
    """
    found = _read_metadata(path, Counter()).get("custom_data")
    return {str(key): _text(value) for key, value in found.items()} if isinstance(found, dict) else {}


def _text(value: Any) -> str:
    """Return a value of YAML as the text that rosbag2, whose custom data is all text, would write."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _read_metadata(path: Path, faults: Counter[str]) -> dict[str, Any]:
    """Return the content of `metadata.yaml` in a bag's folder; {} and a fault if it is unreadable."""
    file = path / METADATA_FILE
    if not file.exists():
        faults["no metadata.yaml: its recorder was killed"] += 1
        return {}
    why = ""
    try:
        require_file(file, folders=True)
        found = read_yaml(file, "metadata", BagError, aliases=True)["rosbag2_bagfile_information"]
        if isinstance(found, dict) and found:
            return found
    except BagLimitError as error:
        raise BagError(str(error)) from error
    except BagError as error:
        if isinstance(error.__cause__, YamlLimitError):
            raise
        if isinstance(error.__cause__, YamlDuplicateError):
            why = f" ({error.__cause__})"
    except (KeyError, TypeError, IndexError):
        pass
    faults[f"metadata.yaml cannot be read{why}: the files are read without it"] += 1
    return {}


def file_order(file: Path) -> tuple[int, str]:
    """Return a key that sorts `name_2.mcap` before `name_10.mcap`."""
    number = re.search(r"_(\d+)$", file.name.partition(".")[0])
    return int(number[1]) if number else -1, file.name


def _open_folder(path: Path, faults: Counter[str]) -> BagFiles:
    check_entries(path)
    metadata = _read_metadata(path, faults)
    files = _files_of(path, metadata, faults)
    if not files:
        raise BagError(f"'{path}' is not a rosbag2 bag: it has no .mcap or .db3 file")
    mode = str(metadata.get("compression_mode") or "").lower()
    compression = str(metadata.get("compression_format") or "")
    if mode in (FILE_MODE, MESSAGE_MODE) and compression != "zstd":
        raise BagError(f"'{path}' has messages compressed by '{compression:.50}'; expected zstd; {ADVICE}")
    sizes = [_size(file) for file in files]
    allowances = [Allowance.of(file, size, sum(sizes)) for file, size in zip(files, sizes, strict=True)]
    sources = [open_source(allowance.path, allowance, faults) for allowance in allowances]
    _compare_with_metadata(metadata, sources, faults)
    return BagFiles(sources, Allowance.of(path, sum(sizes)))


def _files_of(path: Path, metadata: dict[str, Any], faults: Counter[str]) -> list[Path]:
    """Return the files that the metadata of a bag lists, and further splits beside them; without a list, all files.

    The function counts every file by name that is missing, not listed or not read.
    """
    there = {file.name: file for file in sorted(filter(_is_of_a_bag, path.iterdir()), key=file_order)}
    for file in sorted(path.iterdir()):
        if file.name not in there and _looks_like_a_bag(file.name) and not _is_beside(file.name, there):
            faults[f"file '{file.name}' was not read: expected a name that ends with .mcap, .db3 or {FOLDED}"] += 1
    found, names = {}, metadata.get("relative_file_paths")
    for name in map(str, names if isinstance(names, list) else ()):
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise BagError(f"{path / METADATA_FILE} names the file '{name}'; expected files in the bag's own folder")
        name = Path(name).name  # In the oldest bags each name begins with the name of the folder.
        other = name.removesuffix(FOLDED) if name.endswith(FOLDED) else name + FOLDED
        if name not in there and other in there:
            faults[f"no file '{name}', which metadata.yaml lists: '{other}' was read in its place"] += 1
            name = other
        if name in there:
            found[name] = there[name]
        else:
            faults[f"no file '{name}', which metadata.yaml lists"] += 1
    listed, splits = bool(found), {_split_of(name) for name in found}
    for name in sorted(there.keys() - found.keys(), key=lambda name: (FOLDED in name, file_order(there[name]))):
        prefix, number = split = _split_of(name)
        if split in splits:
            same = next(other for other in found if _split_of(other) == split)
            faults[f"file '{name}' was not read: '{same}' has the same name"] += 1
        elif not listed or (number and any(prefix == other for other, _ in splits)):
            if isinstance(names, list):
                faults[f"file '{name}' is not listed in metadata.yaml; it was read"] += 1
            found[name] = there[name]
            splits.add(split)
        else:
            faults[f"file '{name}' was not read: metadata.yaml does not list it, and it is no further split"] += 1
    return sorted(found.values(), key=file_order)


def _split_of(name: str) -> tuple[str, str]:
    """Return the name before the number of a split file, and the number: `("name", "2")` of `name_2.mcap.zstd`."""
    stem = name.removesuffix(FOLDED).rpartition(".")[0]
    found = re.fullmatch(r"(.*)_(\d+)", stem)
    return (found[1], found[2]) if found else (stem, "")


def _compare_with_metadata(metadata: dict[str, Any], sources: list[Source], faults: Counter[str]) -> None:
    """Count the differences between the topics in metadata.yaml and the topics in the files."""
    stated, types = _stated_topics(metadata)
    found: Counter[str] = Counter()
    in_file = _stated_files(metadata)
    for source in sources:
        own = Counter({topic: counts.total() for topic, counts in source.topics().items()})
        found.update(own)
        name = source.path.name.removesuffix(FOLDED)
        if name in in_file and own.total() != in_file[name]:
            what = f"{own.total()} messages in file '{name}', {in_file[name]} stated by {METADATA_FILE}"
            faults[what] += abs(own.total() - in_file[name])
    total = metadata.get("message_count")
    if type(total) is int and total not in (found.total(), sum(stated.values())):
        faults[f"{found.total()} messages in the files, {total} in all stated by {METADATA_FILE}"] += 1
    if not stated:
        return
    for source in sources:
        for topic, counts in source.topics().items():
            for kind in +counts:
                if kind not in types.get(topic, [kind]):
                    stated_types = " and ".join(types[topic])
                    what = f"metadata.yaml states type {stated_types} of topic {topic}; its file {kind}, which counts"
                    faults[what] += 1
    for topic in sorted({*stated, *found}):
        compare(topic, found[topic], stated.get(topic, 0), METADATA_FILE, faults)


def _stated_topics(metadata: dict[str, Any]) -> tuple[dict[str, int], dict[str, list[str]]]:
    """Return the number of messages and the types of each topic according to metadata.yaml."""
    entries = metadata.get("topics_with_message_count")
    counts: dict[str, int] = {}
    types: dict[str, list[str]] = {}
    for entry in entries if isinstance(entries, list) else ():
        about = entry.get("topic_metadata") if isinstance(entry, dict) else None
        count = entry.get("message_count") if isinstance(entry, dict) else None
        if isinstance(about, dict) and isinstance(about.get("name"), str) and type(count) is int:
            counts[about["name"]] = counts.get(about["name"], 0) + count
            if isinstance(about.get("type"), str):
                types.setdefault(about["name"], []).append(message_type(about["type"]))
    return counts, types


def _stated_files(metadata: dict[str, Any]) -> dict[str, int]:
    """Return the number of messages of each file according to metadata.yaml, by its uncompressed name."""
    entries = metadata.get("files")
    found = {}
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict) and isinstance(entry.get("path"), str) and type(entry.get("message_count")) is int:
            found[Path(entry["path"]).name.removesuffix(FOLDED)] = entry["message_count"]
    return found


def _size(file: Path) -> int:
    """Return the size of a file in bytes, with the log that a killed recorder left beside a database."""
    log = file.with_name(file.name + LOG)
    return file.stat().st_size + (log.stat().st_size if log.is_file() else 0)


def _looks_like_a_bag(name: str) -> bool:
    return re.search(r"\.(mcap|db3)", name, re.IGNORECASE) is not None


def _is_beside(name: str, there: dict[str, Path]) -> bool:
    """Return whether a file is one that SQLite keeps beside an open database of the bag."""
    return any(name == f"{database}{ending}" for database in there for ending in (LOG, "-shm", "-journal"))


def _is_of_a_bag(file: Path) -> bool:
    suffix = Path(file.name.removesuffix(FOLDED)).suffix
    return suffix in SUFFIXES and file.is_file()
