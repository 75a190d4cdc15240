#!/bin/bash
# GNU parallel: SHARDS shards, JOBS of them at a time, on this machine or on those of a file of ssh
# logins (LOGINS), which see the same folders.
#
#   PHOTOS=/data/photos OUTPUT=/data/captions.jsonl SHARDS=8 JOBS=2 ./parallel.sh
#
# The job log keeps what is done: started again, the script does the shards that failed or were
# stopped, and no other.

shards=${SHARDS:-8}
jobs=${JOBS:-2}
threads=${THREADS:-$(($(nproc) / jobs > 0 ? $(nproc) / jobs : 1))}
# --termseq: at the second SIGTERM, jobs have two minutes for the pictures in hand.
seq "$shards" | parallel ${LOGINS:+--sshloginfile "$LOGINS" --workdir .} --jobs "$jobs" \
  --joblog "$OUTPUT.joblog" --resume-failed --termseq TERM,120000,KILL,25 --line-buffer \
  ocelli caption --recursive "$PHOTOS" --output "$OUTPUT" --shard "{}/$shards" --threads "$threads" ||
  exit
exec ocelli merge --recursive --inputs "$PHOTOS" --output "$OUTPUT"
