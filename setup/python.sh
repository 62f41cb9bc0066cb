# The Python that makes the virtual environment, and uv. Sourced by setup/steps.sh.
# shellcheck shell=bash

UV_MINIMUM=0.8.0
UV='' PYTHON=''

# Runs Debian's installer: as root at once, else by sudo once the user has agreed. False where that may not be.
apt_install() {
  local as_root=() answer
  command -v apt-get >/dev/null || return 1
  if [[ $(id -u) != 0 ]]; then
    [[ -t 0 && -t 2 ]] && command -v sudo >/dev/null || return 1
    read -r -p "vjepa: run this? sudo apt-get install -y $* [y/N] " answer
    [[ $answer == [yY]* ]] || return 1
    as_root=(sudo)
    sudo -v || return 1 # Asks for the password here, where it can be seen.
  fi
  say "installing Debian packages: $*"
  logged 'apt-get update' "${as_root[@]}" apt-get update
  logged 'apt-get install' "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y --no-install-recommends "$@"
}

version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

# Sets PYTHON to the first Python on PATH that can run the stack; else lets uv fetch one.
find_python() {
  local name version found=() names=(python3 python3.12 python3.13 python3.11 python3.14)
  [[ $MODE == ros ]] && names=(python3 python3.12 python3.13 python3.14)
  [[ -n ${VJEPA_PYTHON:-} ]] && names=("$VJEPA_PYTHON")
  for name in "${names[@]}"; do
    version=$(version_of "$name") || continue
    if [[ $version == 3.1[1-4] ]]; then
      PYTHON=$name
      return
    fi
    found+=("$name is $version")
  done
  found=("Python 3.11 to 3.14 is needed; found: $(printf '%s; ' "${found[@]:-none}")")
  if [[ $MODE == wheels && -z ${VJEPA_PYTHON:-} ]]; then
    PYTHON=python3
    [[ -n $UV ]] || get_uv || true
    if [[ -n $UV ]]; then
      say "${found[*]}uv fetches Python 3.12 (about 30 MB)"
      if tried "$UV" python install --no-progress 3.12 && PYTHON=$("$UV" python find 3.12 2>>"$LOG"); then return; fi
      found+=("and uv could not fetch one${TAIL:+: $(cause_of "$TAIL")}.")
    fi
  fi
  die "${found[*]}" "Run: $(python_command)" 'or use Docker: docker compose -f docker/compose.yaml up'
}

# The one command that brings a fitting Python to this machine.
python_command() {
  local name candidate
  for name in python3 python3.12 python3.13 python3.14 python3.11; do
    candidate=$(LC_ALL=C apt-cache policy "$name" 2>/dev/null | awk '$1 == "Candidate:" { print $2 }')
    [[ ${candidate#*:} =~ ^3\.1[1-4]([^0-9]|$) ]] || continue
    echo "sudo apt-get install -y $name $name-venv"
    return
  done
  echo "${UV:-uv} python install 3.12"
}

has_pip() { "$1" -m pip --version >/dev/null 2>&1; }

can_make_venv() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }

need_venv_module() {
  local package=python3-venv
  [[ $PYTHON == python3.* ]] && package=$PYTHON-venv
  can_make_venv "$PYTHON" && return
  apt_install "$package" && can_make_venv "$PYTHON" && return
  die "$PYTHON can make no virtual environment: its ensurepip module is missing, and there is neither uv nor pip." \
    "Run: sudo apt-get install -y $package"
}

# Sets UV to a new enough uv: the one on PATH, or the pinned one in the state folder. False where neither can be had.
get_uv() {
  local version own=$STATE/uv/bin/uv hash
  [[ ${VJEPA_INSTALLER:-uv} != pip ]] || return 1
  if version=$(uv --version 2>/dev/null | awk '{ print $2 }') && [[ -n $version ]]; then
    if [[ $(printf '%s\n' "$UV_MINIMUM" "$version" | sort -V | head -n 1) == "$UV_MINIMUM" ]]; then
      UV=$(command -v uv)
      return
    fi
    say "uv $version on PATH is too old ($UV_MINIMUM is needed), so a newer one is put into .vjepa"
  fi
  hash=$(sha256sum <"$LOCKS/installer.lock")
  if ! stamped "$STATE/uv/.vjepa-uv" "$hash" || ! "$own" --version >/dev/null 2>&1; then
    fetch_uv || return
    "$own" --version >>"$LOG" 2>&1 || return
    stamp "$STATE/uv/.vjepa-uv" "$hash"
  fi
  UV=$own
}

# PyPI's wheel of uv holds the program itself.
fetch_uv() {
  local pip=$PYTHON
  if ! has_pip "$pip"; then
    can_make_venv "$PYTHON" || need_venv_module
    logged 'making a place for pip' "$PYTHON" -m venv "$STATE/pip"
    pip=$STATE/pip/bin/python
  fi
  say "fetching uv ($(megabytes installer) MB)"
  rm -rf "$STATE/uv"
  tried env -u PYTHONPATH -u PYTHONHOME "$pip" -m pip install --no-input --quiet --disable-pip-version-check \
    --target "$STATE/uv" --no-deps --only-binary :all: --require-hashes -r "$LOCKS/installer.lock" && return
  # What also keeps pip from installing would only fail again, after a wait.
  [[ -z $(cause_of "$TAIL") ]] || failed 'fetching uv'
  return 1
}

make_venv() {
  if [[ -e $VENV && ! -e $VENV/.vjepa-venv && -n $(ls -A "$VENV" 2>/dev/null) ]]; then
    die "$VENV exists and was not made by this script, so it is left alone." \
      "Remove it, or name another place: VJEPA_VENV=/some/where ./vjepa"
  fi
  local options=()
  [[ $MODE == ros ]] && options=(--system-site-packages)
  [[ -n $UV ]] || need_venv_module
  step "making a virtual environment with Python $(version_of "$PYTHON") in $VENV"
  if ! { rm -rf "$VENV" && mkdir -p "$VENV" && touch "$VENV/.vjepa-venv"; } 2>>"$LOG"; then cannot_write "$VENV"; fi
  if [[ -n $UV ]]; then
    logged 'making the virtual environment' "$UV" venv --allow-existing --python "$(command -v "$PYTHON")" "${options[@]}" "$VENV"
  else
    logged 'making the virtual environment' "$PYTHON" -m venv "${options[@]}" "$VENV"
  fi
  touch "$VENV/COLCON_IGNORE"
  echo '*' >"$VENV/.gitignore"
  stamp "$VENV/.vjepa-venv" "$(venv_identity)"
}
