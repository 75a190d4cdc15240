#!/bin/bash
# Open MPI as a launcher: a shard a process, on the machines of a host file. ocelli itself uses no
# MPI; it reads its number from the environment.
#
#   PHOTOS=/data/photos OUTPUT=/data/captions.jsonl SHARDS=4 HOSTFILE=hosts ./mpirun.sh
#
# SIGTERM and SIGUSR1 let every process finish the pictures in hand; the script then exits with 75,
# and the same command goes on from there.

shards=${SHARDS:-4}
# --map-by node: machine after machine. --bind-to none: ocelli has threads of its own, THREADS of
# them. A process that fails ends no other; mpirun exits with 0 then, so ocelli merge has the say.
# SIGUSR1 is ignored by processes that are still starting, which it would kill else.
(
  trap '' USR1
  exec mpirun ${HOSTFILE:+--hostfile "$HOSTFILE"} -n "$shards" --map-by node --bind-to none \
    --mca orte_abort_on_non_zero_status 0 \
    ocelli caption --recursive "$PHOTOS" --output "$OUTPUT" --shard "openmpi/$shards" \
    ${THREADS:+--threads "$THREADS"}
) &
launcher=$!
stopped=
trap 'stopped=yes' TERM USR1
wait "$launcher"
code=$?
# mpirun passes SIGUSR1 on (at SIGTERM it would kill after a second): once a second, for those that
# were still starting. It hangs when a process ends before all have been started; what was done is
# saved then too.
for ((seconds = 0; ${#stopped} && seconds < ${PATIENCE:-120}; ++seconds)); do
  kill -USR1 "$launcher" 2>/dev/null || break
  sleep 1
done
[ -z "$stopped" ] || kill -KILL "$launcher" 2>/dev/null
[ -z "$stopped" ] || exit 75
[ "$code" = 0 ] || exit "$code"
exec ocelli merge --recursive --inputs "$PHOTOS" --output "$OUTPUT"
