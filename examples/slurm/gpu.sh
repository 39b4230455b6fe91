#!/usr/bin/env bash
# Train on GPU nodes, one rank per GPU, with the cores nearest to it:
#     sbatch examples/slurm/gpu.sh my_events.h5
# Needs pip install "minicnn[cuda12]" (or cuda13) and a doctor that says "cuda is usable"; change
# --nodes and the GPUs per node.
#SBATCH --job-name=minicnn-gpu
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=8
#SBATCH --hint=nomultithread
#SBATCH --time=04:00:00
#SBATCH --requeue
# Two minutes before the time is up, and where the job is preempted: the step is saved, status 75.
#SBATCH --signal=USR1@120
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
set -euo pipefail
EVENTS=${1:?usage: sbatch examples/slurm/gpu.sh EVENTS [options of python -m minicnn train]}
shift
source "${VENV:-.venv}/bin/activate"
export NUMBA_NUM_THREADS=$SLURM_CPUS_PER_TASK OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK
export NUMBA_CACHE_DIR=${NUMBA_CACHE_DIR:-$HOME/.cache/minicnn}
export CUPY_CACHE_DIR=${CUPY_CACHE_DIR:-$HOME/.cupy/kernel_cache}
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

# With --gpus-per-task every rank sees one GPU, its own, as cuda:0: the same --device for all.
srun --gpu-bind=closest --cpu-bind=cores python -m minicnn doctor "$EVENTS" --device cuda
status=0
srun --gpu-bind=closest --cpu-bind=cores python -m minicnn train --events "$EVENTS" \
    --device cuda --ledger --out "$OUT" --resume "$@" || status=$?
if [ "$status" = 75 ]; then  # it goes on at that step when it is started again
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
fi
[ "$status" = 0 ] || exit "$status"
test -f "$OUT/run.json"
