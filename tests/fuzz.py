"""Coverage-guided fuzzing of what reads files, by atheris: `make fuzz`, or `make fuzz ARGS="bag -runs=1000"`.

Each loader of tests/faults/test_hostile_files.py is given one file changed in ever new ways, those that reach new code
first. Anything but a `VjepaError` ends the run and leaves the file that did it in `.vjepa/fuzz/`, where the next run
begins with it.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ATHERIS = ROOT / ".vjepa" / "atheris"
FOUND = ROOT / ".vjepa" / "fuzz"
INSTRUMENTED = ["vjepa_interfaces", "vjepa_perception", "vjepa_planner", "vjepa_bags", "vjepa_training", "rosbags"]
SECONDS = 60
LIMITS = ["-timeout=20", "-rss_limit_mb=4096", "-detect_leaks=0", "-print_final_stats=1", "-verbosity=1"]
"""Seconds that one file may take, and memory of the process, torch's share included."""


def fuzz(name: str, found: Path, options: list[str]) -> None:
    """Fuzz one loader in this process, which then ends: exit status 0 where nothing was found.

    Args:
        name: of the loader.
        found: folder of the files that reached new code, and of those that failed.
        options: of libFuzzer.
    """
    sys.path.append(str(ATHERIS))
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED), tempfile.TemporaryDirectory() as folder:
        from tests.faults.test_hostile_files import LOADERS
        from vjepa_interfaces.errors import VjepaError

        loader, path = LOADERS[name], Path(folder) / "bag"
        loader.make(path)
        file = path / loader.file
        sound = file.read_bytes()
        loader.load(path)  # Its imports are instrumented too.

        def once(data: bytes) -> None:
            file.write_bytes(data)
            try:
                loader.load(path)
            except VjepaError as error:
                if len(str(error)) < 20:
                    raise ValueError(f"refused without saying much: '{error}'") from error

        for kind in ("corpus", "failures"):
            (found / kind).mkdir(parents=True, exist_ok=True)
        (found / "corpus" / "sound").write_bytes(sound)
        limits = [*LIMITS, f"-max_len={2 * len(sound)}", f"-artifact_prefix={found}/failures/"]
        atheris.Setup([sys.argv[0], *limits, *options, f"{found}/corpus", f"{found}/failures"], once)
        atheris.Fuzz()


def main() -> int:
    """Fuzz the loaders whose names contain a text, one after the other, each in a process of its own."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=main.__doc__)
    parser.add_argument("name", nargs="?", default="", help="part of a loader's name (default: every one)")
    parser.add_argument("--out", type=Path, default=FOUND, help="folder of the files found (default %(default)s)")
    parser.add_argument("--exactly", action="store_true", help=argparse.SUPPRESS)
    arguments, options = parser.parse_known_args()
    if arguments.exactly:
        fuzz(arguments.name, arguments.out / arguments.name.replace(" ", "-").replace("'", ""), options)
    from tests.faults.test_hostile_files import LOADERS

    names = [name for name in LOADERS if arguments.name in name]
    if not names:
        parser.error(f"no loader has '{arguments.name}' in its name; there are: {'; '.join(LOADERS)}")
    failed = []
    for name in names:
        print(f"# {name}", flush=True)
        limit = [] if options else [f"-max_total_time={SECONDS}"]
        command = [sys.executable, "-m", "tests.fuzz", name, "--exactly", "--out", str(arguments.out), *limit, *options]
        if subprocess.run(command, cwd=ROOT, check=False).returncode:
            failed.append(name)
    print(f"fuzzed {len(names)} loaders; failed: {', '.join(failed) or 'none'}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
