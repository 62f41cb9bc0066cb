"""A copy of `./vjepa` whose Python, pip, uv, colcon, apt and sudo are stand-ins, for the tests of the set-up.

Every stand-in writes its arguments to one file of calls; nothing is downloaded or built. A flag, an empty file, makes a
stand-in fail, hang or kill.
"""

import os
import pty
import re
import shutil
import subprocess
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# What happens in the middle of an installation, by pip or by uv.
INSTALLING = r"""
    [[ ! -e $FAKES/slow || $* != *run.lock ]] || sleep 1.2
    [[ ! -e $FAKES/kill_setup ]] || kill -KILL $PPID
    while [[ -e $FAKES/hold_install ]]; do sleep 0.02; done
    [[ ! -e $FAKES/failure ]] || { cat "$FAKES/failure"; exit 1; }
"""
# Plays the system's Python and, copied into the virtual environment, the one there.
PYTHON = rf"""#!/bin/bash
echo "python $*" >>"$CALLS"
case "$*" in
  '-c import sys; print('*) [[ -n $FAKE_VERSION ]] && echo "$FAKE_VERSION" ;;
  '-c import ensurepip, venv') [[ ! -e $FAKES/no_ensurepip ]] ;;
  '-m venv '*)
    mkdir -p "${{!#}}/bin" "${{!#}}/lib/python$FAKE_VERSION/site-packages/ros_rcl.libs"
    cp "$0" "${{!#}}/bin/python" ;;
  '-m pip --version') [[ ! -e $FAKES/no_pip || $0 == */pip/bin/python ]] ;;
  '-m pip config list') [[ ! -e $FAKES/pip_config ]] || cat "$FAKES/pip_config" ;;
  '-m pip install '*' --dry-run '*) [[ ! -e $FAKES/no_cpu_torch ]] ;;
  '-m pip install '*installer.lock)
    [[ ! -e $FAKES/failure ]] || {{ cat "$FAKES/failure"; exit 1; }}
    [[ ! -e $FAKES/no_uv ]] || {{ echo 'ERROR: No matching distribution found for uv'; exit 1; }}
    mkdir -p "$STATE/uv/bin"
    cp "$FAKES/uv" "$STATE/uv/bin/uv" ;;
  '-m pip install '*) {INSTALLING} ;;
  *mujoco.GLContext*)
    [[ ! -e $FAKES/gl_setting ]] || {{ cat "$FAKES/gl_setting"; exit 3; }}
    [[ ! -e $FAKES/no_gl ]] ;;
  '-m colcon build '*)
    [[ ! -e install/unfit ]] || exit 1
    mkdir -p install/vjepa_cli/lib/vjepa_cli
    touch install/vjepa_cli/lib/vjepa_cli/vjepa
    echo 'export AMENT_PREFIX_PATH=/workspace/prefix PYTHONPATH=/workspace/python' >install/local_setup.bash ;;
  '-c import rclpy'*) [[ ! -e $FAKES/no_ros_packages ]] ;;
  '-P -m vjepa_cli.cli'*) shift 3; printf 'command line: %s\n' "$*" ;;
esac
"""
UV = rf"""#!/bin/bash
[[ $* == --version ]] && echo "uv ${{FAKE_UV:-0.13.9}} (stand-in)" && exit
echo "uv $*" >>"$CALLS"
[[ -z $UV_FIND_LINKS$UV_DEFAULT_INDEX$UV_INDEX ]] || echo "from $UV_FIND_LINKS|$UV_DEFAULT_INDEX|$UV_INDEX" >>"$CALLS"
case "$*" in
  'venv '*)
    mkdir -p "${{!#}}/bin" "${{!#}}/lib/python$FAKE_VERSION/site-packages/ros_rcl.libs"
    cp "$FAKES/python" "${{!#}}/bin/python" ;;
  'python install '*) [[ -e $FAKES/python_to_fetch ]] || {{ echo 'cause: dns error'; exit 1; }} ;;
  'python find '*) echo "$FAKES/python_to_fetch" ;;
  'pip install '*--torch-backend=cpu*) [[ ! -e $FAKES/no_torch_index ]] || {{ echo 'cause: dns error'; exit 1; }} ;;
  'pip install '*'--dry-run '*) [[ ! -e $FAKES/no_cpu_torch ]] ;;
  'pip install '*) {INSTALLING}
    [[ ! $* =~ --target\ ([^ ]+) ]] || mkdir -p "${{BASH_REMATCH[1]}}" ;;
esac
"""
APT = r"""#!/bin/bash
echo "apt-get $*" >>"$CALLS"
[[ $1 != install ]] || rm -f "$FAKES/no_gl" "$FAKES/no_ensurepip"
"""
SUDO = r"""#!/bin/bash
echo "sudo $*" >>"$CALLS"
[[ $1 != -v ]] || exit 0
exec "$@"
"""
GPU = "#!/bin/bash\necho 'GPU 0: stand-in'\n"


class Checkout:
    """A copy of the script in a small checkout, and the stand-ins that it finds on its PATH."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "checkout"
        self.fakes = folder / "fakes"
        self.bin = folder / "bin"
        self.home = folder / "home"
        self.calls_file = folder / "calls"
        package = self.root / "ros2_ws" / "src" / "vjepa_cli"
        for path in (self.fakes, self.bin, self.home, package / "vjepa_cli/commands", package / "launch"):
            path.mkdir(parents=True)
        shutil.copy(ROOT / "vjepa", self.root)
        for name in ("setup", "requirements"):
            shutil.copytree(ROOT / name, self.root / name)
        for name in ("package.xml", "setup.py", "setup.cfg", "vjepa_cli/cli.py", "vjepa_cli/commands/__init__.py"):
            (package / name).write_text("")
        self.package = package
        for name in ("python3", "python3.11", "python3.12", "python3.13", "python3.14"):
            self.stand_in(name, PYTHON)
        self.stand_in("python", PYTHON, self.fakes)
        self.stand_in("uv", UV, self.fakes)
        self.stand_in("apt-get", APT)
        self.stand_in("apt-cache", "#!/bin/bash\n")
        self.stand_in("sudo", SUDO)
        self.stand_in("uname", '#!/bin/bash\necho "Linux x86_64"\n')
        self.stand_in("nvidia-smi", "#!/bin/bash\nexit 1\n")
        self.be_user(root=False)
        self.environment = {
            "PATH": f"{self.bin}:/usr/bin:/bin",
            "HOME": str(self.home),
            "CALLS": str(self.calls_file),
            "FAKES": str(self.fakes),
            "FAKE_VERSION": "3.11",
        }

    def stand_in(self, name: str, text: str, folder: Path | None = None) -> None:
        path = (folder or self.bin) / name
        path.write_text(text)
        path.chmod(0o755)

    def be_user(self, *, root: bool) -> None:
        self.stand_in("id", f"#!/bin/bash\necho {0 if root else 1000}\n")

    def has_uv(self) -> None:
        """Put uv on the PATH."""
        self.stand_in("uv", UV)

    def set(self, flag: str, content: str = "") -> None:
        (self.fakes / flag).write_text(content)

    def clear(self, flag: str) -> None:
        (self.fakes / flag).unlink()

    def start(self, *arguments: str, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, **environment: str):
        return subprocess.Popen(
            [self.root / "vjepa", *arguments],
            cwd=self.root,
            env=self.environment | {"STATE": str(self.root / ".vjepa")} | environment,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        process = self.start(*arguments, **environment)
        out, err = process.communicate(timeout=30)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def run_on_a_terminal(self, answer: str, *arguments: str) -> tuple[int, str]:
        """Return the status and what a user saw who typed `answer`."""
        controller, terminal = pty.openpty()
        process = self.start(*arguments, stdin=terminal, stderr=terminal)
        os.close(terminal)
        shown: list[bytes] = []

        def read() -> None:
            try:
                while chunk := os.read(controller, 4096):
                    shown.append(chunk)
            except OSError:
                pass  # The terminal ends with the last process that has it.

        reader = threading.Thread(target=read)
        reader.start()
        os.write(controller, f"{answer}\n".encode())
        process.communicate(timeout=30)
        reader.join(timeout=30)
        os.close(controller)
        return process.returncode, b"".join(shown).decode()

    def calls(self) -> str:
        return self.calls_file.read_text() if self.calls_file.exists() else ""

    def steps(self) -> list[str]:
        """The costly steps since the last look, in order; an installation by the names of its locks."""
        found = []
        for line in self.calls().splitlines():
            locks = re.findall(r"/([\w-]+)\.lock", line)
            if "--dry-run" in line:
                continue
            if locks:
                found.append(" ".join(locks))
            for key, name in {
                "python -m venv": "venv",
                "uv venv": "venv",
                "-m colcon": "colcon",
                "apt-get install": "apt",
            }.items():
                if line.startswith(key) or (key == "-m colcon" and key in line):
                    found.append(name)
        self.calls_file.write_text("")
        return found
