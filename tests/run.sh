#!/usr/bin/env bash
# Installs what the tests need when it is missing, then runs them all.
#
#     bash tests/run.sh              everything
#     bash tests/run.sh --test http  further arguments go to `cargo test`
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
    echo "tests/run.sh: $*" >&2
    exit 1
}

# need <command> <package>: installs the package that has the command, unless the command exists.
need() {
    local command=$1 package=$2
    if command -v "$command" >/dev/null; then return; fi
    echo "tests/run.sh: $command is missing, installing $package"
    command -v apt-get >/dev/null || fail "no apt-get here; install $package yourself"
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || fail "neither root nor sudo; install $package yourself"
        as_root=(sudo)
    fi
    "${as_root[@]}" apt-get update -qq
    (
        # The package would start its service, but the tests start servers of their own. This file prevents the start.
        policy=/usr/sbin/policy-rc.d
        if [ ! -e "$policy" ]; then
            trap '"${as_root[@]}" rm -f "$policy"' EXIT
            printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" install -m 755 /dev/stdin "$policy"
        fi
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -qq --no-install-recommends "$package"
    )
    command -v "$command" >/dev/null || fail "$package is installed and $command is still missing"
}

command -v cargo >/dev/null || fail "cargo is missing; install Rust 1.89 or later"
# The cryptography behind TLS is partly C and assembler.
need cc build-essential
# A server, sentinels and clusters: the tests of a shared store start real ones.
need redis-server redis-server

# With all features, and with the examples in the documentation and in README.md.
cargo test --locked --all-features "$@"

# Crates of their own, which must stay out of this one. They run with all tests only.
if [ $# -eq 0 ]; then
    # The model of the core: every order of events, planted faults, random walks.
    cargo test --locked --manifest-path tests/model/Cargo.toml --target-dir target/model
    cargo test --locked --manifest-path tests/feature_unification/Cargo.toml --target-dir target/feature_unification
fi
