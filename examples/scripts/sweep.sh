#!/bin/sh
# Removes files below a directory that nobody has changed for some days. With --dry-run it says which, and removes none.
#   dry_run_arg: '--dry-run'    script_args: ARRAY['{args.dir}', '{args.days?}']    args: {"dir": "/var/tmp/dots", "days": 7}
# Exit code 75: the directory is not there (not mounted yet?), nothing was changed, try again later.
set -eu
action=removed
if [ "${1:-}" = --dry-run ]; then
    action=would_remove
    shift
fi
dir=${1:?which directory}
days=${2:-7}
case $days in *[!0-9]* | '') echo "days must be a number, not \"$days\"" >&2; exit 64 ;; esac
case $dir in /?*) ;; *) echo "the directory must be an absolute path" >&2; exit 64 ;; esac
[ -d "$dir" ] || { echo "$dir is not there" >&2; exit 75; }
count=$(find "$dir" -xdev -type f -mtime "+$days" -print | tee /dev/stderr | wc -l)
if [ "$action" = removed ]; then
    find "$dir" -xdev -type f -mtime "+$days" -delete
fi
printf '{"%s": %d, "fencing_token": %d}\n' "$action" "$count" "${DOT_FENCING_TOKEN:-0}"
