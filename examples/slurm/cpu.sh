#!/usr/bin/env bash
# Train on CPU nodes, one rank per 8 cores and bound to them:
#     sbatch examples/slurm/cpu.sh my_events.h5
# Change --nodes; ranks x cores per rank = cores of a node, with no rank across a socket. The
# environment: docs/cluster.md.
#SBATCH --job-name=minicnn
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --hint=nomultithread
#SBATCH --time=04:00:00
#SBATCH --exclusive
#SBATCH --requeue
# Two minutes before the time is up, and where the job is preempted: the step is saved, status 75.
#SBATCH --signal=USR1@120
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
set -euo pipefail
EVENTS=${1:?usage: sbatch examples/slurm/cpu.sh EVENTS [options of python -m minicnn train]}
shift
source "${VENV:-.venv}/bin/activate"
export NUMBA_NUM_THREADS=$SLURM_CPUS_PER_TASK OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK
# Kernels are compiled once and read by all.
export NUMBA_CACHE_DIR=${NUMBA_CACHE_DIR:-$HOME/.cache/minicnn}
# srun does not take this from sbatch by itself (Slurm 22.05 and later).
export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
# The MPICH that pip installs speaks PMI-2 with Slurm, which cannot carry all addresses of its UCX.
if [ -x "$VIRTUAL_ENV/bin/mpichversion" ]; then
    export SLURM_MPI_TYPE=${SLURM_MPI_TYPE:-pmi2} MPIR_CVAR_CH4_NETMOD=${MPIR_CVAR_CH4_NETMOD:-ofi}
fi
# A rank that is killed ends the others, which would wait for it: after 30 seconds, not at once as by
# --kill-on-bad-exit, because ranks that are asked to end leave one after the other, with status 75.
export SLURM_WAIT=30
# Of this job's name: what was saved there is gone on with, also by a job that is sent again.
OUT=${OUT:-runs/$SLURM_JOB_NAME${SLURM_ARRAY_TASK_ID:+-$SLURM_ARRAY_TASK_ID}}
mkdir -p "$OUT"

# Stops the job with the remedy on the first lines of its log where the set-up is wrong.
srun --cpu-bind=cores python -m minicnn doctor "$EVENTS" --threads "$SLURM_CPUS_PER_TASK"
status=0
srun --cpu-bind=cores python -m minicnn train --events "$EVENTS" \
    --threads "$SLURM_CPUS_PER_TASK" --ledger --out "$OUT" --resume "$@" || status=$?
if [ "$status" = 75 ]; then  # it goes on at that step when it is started again
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
fi
[ "$status" = 0 ] || exit "$status"
# Written last: it is there if and only if the run is complete.
test -f "$OUT/run.json"
