# Shared by the scripts in e2e/: where things are, waiting. Sourced, not run.
# shellcheck shell=bash disable=SC2034
. "$(dirname "${BASH_SOURCE[0]}")/../../hack/lib.sh"

E2E=$ROOT/e2e
# Built tools and images, kept between runs.
CACHE=${RINGFENCE_E2E_CACHE:-/var/cache/ringfence-e2e}
# A folder of tools that were built elsewhere. If it is given, nothing is built.
BIN=${RINGFENCE_E2E_TOOLS:-$CACHE/bin}
# One folder per running cluster. On a real file system: overlayfs does not lie on overlayfs.
RUNS=${RINGFENCE_E2E_RUNS:-/var/tmp/ringfence-e2e}

# await SECONDS WHAT COMMAND...: runs the command until it succeeds, and dies with its last words if that takes too long.
await() {
    local limit=$1 what=$2 words deadline=$((SECONDS + $1))
    shift 2
    until words=$("$@" 2>&1); do
        if ((SECONDS >= deadline)); then
            printf '%s\n' "$words" | tail -n 20 >&2
            die "$what: not within ${limit}s"
        fi
        sleep 0.1
    done
}

# free_port: a TCP port of 127.0.0.1 on which nobody listens. Two callers at once may get the same one: see choose_ports.
free_port() {
    local port
    while true; do
        port=$((20000 + RANDOM % 10000))
        [ -z "$(ss -Htan "sport = :$port")" ] && break
    done
    printf '%s\n' "$port"
}
