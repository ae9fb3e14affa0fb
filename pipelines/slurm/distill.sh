#!/bin/bash
#SBATCH --job-name=distill
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#
# Trains a student over all the cards of a SLURM job, a process a card:
#
#     sbatch distill.sh --shards data/gsm8k/ --student meta-llama/Llama-3.1-8B --parallel fsdp --name mine
#
# Copy it, and set the lines above. --name is needed: a job that goes on must find what it began. The folder of runs must
# be one that all nodes see. Two minutes before the time is up, or when the job is preempted, this script is told by
# SIGTERM; it tells the processes, which keep a checkpoint after the step that is under way, and puts the job into the
# queue again. A score is not broken off: let two minutes be more than it takes, in --signal.
set -u

# Processes find each other by these; `distill run` reads them as torchrun sets them.
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
WORLD_SIZE=$SLURM_NTASKS
export MASTER_ADDR MASTER_PORT WORLD_SIZE

told=
trap 'told=yes; again=yes; scancel --signal=TERM "$SLURM_JOB_ID"' TERM  # without --batch: to the processes, not to this script

srun --kill-on-bad-exit=0 bash -c 'RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID exec distill run "$@"' distill "$@" &
step=$!
status=
while [ -z "$status" ]; do
    again=
    wait "$step"
    status=$?
    if [ -n "$again" ]; then status=; fi  # a signal ended `wait`, and not what it waits for
done

# 75: stopped, with a checkpoint. 130 and 143: before there was anything new to keep.
if [ -n "$told" ] && [[ "$status" =~ ^(75|130|143)$ ]]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
