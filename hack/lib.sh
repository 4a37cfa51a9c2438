# Shared by the scripts in hack/: messages, and the set-up of a machine. Sourced, not run.
# shellcheck shell=bash

set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT"
STARTED=$SECONDS

# step TEXT: a heading with the time since the start, so that a long run shows where it is.
step() { printf '\n==> [%3ds] %s\n' "$((SECONDS - STARTED))" "$*"; }
note() { printf '    %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 2; }

# quietly WHAT COMMAND...: runs a long command with its output in a log, a sign of life every 15 seconds,
# and the end of the log if it fails.
quietly() {
    local what=$1 log pid began=$SECONDS
    shift
    log=$(mktemp "${TMPDIR:-/tmp}/ringfence-hack.XXXXXX")
    "$@" >"$log" 2>&1 &
    pid=$!
    local shown=0
    while kill -0 "$pid" 2>/dev/null; do
        sleep 0.2
        if ((SECONDS - began >= shown + 15)); then
            shown=$((SECONDS - began))
            note "$what: ${shown}s … $(tail -n 1 "$log" | cut -c1-90)"
        fi
    done
    if ! wait "$pid"; then
        tail -n 60 "$log" >&2
        rm -f "$log"
        die "$what failed (the end of its output is above)"
    fi
    rm -f "$log"
    note "$what: done in $((SECONDS - began))s"
}

require_root() {
    [ "$(id -u)" = 0 ] || die "network namespaces and nftables need root: run 'sudo $0'"
}

# need_packages COMMAND=PACKAGE ... : installs with apt what is missing. A command beginning with / is a path (globs allowed).
need_packages() {
    local pair command package missing=()
    for pair in "$@"; do
        command=${pair%%=*} package=${pair#*=}
        case $command in
            /*) compgen -G "$command" >/dev/null || missing+=("$package") ;;
            *) command -v "$command" >/dev/null || missing+=("$package") ;;
        esac
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null ||
        die "missing: ${missing[*]} (Debian names). This script installs them on Debian and Ubuntu only; install them and run it again"
    note "installing system packages: ${missing[*]}"
    quietly "apt-get update" apt-get update
    quietly "apt-get install" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"
}

# The compiler that rust-toolchain.toml names, with cargo, rustfmt and clippy.
need_rust() {
    [ -f "$HOME/.cargo/env" ] && . "$HOME/.cargo/env"
    if ! command -v cargo >/dev/null; then
        note "cargo is missing: installing Rust with its official installer (rustup, https://rustup.rs) into $HOME/.cargo"
        need_packages curl=curl /etc/ssl/certs/ca-certificates.crt=ca-certificates
        local installer
        installer=$(mktemp)
        curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs -o "$installer" ||
            die "the installer could not be downloaded; install Rust by hand (https://rustup.rs) and run this again"
        quietly "rustup" sh "$installer" -y --profile minimal --default-toolchain none
        rm -f "$installer"
        . "$HOME/.cargo/env"
    fi
    if command -v rustup >/dev/null; then
        if ! cargo --version >/dev/null 2>&1 || ! cargo clippy --version >/dev/null 2>&1 || ! cargo fmt --version >/dev/null 2>&1; then
            note "installing the toolchain that rust-toolchain.toml names"
            quietly "rustup toolchain" rustup toolchain install
        fi
    fi
    cargo --version >/dev/null || die "cargo does not run; see the message above"
    note "$(cargo --version)"
}

# What building and running needs. libclang: rustables reads the kernel's headers with bindgen.
setup() {
    step "Set-up (system packages, Rust)"
    require_root
    need_packages cc=gcc /usr/include/stdlib.h=libc6-dev '/usr/lib/llvm-*/lib/libclang*.so*=libclang-dev' \
        nft=nftables ip=iproute2 nsenter=util-linux sysctl=procps "$@"
    need_rust
}

# cargo-deny, at the version that deny.toml was written for.
need_cargo_deny() {
    local version=0.20.2
    [ "$(cargo deny --version 2>/dev/null)" = "cargo-deny $version" ] && return 0
    quietly "cargo install cargo-deny $version (once)" cargo install --locked --force cargo-deny --version "$version"
}
