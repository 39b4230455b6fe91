#!/usr/bin/env python3
"""A Slurm of several nodes on the cluster of cluster.py.

    slurm.py up [--mpi-default pmi2]     slurmctld on the head, slurmd on every node
    slurm.py run COMMAND...              sbatch, squeue, scontrol ... with its configuration
    slurm.py down                        end it, and the nodes

Debian: apt-get install slurm-wlm munge. Partitions: "main", and "urgent", whose jobs take the nodes
of jobs in main, which are put back into the queue.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from cluster import NAME, address, there
from nodes import HEAD, run_on, stop

FOLDER = Path(f"/run/{NAME}-slurm")
CONF = """\
ClusterName=minicnn
SlurmctldHost=head({head})
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
MpiDefault={mpi}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/affinity
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
StateSaveLocation={folder}/state
SlurmctldLogFile={folder}/slurmctld.log
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdSpoolDir=/var/tmp/slurmd
SlurmdLogFile={folder}/slurmd.%n.log
SlurmdPidFile=/var/tmp/slurmd.pid
SlurmdParameters=config_overrides
ReturnToService=2
SlurmctldTimeout=30
SlurmdTimeout={timeout}
KillWait=15
MinJobAge=600
SchedulerParameters=batch_sched_delay=0,sched_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
NodeName=node[1-{nodes}] NodeAddr={addresses} CPUs={cpus} CoresPerSocket={cpus} ThreadsPerCore=1 \
Sockets=1 RealMemory=1000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10
"""


def missing():
    """Return why there can be no Slurm here, None where there can."""
    for program in ("slurmctld", "slurmd", "srun", "munged"):
        if not _path(program):
            return f"there is no {program} (Debian: apt-get install slurm-wlm munge)"
    return None


def _path(program):
    return shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin")


def up(args):
    """Write the configuration, start the daemons, and wait until all nodes are idle."""
    among = there()
    if reason := missing():
        raise SystemExit(f"slurm: {reason}")
    names = [name for name in among if name != HEAD]
    shutil.rmtree(FOLDER, ignore_errors=True)
    (FOLDER / "state").mkdir(parents=True)
    values = {
        "head": address(HEAD),
        "folder": FOLDER,
        "mpi": args.mpi_default,
        "timeout": args.node_timeout,
        "nodes": len(names),
        "addresses": ",".join(map(address, names)),
        "cpus": len(os.sched_getaffinity(0)),
    }
    (FOLDER / "slurm.conf").write_text(CONF.format(**values))
    key = FOLDER / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    files = [f"--{kind}-file={FOLDER}/munged.{kind}" for kind in ("log", "pid", "seed")]
    files += [f"--key-file={key}", f"--socket={FOLDER}/munge.socket"]
    _daemon(HEAD, _path("munged"), "--foreground", "--force", *files)
    _until((FOLDER / "munge.socket").exists, "munged does not start")
    _daemon(HEAD, _path("slurmctld"), "-D")
    for name in names:
        _daemon(name, _path("slurmd"), "-D", "-N", name)
    _until(lambda: _answer("sinfo", "-h", "-o", "%D %t") == f"{len(names)} idle", "nodes not idle")
    return 0


def _daemon(node, *command):
    """Start a daemon on a node; it ends with the node's network."""
    program = [sys.executable, Path(__file__).with_name("cluster.py"), "on", node, *command]
    with open(FOLDER / f"{Path(command[0]).name}.{node}.out", "w") as out:
        subprocess.Popen(
            [*map(str, program)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, "SLURM_CONF": f"{FOLDER}/slurm.conf"},
            start_new_session=True,
        )


def _answer(*command):
    program = [sys.executable, __file__, "run", *command]
    return subprocess.run(program, capture_output=True, text=True).stdout.strip()


def _until(true, problem, seconds=60):
    """Wait until something is true; SystemExit with the problem where it does not become so."""
    began = time.monotonic()
    while not true():
        if time.monotonic() - began > seconds:
            raise SystemExit(f"slurm: {problem} within {seconds} s: see the logs in {FOLDER}")
        time.sleep(0.2)


def run(args):
    """Run a command of Slurm on the head."""
    if not (FOLDER / "slurm.conf").exists():
        raise SystemExit("slurm: there is none: slurm.py up")
    variables = {"SLURM_CONF": f"{FOLDER}/slurm.conf"}
    return run_on(there()[HEAD], args.command, variables)


def down(args):
    """End Slurm, its jobs and the nodes, and remove the configuration."""
    stop(NAME)
    shutil.rmtree(FOLDER, ignore_errors=True)
    return 0


def main():
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = made.add_subparsers(required=True, metavar="COMMAND")
    one = commands.add_parser("up", help=up.__doc__)
    one.set_defaults(run=up)
    one.add_argument("--mpi-default", default="none", help="MpiDefault, of srun without --mpi")
    one.add_argument("--node-timeout", type=int, default=30, help="SlurmdTimeout, seconds")
    one = commands.add_parser("run", help=run.__doc__)
    one.set_defaults(run=run)
    one.add_argument("command", nargs=argparse.REMAINDER)
    commands.add_parser("down", help=down.__doc__).set_defaults(run=down)
    args = made.parse_args()
    return args.run(args)


if __name__ == "__main__":
    sys.exit(main())
