#!/usr/bin/env bash
# Stop the Slurm that start_slurm.sh has started in RUN_DIR, and nothing else: by its own pid files.
set -euo pipefail
run=$(cd "${1:?usage: stop_slurm.sh RUN_DIR}" && pwd)

stop() {  # PID_FILE PROGRAM
    local pid
    pid=$(cat "$1" 2>/dev/null) || return 0
    # The number may have gone to another process since.
    [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$2" ] || return 0
    kill "$pid"
    for _ in $(seq 100); do
        [ -e "/proc/$pid" ] || return 0
        sleep 0.1
    done
    kill -9 "$pid"
}
SLURM_CONF=$run/slurm.conf scancel --user=root 2>/dev/null || true
stop "$run/pid/slurmd" slurmd
stop "$run/pid/slurmctld" slurmctld
stop "$run/pid/slurmdbd" slurmdbd
stop "$run/mysql/pid" mariadbd
stop "$run/pid/munged" munged
rm -f "$run/slurm.conf"
