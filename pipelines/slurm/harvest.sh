#!/bin/bash
#SBATCH --job-name=harvest
#SBATCH --array=1-8
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#
# Asks a teacher in an array of SLURM jobs, each a worker with its share of the rows, and a card of its own:
#
#     sbatch harvest.sh --teacher llava --task mnli
#
# Copy it, and set the lines above. All workers write to one folder, which all nodes must see. Two minutes before the time
# is up, or when the job is preempted, this script is told by SIGTERM; it tells its worker, which keeps every reply that
# came, and puts the job into the queue again. Nothing that is kept is asked again.
set -u

# Not SLURM_JOB_ID: of one job of an array that is the number of the whole array.
job="${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"

told=
trap 'told=yes; again=yes; scancel --signal=TERM "$job"' TERM  # without --batch: to the worker, not to this script

srun harvest run "$@" --worker "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" &
step=$!
status=
while [ -z "$status" ]; do
    again=
    wait "$step"
    status=$?
    if [ -n "$again" ]; then status=; fi  # a signal ended `wait`, and not what it waits for
done

# 130: stopped, and all that came is kept. 143: before it had begun.
if [ -n "$told" ] && [[ "$status" =~ ^(130|143)$ ]]; then
    scontrol requeue "$job"
fi
exit "$status"
