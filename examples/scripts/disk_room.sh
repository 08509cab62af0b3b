#!/bin/sh
# Says how full the file system of a directory is, as JSON, and fails above a limit. Changes nothing, in no mode.
#   script_args: ARRAY['{args.dir}', '{args.limit?}']    args: {"dir": "/var", "limit": 90}
set -eu
dir=${1:-/}
limit=${2:-90}
used=$(df -P -- "$dir" | awk 'NR == 2 { sub("%", "", $5); print $5 }')
printf '{"used_percent": %d, "limit_percent": %d}\n' "$used" "$limit"
[ "$used" -le "$limit" ]
