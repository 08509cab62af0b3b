#!/bin/sh
# Copies a file so that it can be stopped at any moment: under another name first, and renamed at the end. Told to end, it
# removes what it began and says, with exit code 75, that it changed nothing.
#   dry_run_arg: '-n'    script_args: ARRAY['{dry_run}', '{args.from}', '{args.to}']    args: {"from": "/a", "to": "/b"}
set -eu
dry=
if [ "${1:-}" = -n ]; then dry=1; shift; fi
from=${1:?from which file} to=${2:?to which file}
if [ -n "$dry" ]; then
    printf '{"bytes": %d}\n' "$(wc -c < "$from")"
    exit 0
fi
part="$to.$DOT_RUN_ID.$DOT_ATTEMPT"
trap 'rm -f -- "$part"; exit 75' TERM
cp -- "$from" "$part" &
wait $!
trap '' TERM
mv -- "$part" "$to"
printf '{"bytes": %d}\n' "$(wc -c < "$to")"
