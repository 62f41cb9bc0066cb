# How the set-up reports: a line for each step, a log of what it ran, and one clear message for what went wrong.
# Sourced by setup/steps.sh.
# shellcheck shell=bash

STEPS=0 STEP=0

step() { say "[$((++STEP))/$STEPS] $*"; }

stamp() { printf '%s\n' "$2" >"$1.new" && mv -f "$1.new" "$1"; }

# On a terminal, counts the seconds of a step behind it, so that nobody looks at a still screen.
count_seconds() {
  local parent=$$ begin=$SECONDS
  while sleep 1 && kill -0 "$parent" 2>/dev/null; do printf '\rvjepa:   %s s ' $((SECONDS - begin)) >&2; done
}

# Runs a command with its output in the log. TAIL gets that output; the status is the command's.
tried() {
  local begin status counter=''
  printf '\n=== %s: %s\n' "$(date '+%F %T')" "$*" >>"$LOG" || cannot_write "$LOG"
  begin=$(wc -l <"$LOG")
  if [[ -t 2 ]]; then
    count_seconds &
    counter=$!
  fi
  "$@" >>"$LOG" 2>&1 </dev/null
  status=$?
  if [[ -n $counter ]]; then
    kill "$counter" 2>/dev/null
    wait "$counter" 2>/dev/null
    printf '\r%*s\r' 20 '' >&2
  fi
  TAIL=$(tail -n +"$((begin + 1))" "$LOG")
  return "$status"
}

# Like `tried`, but on failure shows the end of the output, states the cause where it is known, and stops.
logged() {
  local what=$1
  shift
  tried "$@" && return
  failed "$what"
}

failed() {
  tail -n 20 <<<"$TAIL" >&2
  local cause
  cause=$(cause_of "$TAIL")
  die "$1 failed${cause:+: $cause}" "The lines above are the end of $LOG" \
    "Run the same command again once the cause is gone: it goes on from there."
}

# Prints what an installer's output means, in one line; nothing where it is not known.
cause_of() {
  local proxy=${HTTPS_PROXY:-${https_proxy:-${ALL_PROXY:-${all_proxy:-}}}}
  case "$1" in
    *'No space left on device'* | *'os error 28'* | *'Disk quota exceeded'*)
      echo "the disk is full ($(free_megabytes "$VENV") MB are free at $VENV)" ;;
    *'Read-only file system'* | *'Permission denied'* | *'os error 13'* | *'os error 30'*)
      echo 'a folder cannot be written' ;;
    *'DO NOT MATCH THE HASHES'* | *'Hash mismatch'* | *'hash mismatch'*)
      echo 'a downloaded file is not the one that the lock names, so nothing of it was installed' ;;
    *[Tt]unnel* | *ProxyError* | *'Proxy Authentication'* | *'annot connect to proxy'*) echo "the proxy ${proxy:+$(masked "$proxy") }refuses" ;;
    *)
      if is_network_failure "$1"; then
        echo "the package index cannot be reached${proxy:+ by the proxy $(masked "$proxy")}"
      fi
      ;;
  esac
}

is_network_failure() {
  case "$1" in
    *'dns error'* | *'error sending request'* | *'ailed to fetch'* | *'name resolution'* | *'Name or service not known'* | \
      *'Network is unreachable'* | *'Connection refused'* | *'onnection timed out'* | *'Read timed out'* | \
      *'Failed to establish a new connection'* | *'Could not fetch URL'* | *'NewConnectionError'* | *'operation timed out'*) ;;
    *) return 1 ;;
  esac
}

# An address without its user and password.
masked() { sed -E 's#//[^/@ ]*@#//***@#g' <<<"$1"; }

cannot_write() {
  die "$1 cannot be written, so nothing can be set up here." \
    "Free some space, put the checkout where you may write, or use Docker: docker compose -f docker/compose.yaml up"
}

# The free space of the file system where a path is, or will be.
free_megabytes() {
  local path=$1
  until [[ -e $path ]]; do path=$(dirname "$path"); done
  df -Pm "$path" | awk 'NR == 2 { print $4 }'
}
