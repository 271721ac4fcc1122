#!/usr/bin/env bash
# Start a real Slurm of one node with pretend GPUs and accounting, on loopback, for tests.
#
#     start_slurm.sh RUN_DIR [GPUS]        then: export SLURM_CONF=RUN_DIR/slurm.conf
#     stop_slurm.sh RUN_DIR
#
# Everything is in RUN_DIR (settings, keys, database, logs), on ports of its own: a Slurm that runs on this machine
# already is neither used nor touched. Needs root, and these packages (Debian, Ubuntu), which it does not install:
#
#     apt-get install -y --no-install-recommends slurmctld slurmd slurm-client slurmdbd munge mariadb-server
set -euo pipefail

run=${1:?usage: start_slurm.sh RUN_DIR [GPUS]}
gpus=${2:-2}
fail() { echo "start_slurm.sh: $*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || fail "it must run as root"
for tool in munged mungekey mariadbd mariadb-install-db slurmdbd slurmctld slurmd sacctmgr sinfo; do
    PATH=$PATH:/usr/sbin command -v "$tool" >/dev/null || fail "$tool is not installed; see the packages at the top of this script"
done
PATH=$PATH:/usr/sbin
[ ! -e "$run/slurm.conf" ] || fail "$run is in use, or was not stopped: run stop_slurm.sh $run, then remove it"
mkdir -p "$run"
run=$(cd "$run" && pwd)
mkdir -p "$run"/{state,spool,log,pid,dev,munge,mysql}
chmod 755 "$run" "$run/munge"

here=$(cd "$(dirname "$0")" && pwd)
trap '[ $? = 0 ] || "$here/stop_slurm.sh" "$run"' EXIT  # leave nothing half started

free_ports() {  # as many free ports of this machine as asked for
    python3 -c "
import socket, sys
sockets = [socket.create_server(('127.0.0.1', 0)) for _ in range(int(sys.argv[1]))]
print(*(s.getsockname()[1] for s in sockets))" "$1"
}
until_true() {  # SECONDS WHAT COMMAND...
    local limit=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $limit ] || { tail -n 20 "$run"/log/*.log >&2; fail "$what did not start"; }
        sleep 0.2
    done
}
read -r ctld_port slurmd_port dbd_port sql_port <<<"$(free_ports 4)"
host=$(hostname -s)
socket=$run/mysql/socket

# --- munge: authentication, with a key and a socket of its own
mungekey --create --keyfile "$run/munge/key" >/dev/null
munged --force --key-file="$run/munge/key" --socket="$run/munge/socket" --pid-file="$run/pid/munged" \
    --log-file="$run/log/munged.log" --seed-file="$run/munge/seed"

# --- the accounting database; as root, so that RUN_DIR may lie in a folder that only root can enter
mariadb-install-db --no-defaults --user=root --datadir="$run/mysql/data" --auth-root-authentication-method=normal \
    --skip-test-db >"$run/log/mysql_install.log" 2>&1
setsid nohup mariadbd --no-defaults --user=root --datadir="$run/mysql/data" --socket="$socket" \
    --pid-file="$run/mysql/pid" --bind-address=127.0.0.1 --port="$sql_port" \
    --innodb-buffer-pool-size=64M --innodb-lock-wait-timeout=900 >"$run/log/mariadb.log" 2>&1 </dev/null &
until_true 60 mariadb mariadb-admin --no-defaults -S "$socket" ping
mariadb --no-defaults -S "$socket" -e "
    create database slurm_acct_db;
    create user slurm@localhost identified by 'slurm'; create user slurm@'127.0.0.1' identified by 'slurm';
    grant all on slurm_acct_db.* to slurm@localhost; grant all on slurm_acct_db.* to slurm@'127.0.0.1';"

# --- Slurm's settings
cat >"$run/slurmdbd.conf" <<END
AuthType=auth/munge
AuthInfo=socket=$run/munge/socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort=$dbd_port
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=$sql_port
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
LogFile=$run/log/slurmdbd.log
PidFile=$run/pid/slurmdbd
END
chmod 600 "$run/slurmdbd.conf"
# Memory is allocated, and what a job uses over it ends the job (cgroups would be the other way, where there are any).
cat >"$run/slurm.conf" <<END
ClusterName=biascorr
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$ctld_port
SlurmdPort=$slurmd_port
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# Slurm keeps a requeued job waiting until its first credential has expired: after 10 s rather than 2 minutes.
AuthInfo=socket=$run/munge/socket,cred_expire=10
StateSaveLocation=$run/state
SlurmdSpoolDir=$run/spool
SlurmctldLogFile=$run/log/slurmctld.log
SlurmdLogFile=$run/log/slurmd.log
SlurmctldPidFile=$run/pid/slurmctld
SlurmdPidFile=$run/pid/slurmd
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=2000
GresTypes=gpu
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$dbd_port
AccountingStoragePass=$run/munge/socket
AccountingStorageTRES=gres/gpu
ReturnToService=2
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=100000
KillWait=5
MinJobAge=300
# More CPUs than the machine may have, so that it is the GPUs that tasks have to wait for.
SlurmdParameters=config_overrides
NodeName=$host NodeAddr=127.0.0.1 CPUs=8 RealMemory=$(($(awk '/MemTotal/ {print $2}' /proc/meminfo) / 1024 - 1024)) Gres=gpu:$gpus State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP
END
for number in $(seq 0 $((gpus - 1))); do mknod "$run/dev/nvidia$number" c 1 3; done  # each like /dev/null
echo "Name=gpu File=$run/dev/nvidia[0-$((gpus - 1))]" >"$run/gres.conf"

# --- its daemons
export SLURM_CONF=$run/slurm.conf
slurmdbd
until_true 30 slurmdbd sacctmgr -n list cluster
{ sacctmgr -i add cluster biascorr; sacctmgr -i add account root Description=tests Organization=tests; } \
    >"$run/log/sacctmgr.log" 2>&1 || [ -s "$run/log/sacctmgr.log" ]
slurmctld
slurmd -N "$host"
idle() { sinfo -h -o %T | grep -q idle; }
until_true 30 "the node" idle
sinfo -N -o '%N %T %c CPUs, %m MB, %G'
echo "export SLURM_CONF=$SLURM_CONF"
