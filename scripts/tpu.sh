#!/usr/bin/env bash
# Runs a command on all workers of a TPU VM slice.
#
#   scripts/tpu.sh check  NAME ZONE                  what every worker has, and what is missing
#   scripts/tpu.sh setup  NAME ZONE [REPOSITORY]     install this package on every worker; may be repeated
#   scripts/tpu.sh start  NAME ZONE COMMAND...       run COMMAND on every worker, in the background
#   scripts/tpu.sh status NAME ZONE                  which workers run, and the exit codes of those that ended
#   scripts/tpu.sh logs   NAME ZONE [LINES]          the last lines of every worker
#   scripts/tpu.sh stop   NAME ZONE                  SIGTERM, so that a checkpoint is written; SIGKILL after GRACE
#
# The workers find each other by themselves (see docs/launch.md). Variables: DRY_RUN=1 prints the
# commands instead of running them, PROJECT names another project than gcloud's own, BRANCH a branch
# of the repository, GRACE the seconds that stop waits (300), LIBTPU_INIT_ARGS the arguments of the
# TPU compiler (by default those that the plans of docs/pods.md are compiled with).
set -euo pipefail

usage() {
  sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p;}' "$0"
}

fail() {
  echo "error: $*" >&2
  exit 2
}

# Runs its one argument, a shell program, on every worker.
everywhere() {
  local command=(gcloud compute tpus tpu-vm ssh "$name" "--zone=$zone" --worker=all "--command=$1")
  if [ -n "${PROJECT:-}" ]; then
    command+=("--project=$PROJECT")
  fi
  if [ -n "${DRY_RUN:-}" ]; then
    printf '%q ' "${command[@]}"
    printf '\n'
  else
    "${command[@]}"
  fi
}

# For the worker's shell: `running` is true while the job of logs/pid has not ended (one that ended
# left its exit code). A process id alone may be another program's after a reboot. The job is the
# process with that id that started when the file says (boot, clock ticks) and whose command and
# folder are those of `start`; a file of an earlier version has the id only.
# shellcheck disable=SC2016
functions='
born() { echo "$(cat /proc/sys/kernel/random/boot_id) $(sed "s/.*) //" "/proc/$1/stat" 2>/dev/null | cut -d" " -f20)"; }
running() {
  [ -f logs/pid ] && [ ! -f logs/code ] || return 1
  pid= since=
  { read -r pid; read -r since; } < logs/pid || true
  [[ $pid =~ ^[0-9]+$ ]] && kill -0 "$pid" 2>/dev/null || return 1
  grep -qa "logs/code" "/proc/$pid/cmdline" && [ "/proc/$pid/cwd" -ef . ] || return 1
  [ -z "$since" ] || [ "$(born "$pid")" = "$since" ]
}
'

# These overlap the gathering of parameters with matrix products where that is not the default.
libtpu="--xla_tpu_enable_async_collective_fusion=true \
--xla_tpu_enable_async_collective_fusion_fuse_all_gather=true \
--xla_tpu_enable_async_collective_fusion_multiple_steps=true \
--xla_enable_async_all_gather=true"

# For the worker's shell: find_python prints the name of a Python that is new enough and can make a
# virtual environment. The images of Ubuntu 22.04 have 3.10 only.
# shellcheck disable=SC2016
pythons='
new_enough() { "$1" -c "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))" 2>/dev/null; }
find_python() {
  for one in python3.13 python3.12 python3.11 python3; do
    if new_enough "$one"; then echo "$one"; return 0; fi
  done
  return 1
}
'

check() {
  everywhere "$pythons
missing=
lacks() { missing=\"\$missing\${missing:+, }\$*\"; }
command -v git > /dev/null || lacks 'git (sudo apt-get install git)'
[ -e /dev/accel0 ] || [ -e /dev/vfio/0 ] || lacks 'a TPU (no /dev/accel0 or /dev/vfio/0)'
if new_enough phenaki/.venv/bin/python; then
  for module in phenaki jax libtpu; do
    phenaki/.venv/bin/python -c \"import importlib.util as u, sys; sys.exit(u.find_spec('\$module') is None)\" ||
      lacks \"\$module (run setup)\"
  done
elif find_python > /dev/null; then lacks 'this package (run setup)'
else lacks \"Python 3.11 or newer (\$(python3 --version 2>&1 || true); setup installs 3.12)\"; fi
if [ -n \"\$missing\" ]; then echo \"\$(hostname): missing: \$missing\"; exit 1; fi
echo \"\$(hostname): ready with \$(phenaki/.venv/bin/python --version)\""
}

setup() {
  local repository=${1:-} branch=${BRANCH:-main}
  if [ -z "$repository" ]; then
    repository=$(git -C "$(dirname "$0")/.." remote get-url origin 2>/dev/null) ||
      fail "setup needs the address of a repository that the workers can read: scripts/tpu.sh setup NAME ZONE REPOSITORY"
  fi
  everywhere "set -e
if [ ! -d phenaki/.git ]; then git clone --quiet $(printf '%q' "$repository") phenaki; fi
cd phenaki
git fetch --quiet origin $(printf '%q' "$branch")
git checkout --quiet --detach FETCH_HEAD
$pythons
if ! new_enough .venv/bin/python; then
  rm -rf .venv
  if python=\$(find_python); then \"\$python\" -m venv .venv
  else
    python3 -m pip install --quiet --user uv
    python3 -m uv venv --quiet --seed --python 3.12 .venv
  fi
fi
.venv/bin/python -m pip install --quiet -c constraints.txt -e '.[tpu]'
echo \"\$(hostname): ready at \$(git rev-parse --short HEAD)\""
}

start() {
  [ $# -gt 0 ] || fail "start needs a command, such as: python scripts/train_cvivit.py --config=configs/cvivit.py:mit --workdir=/mnt/bucket/run"
  local quoted
  quoted=$(printf '%q ' "$@")
  # A session of its own, so that it outlives the connection and can be stopped whole.
  everywhere "set -e
cd phenaki
mkdir -p logs
$functions
if running; then echo \"\$(hostname): runs already\"; exit 0; fi
rm -f logs/code
[ ! -f logs/log ] || mv logs/log logs/log.before
export LIBTPU_INIT_ARGS=$(printf '%q' "${LIBTPU_INIT_ARGS:-$libtpu}")
setsid bash -c 'PATH=\$PWD/.venv/bin:\$PATH $(printf '%s' "$quoted" | sed "s/'/'\\\\''/g") > logs/log 2>&1; echo \$? > logs/code' < /dev/null > /dev/null 2>&1 &
{ echo \$!; born \$!; echo $(printf '%q' "$quoted"); } > logs/pid
echo \"\$(hostname): started\""
}

status() {
  everywhere "cd phenaki 2>/dev/null || { echo \"\$(hostname): not set up\"; exit 0; }
$functions
if running; then echo \"\$(hostname): runs\"
elif [ -f logs/code ]; then echo \"\$(hostname): ended with \$(cat logs/code)\"
else echo \"\$(hostname): idle\"; fi"
}

logs() {
  local lines=${1:-20}
  [[ $lines =~ ^[0-9]+$ ]] || fail "logs: $lines is not a number of lines"
  everywhere "cd phenaki && tail -n $lines logs/log | sed \"s/^/\$(hostname): /\""
}

stop() {
  local grace=${GRACE:-300}
  [[ $grace =~ ^[0-9]+$ ]] || fail "GRACE=$grace is not a number of seconds"
  everywhere "cd phenaki 2>/dev/null || exit 0
$functions
running || { echo \"\$(hostname): idle\"; exit 0; }
group=\$pid
pkill -TERM -g \"\$group\" python || true
for _ in \$(seq $grace); do running || break; sleep 1; done
if running; then kill -KILL -- \"-\$group\"; fi
rm -f logs/pid
echo \"\$(hostname): stopped\""
}

case ${1:-} in
  check | setup | start | status | logs | stop)
    [ $# -ge 3 ] || fail "$1 needs the name and the zone of a TPU VM; scripts/tpu.sh --help shows more"
    verb=$1 name=$2 zone=$3
    shift 3
    "$verb" "$@"
    ;;
  -h | --help | help) usage ;;
  *) fail "${1:-nothing} is none of check, setup, start, status, logs, stop; scripts/tpu.sh --help shows more" ;;
esac
