# What a cluster changes on the machine outside of its folder: sysctls, empty folders, cgroups, network namespaces.
# Needs $RUN and $ID. Sourced, not run.
# shellcheck shell=bash

# The kubelet writes the first three on its own; many containerds and kubelets want more inotify instances.
HOST_SYSCTLS=(vm.overcommit_memory kernel.panic kernel.panic_on_oops fs.inotify.max_user_instances)

netns_name() { printf 'rf-e2e-%s-%s\n' "$ID" "$1"; }
inside() { local netns=$1; shift; nsenter "--net=/run/netns/$(netns_name "$netns")" "$@"; }
cgroup_parent() { printf '/ringfence-e2e-%s' "$ID"; }

# locked COMMAND...: one at a time among all runs of this machine.
locked() {
    mkdir -p "$RUNS"
    exec 8>"$RUNS/.lock"
    flock 8
    "$@"
    exec 8>&-
}

# Folders of the machine that each node has its own of: what a node finds there is what a node finds anywhere.
NODE_FOLDERS=(/run/netns /run/containerd /run/nri /var/lib/containerd /var/lib/kubelet /var/lib/cni /var/log)

# The first run saves what the machine had, the last one puts it back.
save_host() {
    touch "$RUN/uses-host-settings"
    if [ ! -e "$RUNS/.host-sysctls" ]; then
        local key folder
        : >"$RUNS/.host-folders"
        for folder in "${NODE_FOLDERS[@]}"; do [ -e "$folder" ] || echo "$folder" >>"$RUNS/.host-folders"; done
        for key in "${HOST_SYSCTLS[@]}"; do printf '%s=%s\n' "$key" "$(sysctl -n "$key")"; done >"$RUNS/.host-sysctls"
    fi
    # Only to be mounted over.
    mkdir -p "${NODE_FOLDERS[@]}"
    sysctl -qw fs.inotify.max_user_instances=8192
}

restore_host() {
    local folder
    rm -f "$RUN/uses-host-settings"
    ! compgen -G "$RUNS/*/uses-host-settings" >/dev/null || return 0
    [ -e "$RUNS/.host-sysctls" ] || return 0
    sysctl -qp "$RUNS/.host-sysctls"
    # rmdir: whoever has put something there meanwhile keeps it.
    while read -r folder; do rmdir "$folder" || true; done <"$RUNS/.host-folders"
    rm -f "$RUNS/.host-sysctls" "$RUNS/.host-folders"
}

# Two nodes on one wire, and the control plane's namespace beside them.
make_underlay() {
    local node
    for node in cp node1 node2; do
        ip netns add "$(netns_name "$node")"
        inside "$node" ip link set lo up
        # -e: without the module br_netfilter there is nothing to switch off.
        inside "$node" sysctl -qew net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=0 \
            net.bridge.bridge-nf-call-ip6tables=0 net.bridge.bridge-nf-call-arptables=0
    done
    inside cp ip link add ul0 type bridge mcast_snooping 0
    inside cp ip address add 192.0.2.1/24 dev ul0
    inside cp ip link set ul0 up
    # The API server's service address; there is no kube-proxy.
    inside cp ip address add 10.0.0.1/32 dev lo
    for node in node1 node2; do
        inside cp ip link add "$node" type veth peer name eth0 netns "$(netns_name "$node")"
        inside cp ip link set "$node" master ul0 up
        inside "$node" ip address add "$(node_address "$node")/24" dev eth0
        inside "$node" ip link set eth0 up
        inside "$node" ip route add 10.0.0.1/32 via 192.0.2.1
    done
    # Pods of one node reach those of the other one.
    inside node1 ip route add 10.244.2.0/24 via "$(node_address node2)"
    inside node2 ip route add 10.244.1.0/24 via "$(node_address node1)"
    inside cp ip route add 10.244.1.0/24 via "$(node_address node1)"
    inside cp ip route add 10.244.2.0/24 via "$(node_address node2)"
}

node_address() { printf '192.0.2.1%s\n' "${1#node}"; }

remove_cgroups() {
    local folder
    for folder in /sys/fs/cgroup"$(cgroup_parent)" /sys/fs/cgroup/*"$(cgroup_parent)"; do
        [ ! -d "$folder" ] || find "$folder" -depth -type d -exec rmdir {} + 2>/dev/null || true
    done
}

# Processes of containers and shims that outlived an orderly removal: those in the run's cgroups, and those that see a node's
# folders.
kill_leftovers() {
    local node machine process
    find /sys/fs/cgroup -path "*$(cgroup_parent)/*" -name cgroup.procs -exec cat {} + 2>/dev/null |
        while read -r process; do kill -s KILL "$process" 2>/dev/null || true; done
    for node in node1 node2; do
        is_alive "$node" || continue
        machine=$(process_id "$node")
        for process in /proc/[0-9]*; do
            process=${process#/proc/}
            [ "$process" != "$machine" ] || continue
            [ "$(readlink "/proc/$process/ns/mnt")" = "$(readlink "/proc/$machine/ns/mnt")" ] || continue
            kill -s KILL "$process" 2>/dev/null || true
        done
    done
}

remove_netns() {
    local name
    for name in $(ip netns list | awk -v run="rf-e2e-$ID-" 'index($1, run) == 1 {print $1}'); do
        ip netns delete "$name"
    done
}
