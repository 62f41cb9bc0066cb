# The steps of the set-up, in their order. Sourced by ./vjepa when something is not set up.
# shellcheck shell=bash disable=SC1091

source "$ROOT/setup/messages.sh"
source "$ROOT/setup/python.sh"
source "$ROOT/setup/packages.sh"

GL_PACKAGES=(libegl1 libgl1 libgl1-mesa-dri)

set_up() {
  if ! { mkdir -p "$STATE" && touch "$LOG"; } 2>/dev/null; then cannot_write "$STATE"; fi
  trap 'die "set-up interrupted; the next start takes it up again"' INT TERM HUP
  # Two checkouts may have one environment, so the folder that it lies in is locked as well.
  mkdir -p "${VENV%/*}" 2>/dev/null || cannot_write "${VENV%/*}"
  exec {lock}>"$STATE/setup.lock" {venv_lock}<"${VENV%/*}"
  wait_for "$lock"
  wait_for "$venv_lock"
  if ! is_set_up && ! leave_to_its_user; then
    [[ ${ROS_DISTRO:-jazzy} == jazzy ]] || say "ROS 2 ${ROS_DISTRO^} is sourced; the stack was tested on $TESTED_ON"
    take_steps
    say "set up; details are in $LOG"
  fi
  exec {lock}>&- {venv_lock}<&-
  trap - INT TERM HUP
}

# A build or another set of packages under nodes that run would give those that restart another program than the rest:
# the set-up waits until what runs has ended, and what is asked for meanwhile goes on with what is there.
leave_to_its_user() {
  local user
  ! requirements_ready || ! build_ready || return
  user=$(running) || return
  if [[ ! -x $VENV/bin/python || ! -e $WORKSPACE/install/.vjepa-environment ]] || ! groups_ready; then
    die "$user runs from here, and what it runs on would have to be set up anew." 'End it first.'
  fi
  say "$user runs from here, so what has changed is set up by the first ./vjepa after its end"
}

# Prints what runs of this checkout, a stack or a training; the status is 1 where nothing does.
running() {
  local file words
  for file in /proc/[0-9]*/cmdline; do
    { mapfile -d '' -t words <"$file"; } 2>/dev/null || continue
    [[ ${words[0]-} == "$VENV/bin/python" ]] || continue
    case "${words[*]:1}" in
      '-P -m vjepa_cli.cli '*) printf 'vjepa %s (process %s)' "${words[*]:4}" "${file//[!0-9]/}" && return ;;
      "$WORKSPACE"/install/*) printf '%s (process %s)' "${words[1]##*/}" "${file//[!0-9]/}" && return ;;
    esac
  done
  return 1
}

wait_for() {
  flock --nonblock "$1" && return
  say 'another ./vjepa is setting up; waiting for it'
  flock "$1"
}

take_steps() {
  local name missing=()
  [[ $MODE == ros ]] && check_ros_packages
  count_steps
  if ! requirements_ready || ! groups_ready; then
    find_installer
    requirements_ready || install_requirements
    for name in "${GROUPS_NEEDED[@]}"; do group_ready "$name" || missing+=("$name"); done
    for name in "${missing[@]}"; do install_group "$name"; done
  fi
  gl_ready || check_gl
  build_ready || build_workspace
}

# Every step prints its number and how many there are; what a step makes, the ones behind it make anew.
count_steps() {
  local name
  STEPS=0
  if ! requirements_ready; then
    STEPS=$((3 + ${#GROUPS_NEEDED[@]}))
    if ! venv_stays; then ((STEPS += 2)); else build_ready || ((++STEPS)); fi
    return
  fi
  for name in "${GROUPS_NEEDED[@]}"; do group_ready "$name" || ((++STEPS)); done
  gl_ready || ((++STEPS))
  build_ready || ((++STEPS))
}

find_installer() {
  place_cache
  if venv_stays; then PYTHON=$VENV/bin/python; else find_python; fi
  if [[ -n $UV ]] || get_uv; then
    adopt_pip_sources
  else
    say 'uv cannot be had here, so pip installs: that takes several times as long'
  fi
}

# rosdep knows every ROS package that ros2_ws declares; the message saves a traceback in the first node that starts.
check_ros_packages() {
  python3 -c 'import rclpy, launch_ros, sensor_msgs, cv2, numpy' 2>>"$LOG" || die \
    'ROS packages that the stack needs are missing.' \
    "Run: rosdep update && rosdep install --from-paths $WORKSPACE/src --ignore-src -y"
}

# Leaves the reason in GL_REASON; the status is 3 where a variable asks for what is not there, so no package would help.
gl_works() {
  local status
  GL_REASON=$(env PYTHONPATH="$WORKSPACE/src/sim_bridge:$WORKSPACE/src/vjepa_interfaces" "$VENV/bin/python" -P -c '
import sys
from sim_bridge.gl import GLSettingError, choose_gl_backend
try:
    choose_gl_backend()
    import mujoco
    mujoco.GLContext(8, 8).free()
except GLSettingError as error:
    print(error)
    sys.exit(3)
except Exception as error:
    print(f"{type(error).__name__}: {error}")
    sys.exit(1)' 2>>"$LOG")
  status=$?
  printf '%s\n' "$GL_REASON" >>"$LOG"
  return "$status"
}

check_gl() {
  local without='For training or a real camera alone, go on without: MUJOCO_GL=disabled ./vjepa'
  step 'looking whether MuJoCo can render'
  gl_works
  local status=$?
  ((status != 3)) || die "MuJoCo cannot render: $GL_REASON" "$without"
  if ((status)); then
    apt_install "${GL_PACKAGES[@]}" ||
      die 'MuJoCo cannot render: OpenGL libraries are missing.' "Run: sudo apt-get install -y ${GL_PACKAGES[*]}" "$without"
    gl_works ||
      die "MuJoCo cannot render although ${GL_PACKAGES[*]} are installed: ${GL_REASON:-see $LOG}" "$without"
  fi
  stamp "$VENV/.vjepa-gl" "${MUJOCO_GL:-chosen}"
}

# The executables must start the Python that runs colcon, hence the environment's own and not a `colcon` from PATH.
build_workspace() {
  local hash
  if [[ $MODE == ros ]]; then
    "$VENV/bin/python" -c 'import colcon_core' 2>/dev/null || apt_install python3-colcon-common-extensions ||
      die 'colcon is missing.' 'Run: sudo apt-get install -y python3-colcon-common-extensions'
  fi
  step 'building ros2_ws with colcon'
  hash=$(build_hash)
  rm -f "$WORKSPACE/install/.vjepa-build"
  # colcon cannot build over links into a checkout that has moved, nor always over a build of another kind.
  if [[ -e $WORKSPACE/install ]] && ! colcon_build >>"$LOG" 2>&1 </dev/null; then
    say 'the earlier build does not fit; building anew'
    rm -rf "${WORKSPACE:?}"/{build,install}
  fi
  [[ -e $WORKSPACE/install ]] || logged 'colcon build' colcon_build
  logged 'reading the workspace environment' record_environment
  stamp "$WORKSPACE/install/.vjepa-build" "$hash"
}

colcon_build() {
  env -C "$WORKSPACE" AMENT_PREFIX_PATH="$VENV${AMENT_PREFIX_PATH:+:$AMENT_PREFIX_PATH}" \
    "$VENV/bin/python" -m colcon build --symlink-install --base-paths src
}

# Sourcing colcon's set-up takes a second at every start, so what it adds to a clean environment is kept.
record_environment() {
  # shellcheck disable=SC2016
  env -i PATH=/usr/bin:/bin bash --noprofile --norc -e -c '
    source "$1/local_setup.bash"
    printf "WORKSPACE_PREFIXES=%q\nWORKSPACE_PYTHONPATH=%q\n" "$AMENT_PREFIX_PATH" "$PYTHONPATH"
  ' _ "$WORKSPACE/install" >"$WORKSPACE/install/.vjepa-environment"
}
