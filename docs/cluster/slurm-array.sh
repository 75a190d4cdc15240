#!/bin/bash
# A Slurm array: a shard a member, on as many nodes as there are free.
#
#   PHOTOS=/data/photos OUTPUT=/data/captions.jsonl sbatch slurm-array.sh
#
# Members that failed are submitted again by their numbers, and do what they did before:
#
#   PHOTOS=/data/photos OUTPUT=/data/captions.jsonl sbatch --array=3,5 slurm-array.sh
#
#SBATCH --job-name=captions
#SBATCH --array=0-7
#SBATCH --cpus-per-task=8
#SBATCH --mem=16G
#SBATCH --time=04:00:00
#SBATCH --output=captions-%A-%a.log
# Five minutes before the time is up (or at `scancel --signal=USR1`), ocelli finishes the pictures
# in hand and exits with 75. --requeue lets the job go back into the queue then.
#SBATCH --signal=USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append

shards=${SHARDS:-8} # as many as --array has, whichever members are submitted

srun --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
  ocelli caption --recursive "$PHOTOS" --output "$OUTPUT" --shard "auto/$shards"
code=$?
if [ "$code" = 75 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 20 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
