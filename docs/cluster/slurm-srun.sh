#!/bin/bash
# One Slurm job of many tasks, a shard a task, which also merges.
#
#   PHOTOS=/data/photos OUTPUT=/data/captions.jsonl sbatch slurm-srun.sh
#
#SBATCH --job-name=captions
#SBATCH --ntasks=8
#SBATCH --cpus-per-task=8
#SBATCH --mem-per-cpu=2G
#SBATCH --time=04:00:00
#SBATCH --output=captions-%j.log
# As in slurm-array.sh: the exit code of srun is 75 when that of any task is.
#SBATCH --signal=USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append

# A task that fails does not end the others; each log line begins with its task's number.
srun --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" --kill-on-bad-exit=0 --label \
  ocelli caption --recursive "$PHOTOS" --output "$OUTPUT" --shard auto
code=$?
if [ "$code" = 75 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 20 ]; then
  scontrol requeue "$SLURM_JOB_ID"
  exit "$code"
fi
[ "$code" = 0 ] || exit "$code"
exec ocelli merge --recursive --inputs "$PHOTOS" --output "$OUTPUT"
