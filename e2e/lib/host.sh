# What a cluster changes on the machine outside of its folder: host sysctls, mounts, cgroups, network namespaces.
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

# The first run saves what the machine had, the last one puts it back.
save_host() {
    if [ ! -e "$RUNS/.host-sysctls" ]; then
        local key
        for key in "${HOST_SYSCTLS[@]}"; do printf '%s=%s\n' "$key" "$(sysctl -n "$key")"; done >"$RUNS/.host-sysctls"
        [ -e /var/lib/kubelet ] || touch "$RUNS/.no-var-lib-kubelet"
    fi
    touch "$RUN/uses-host-settings"
    sysctl -qw fs.inotify.max_user_instances=8192
}

restore_host() {
    rm -f "$RUN/uses-host-settings"
    ! compgen -G "$RUNS/*/uses-host-settings" >/dev/null || return 0
    [ -e "$RUNS/.host-sysctls" ] || return 0
    sysctl -qp "$RUNS/.host-sysctls"
    rm -f "$RUNS/.host-sysctls"
    # Kubelets keep the folder of device plugins there whatever their root folder is.
    if [ -e "$RUNS/.no-var-lib-kubelet" ]; then
        rm -rf /var/lib/kubelet/device-plugins /var/lib/kubelet/pki
        rmdir /var/lib/kubelet 2>/dev/null || true
        rm -f "$RUNS/.no-var-lib-kubelet"
    fi
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

# Whatever hangs below the run's folder, the deepest first.
unmount_all() {
    local target
    findmnt --noheadings --raw --output TARGET | { grep "^$RUN/" || true; } | sort -r | while read -r target; do
        umount "$target" 2>/dev/null || umount --lazy "$target" || true
    done
}

remove_cgroups() {
    local folder
    for folder in /sys/fs/cgroup"$(cgroup_parent)" /sys/fs/cgroup/*"$(cgroup_parent)"; do
        [ ! -d "$folder" ] || find "$folder" -depth -type d -exec rmdir {} + 2>/dev/null || true
    done
}

# Containers' processes and shims that outlived an orderly removal: known by the run's cgroups and folder.
kill_leftovers() {
    local list pid
    find /sys/fs/cgroup -path "*$(cgroup_parent)/*" -name cgroup.procs -exec cat {} + 2>/dev/null |
        while read -r pid; do kill -s KILL "$pid" 2>/dev/null || true; done
    for list in /proc/[0-9]*/cmdline; do
        # A shim is started with the socket of its containerd.
        if tr '\0' ' ' 2>/dev/null <"$list" | grep -q "^[^ ]*containerd-shim-runc-v2 .*$RUN/"; then
            pid=${list#/proc/}
            kill -s KILL "${pid%/cmdline}" 2>/dev/null || true
        fi
    done
}

remove_netns() {
    local name
    # Those of pods that were not removed in order.
    if [ -e "$RUN/pod-netns" ]; then
        while read -r name; do [ ! -e "/run/netns/$name" ] || ip netns delete "$name"; done <"$RUN/pod-netns"
    fi
    for name in $(ip netns list | awk -v run="rf-e2e-$ID-" 'index($1, run) == 1 {print $1}'); do
        ip netns delete "$name"
    done
}
