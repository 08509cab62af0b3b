# Sourced by demo.sh: how it shows a step, runs it and checks what came of it, and the things that it cleans up.
# shellcheck shell=bash

name=demo-$$
work=$(mktemp -d /tmp/dotd.XXXXXX)
agent=$TARGET/debug/examples/reference_agent
step=0

finish() {
    local status=$?
    [ $status -eq 0 ] || { say "the demo failed; the server's last words:"; tail -5 "$(cluster log "$name")" >&2 || true; }
    [ -z "${agent_pid:-}" ] || kill "$agent_pid" 2>/dev/null || true
    cluster stop "$name"
    rm -rf "$work"
}
cluster() { "$ROOT/.ci/cluster" "$@"; }
trap finish EXIT

tell() { step=$((step + 1)); printf '\n%d. %s\n' $step "$1"; }
more() { printf '   %s\n' "$1"; }
run() { psql -Xq -v ON_ERROR_STOP=1 -P pager=off -P footer=off "$@"; }
get() { run -At -c "$1"; }
show() { sed 's/^/   > /' <<<"$1"; }
# Shows a statement, runs it, shows what it returns.
sql() { show "$1"; run -c "$1" | sed '/^$/d; s/^/     /'; }
# order VARIABLE ARGUMENTS: shows and makes a call of fn_dot_run, and keeps the run's id.
order() {
    show "SELECT * FROM fn_dot_run($2);"
    printf -v "$1" %s "$(get "SELECT run_id FROM fn_dot_run($2)")"
}
# must WHAT QUERY VALUE: what was said must be so, at the latest in ten seconds.
must() {
    local got
    for _ in $(seq 100); do
        got=$(get "$2")
        [ "$got" != "$3" ] || return 0
        sleep 0.1
    done
    die "$1: expected $3, found $got"
}
calls() { wc -l <"$work/record"; }

# must_end RUN STATUS: how a run ends.
must_end() { must "run $1" "SELECT run_status FROM dot_run WHERE run_id = '$1'" "$2"; }

# A secret in a file that only the server may read; its value must show up nowhere.
secret=demo-secret-$RANDOM$RANDOM$RANDOM
mkdir "$work/secrets"
printf '%s\n' "$secret" >"$work/secrets/agent_token"
printf "dot_wrapper.secrets_dir = '%s'\n" "$work/secrets" >"$work/postgresql.conf"
chmod 755 "$work"

# Where the server may find scripts, and one that is there.
mkdir -p "$work/dot/bin"
install -m 755 "$ROOT/examples/scripts/disk_room.sh" "$work/dot/bin/dot-disk-room"
printf "dot_wrapper.script_roots = '%s'\n" "$work" >>"$work/postgresql.conf"

# pg_cron, where this PostgreSQL has it.
cron=
if [ -f "$("$(pg_config_of "$version")" --pkglibdir)/pg_cron.so" ]; then
    cron=yes
    printf "shared_preload_libraries = 'pg_cron,dot_wrapper'\ncron.database_name = 'dot_demo'\ncron.use_background_workers = on\n" >>"$work/postgresql.conf"
fi
chmod 600 "$work/secrets/agent_token"
if is_root; then chown -R postgres: "$work/secrets"; fi
