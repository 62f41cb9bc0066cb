# Which packages are installed from where, by uv or by pip, every one against the hashes of its lock.
# Sourced by setup/steps.sh.
# shellcheck shell=bash

# The megabytes that locks download, from the table that requirements/lock.py makes.
megabytes() {
  local version
  version=$(version_of "$PYTHON")
  awk -v names=" $* " -v python="$version" \
    '$2 == python && index(names, " " $1 " ") { sum += $3 } END { print sum + 0 }' "$LOCKS/sizes.tsv"
}

# uv reads none of pip's configuration, so what it adds to where packages come from is handed on in uv's variables.
# They keep the names and passwords of addresses out of the log.
adopt_pip_sources() {
  local line key value
  local -A found=()
  while IFS= read -r line; do
    [[ $line =~ ^(global|install|:env:)\.([a-z-]+)=\'(.*)\'$ ]] || continue
    key=${BASH_REMATCH[2]} value=${BASH_REMATCH[3]//\\n/ }
    [[ $key == @(find-links|index-url|extra-index-url|trusted-host|cert|proxy) ]] && found[$key]=$value
  done < <("$PYTHON" -m pip config list 2>/dev/null)
  for key in find-links index-url extra-index-url trusted-host; do
    local variable=PIP_${key//-/_}
    variable=${variable^^}
    [[ -n ${found[$key]:-} || -z ${!variable:-} ]] || found[$key]=${!variable}
  done
  [[ -n ${found[find-links]:-} ]] && export UV_FIND_LINKS=${UV_FIND_LINKS:-$(spaced , "${found[find-links]}")}
  [[ -n ${found[index-url]:-} ]] && export UV_DEFAULT_INDEX=${UV_DEFAULT_INDEX:-${found[index-url]}}
  [[ -n ${found[extra-index-url]:-} ]] && export UV_INDEX=${UV_INDEX:-$(spaced ' ' "${found[extra-index-url]}")}
  [[ -n ${found[trusted-host]:-} ]] && export UV_INSECURE_HOST=${UV_INSECURE_HOST:-$(spaced ' ' "${found[trusted-host]}")}
  [[ -n ${found[cert]:-} ]] && export SSL_CERT_FILE=${SSL_CERT_FILE:-${found[cert]}}
  [[ -n ${found[proxy]:-} ]] && export HTTPS_PROXY=${HTTPS_PROXY:-${found[proxy]}} HTTP_PROXY=${HTTP_PROXY:-${found[proxy]}}
  # A package may lie in any of the places: the hashes tell whether it is the right one.
  export UV_INDEX_STRATEGY=${UV_INDEX_STRATEGY:-unsafe-best-match}
  unset 'found[cert]'
  line=''
  for key in "${!found[@]}"; do line+="${line:+, }$key $(masked "${found[$key]}")"; done
  [[ -z $line ]] || say "uv also takes what pip is configured with here: $line"
}

spaced() { # separator, words: the words with that separator in between
  local words
  read -ra words <<<"$2"
  local IFS=$1
  echo "${words[*]}"
}

# A home that cannot be written holds no cache; the state folder does.
place_cache() {
  [[ -n ${UV_CACHE_DIR:-} ]] && return
  mkdir -p "${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}/uv" 2>/dev/null && [[ -w ${XDG_CACHE_HOME:-$HOME/.cache}/uv ]] && return
  say 'your cache folder cannot be written; downloads are kept in .vjepa/cache'
  export UV_CACHE_DIR=$STATE/cache XDG_CACHE_HOME=$STATE/cache PIP_CACHE_DIR=$STATE/cache/pip
}

has_nvidia_gpu() { [[ -e /proc/driver/nvidia/version ]] || nvidia-smi -L >/dev/null 2>&1; }

# Sets TORCH_LOCKS, TORCH_OPTIONS and TORCH_FROM. The CPU build is no package of the registry: it comes from where pip is
# configured to look, or from PyTorch's own index, which uv knows by name. triton compiles for a GPU alone, and its LLVM
# and that of Mesa's software driver, which renders without a GPU, bring down a process that has both.
choose_torch() {
  local kind=${VJEPA_TORCH:-auto}
  TORCH_OPTIONS=() TORCH_LOCKS=(torch-cpu)
  case "$kind" in
    auto) if has_nvidia_gpu; then kind=cuda; fi ;;
    cpu | cuda) ;;
    *) die "VJEPA_TORCH is '$kind'; valid are: auto, cpu, cuda" ;;
  esac
  if [[ $kind == cuda ]]; then
    TORCH_LOCKS=(torch-cuda triton) TORCH_FROM='torch with CUDA'
    return
  fi
  TORCH_FROM="torch's CPU build, no NVIDIA GPU being here"
  if torch_is_there; then return; fi
  if [[ -n $UV ]] && UV_HTTP_RETRIES=0 torch_is_there --torch-backend=cpu; then
    TORCH_OPTIONS=(--torch-backend=cpu)
    return
  fi
  [[ $kind == auto ]] || failed "finding torch's CPU build"
  TORCH_LOCKS=(torch-cuda) TORCH_FROM="torch with CUDA: no place with torch's CPU build can be reached"
}

# Whether the CPU build can be had, without downloading it.
torch_is_there() {
  if [[ -n $UV ]]; then
    tried "$UV" pip install --dry-run --python "$VENV/bin/python" --no-deps --require-hashes \
      --only-binary :all: "$@" -r "$LOCKS/torch-cpu.lock"
  else
    tried "$VENV/bin/python" -m pip install --no-input --dry-run --no-deps --require-hashes --only-binary :all: \
      --disable-pip-version-check -r "$LOCKS/torch-cpu.lock"
  fi
}

# install_locks OPTIONS... -- LOCKS...: the one command that puts packages anywhere. A lock is whole, so what packages
# declare is not looked at. `empy` has no wheel; it is built by the setuptools of the lock `run`, installed before it.
# What is installed is compiled at once, as pip does: left to the first imports it is compiled by all nodes at the same
# time, and where PYTHONDONTWRITEBYTECODE is set by every process anew, which makes each of them start half as fast.
install_locks() {
  local options=() files=() name
  while [[ $1 != -- ]]; do options+=("$1") && shift; done
  shift
  for name in "$@"; do files+=(-r "$LOCKS/$name.lock"); done
  options+=(--no-deps --require-hashes --only-binary :all:)
  [[ " $* " != *" $WAY "* ]] || options+=(--no-binary empy --no-build-isolation)
  if [[ -n $UV ]]; then
    logged 'uv' env -u PYTHONPATH -u PYTHONHOME "$UV" pip install --no-progress --compile-bytecode \
      --python "$VENV/bin/python" "${options[@]}" "${files[@]}"
  else
    logged 'pip' env -u PYTHONPATH -u PYTHONHOME "$VENV/bin/python" -m pip install --no-input --progress-bar off \
      --disable-pip-version-check "${options[@]}" "${files[@]}"
  fi
}

# States what will be downloaded before it is, and stops where the disk cannot hold it.
announce() {
  local what=$1 size free
  shift
  size=$(megabytes "$@")
  free=$(free_megabytes "$VENV")
  # Unpacked, wheels take about four times their size.
  ((free > size * 4)) || die "the disk is full: $VENV needs about $((size * 4)) MB, and $free MB are free there." \
    "Free some space, or name another place: VJEPA_VENV=/some/where ./vjepa"
  step "$what: at most $size MB to download"
}

# Without a stamp an installation may have been cut short anywhere, so it begins anew rather than being patched up.
venv_stays() { venv_ready && [[ -e $VENV/.vjepa-requirements ]]; }

install_requirements() {
  local hash ways=()
  venv_stays || make_venv
  hash=$(requirements_hash)
  rm -f "$VENV"/.vjepa-{requirements,gl,torch,group-*}
  choose_torch
  announce 'installing the packages of every run' run
  install_locks -- run
  [[ $MODE == ros ]] || ways=("$WAY")
  announce "installing $TORCH_FROM${ways[*]:+, and ROS 2 ${ways[*]^}}" "${TORCH_LOCKS[@]}" "${ways[@]}"
  install_locks "${TORCH_OPTIONS[@]}" -- "${TORCH_LOCKS[@]}" "${ways[@]}"
  stamp "$VENV/.vjepa-torch" "${TORCH_LOCKS[0]#torch-}"
  stamp "$VENV/.vjepa-requirements" "$hash"
}

# What was cut short in a group is installed over what is there; the begun mark tells.
install_group() {
  local name=$1 mark again=()
  mark=$VENV/.vjepa-begun-$name
  if is_apart "$name"; then
    announce "installing $name beside the environment" "$name"
    rm -rf "${STATE:?}/$name"
    install_locks --target "$STATE/$name" -- "$name"
  else
    announce "installing the packages of the group '$name'" "$name"
    [[ ! -e $mark ]] || again=("$(if [[ -n $UV ]]; then echo --reinstall; else echo --force-reinstall; fi)")
    touch "$mark"
    install_locks "${again[@]}" -- "$name"
    rm -f "$mark"
  fi
  stamp "$(group_stamp "$name")" "$(group_hash "$name")"
}
