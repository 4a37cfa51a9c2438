# Processes of a run: each is a script in $RUN/commands, so that everybody can read how it was started and start it again.
# Needs $RUN. Sourced, not run.
# shellcheck shell=bash

# write_command NAME PLACE COMMAND...: says how process NAME is started. PLACE is host, cp or a node.
write_command() {
    local name=$1 enter=()
    mapfile -t enter < <(enter_words "$2")
    shift 2
    {
        echo '#!/bin/sh'
        printf 'exec'
        printf ' %q' "${enter[@]}" "$@"
        echo
    } >"$RUN/commands/$name"
    chmod +x "$RUN/commands/$name"
}

# enter_words PLACE: the words in front of a command that shall run there, one a line.
enter_words() {
    case $1 in
        host) ;;
        # Not 'ip netns exec', which hides /sys/fs/cgroup behind a new mount of /sys.
        cp) printf '%s\n' nsenter "--net=/run/netns/$(netns_name cp)" ;;
        # Its network, and its own /run/containerd, /var/lib/kubelet and so on.
        *) printf '%s\n' nsenter "--target=$(process_id "$1")" --net --mount ;;
    esac
}

process_id() { cut -d' ' -f1 "$RUN/pids/$1"; }

# start_process NAME: starts it in the background, its output in $RUN/log/NAME.log.
start_process() {
    local name=$1
    [ -x "$RUN/commands/$name" ] || die "there is no process $name in run $ID (there are: $(ls "$RUN/commands"))"
    ! is_alive "$name" || die "$name runs already"
    # In a session of its own: a Ctrl-C is for the script, which then ends everything in order.
    PATH=$BIN:$PATH setsid "$RUN/commands/$name" >>"$RUN/log/$name.log" 2>&1 </dev/null 8>&- 9>&- &
    local pid=$!
    disown "$pid"
    printf '%s %s\n' "$pid" "$(start_time "$pid")" >"$RUN/pids/$name"
}

# A process number may be another process's by now; together with its start time it is not.
start_time() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

is_alive() {
    local pid started
    read -r pid started 2>/dev/null <"$RUN/pids/$1" || return 1
    [ -n "$started" ] && [ "$(start_time "$pid")" = "$started" ] &&
        ! grep -q '^State:.Z' "/proc/$pid/status" 2>/dev/null
}

# end_process NAME [SIGNAL]: signals it and waits until it is gone; after 10 seconds it is killed.
end_process() {
    local name=$1 signal=${2:-TERM} pid rest deadline=$((SECONDS + 10))
    if is_alive "$name"; then
        read -r pid rest <"$RUN/pids/$name"
        kill -s "$signal" "$pid" 2>/dev/null || true
        while is_alive "$name"; do
            ((SECONDS < deadline)) || kill -s KILL "$pid" 2>/dev/null || true
            sleep 0.05
        done
    fi
    rm -f "$RUN/pids/$name"
}

# await_process SECONDS NAME WHAT COMMAND...: waits for the command to succeed while the process lives; shows its log if not.
await_process() {
    local limit=$1 name=$2 what=$3 deadline=$((SECONDS + $1))
    shift 3
    until "$@" >/dev/null 2>&1; do
        if ((SECONDS >= deadline)) || ! is_alive "$name"; then
            tail -n 30 "$RUN/log/$name.log" >&2
            die "$name: no $what (within ${limit}s; the end of its log is above, all of it in $RUN/log)"
        fi
        sleep 0.05
    done
}
