# A node: containerd with NRI, a kubelet, Multus over a bridge. Needs $RUN and $ID. Sourced, not run.
# shellcheck shell=bash

# write_containerd NODE
write_containerd() {
    local node=$1 folder=$RUN/$1
    mkdir -p "$folder"/{root,state,nri/plugins,nri/conf.d}
    cat >"$folder/containerd.toml" <<END
version = 3
root = "$folder/root"
state = "$folder/state"
[grpc]
  address = "$folder/containerd.sock"
[ttrpc]
  address = "$folder/containerd.sock.ttrpc"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "$PAUSE_IMAGE"
[plugins."io.containerd.cri.v1.runtime"]
  # Without CAP_SYS_RESOURCE runc fails otherwise, with "can't get final child's PID from pipe: EOF".
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["$BIN/cni"]
    conf_dir = "$folder/cni"
    max_conf_num = 1
[plugins."io.containerd.nri.v1.nri"]
  # The default is one socket per machine; here are several nodes.
  socket_path = "$folder/nri/nri.sock"
  plugin_path = "$folder/nri/plugins"
  plugin_config_path = "$folder/nri/conf.d"
END
    write_command "$node-containerd" "$node" "$BIN/containerd" --config "$folder/containerd.toml"
}

# write_cni NODE: Multus (thin) in front of a bridge with host-local addresses.
write_cni() {
    local node=$1 folder=$RUN/$1
    mkdir -p "$folder/cni" "$folder/cni-cluster"
    # One plugin in a .conf file: given a .conflist, Multus 4.3 loses the plugin's own keys on DEL.
    cat >"$folder/cni-cluster/10-cluster.conf" <<END
{"cniVersion": "1.0.0", "name": "cluster", "type": "bridge", "bridge": "cbr0", "isGateway": true, "ipMasq": false,
 "ipam": {"type": "host-local", "dataDir": "$folder/ipam", "ranges": [[{"subnet": "10.244.${node#node}.0/24"}]],
          "routes": [{"dst": "0.0.0.0/0"}]}}
END
    cat >"$folder/cni/00-multus.conflist" <<END
{"cniVersion": "1.0.0", "name": "multus-cni-network", "plugins": [
  {"type": "multus", "kubeconfig": "$RUN/kubeconfig", "binDir": "$BIN/cni", "cniDir": "$folder/multus",
   "confDir": "$folder/cni-cluster", "clusterNetwork": "$folder/cni-cluster/10-cluster.conf",
   "logLevel": "verbose", "logFile": "$RUN/log/$node-multus.log", "logToStderr": false}]}
END
}

# write_kubelet NODE
write_kubelet() {
    local node=$1 folder=$RUN/$1/kubelet
    mkdir -p "$folder"/{manifests,log,volplugins,pki}
    cat >"$folder/config.yaml" <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix://$RUN/$node/containerd.sock
# Machines with cgroup v1 are welcome, and pods' groups lie below the run's own.
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupsPerQOS: false
cgroupRoot: $(cgroup_parent)/$node
enforceNodeAllocatable: []
failSwapOn: false
oomScoreAdj: 0
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
# A full disk of the machine is no reason to evict anything.
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
evictionHard: {nodefs.available: "0%", nodefs.inodesFree: "0%", imagefs.available: "0%", memory.available: "50Mi"}
localStorageCapacityIsolation: false
makeIPTablesUtilChains: false
enableControllerAttachDetach: false
resolvConf: ""
staticPodPath: $folder/manifests
podLogsDir: $folder/log
volumePluginDir: $folder/volplugins
nodeStatusUpdateFrequency: 5s
syncFrequency: 10s
END
    write_command "$node-kubelet" "$node" "$BIN/kubelet" --kubeconfig "$RUN/kubeconfig" --config "$folder/config.yaml" \
        --hostname-override "$node" --root-dir "$folder" --cert-dir "$folder/pki" --node-ip "$(node_address "$node")"
}

start_nodes() {
    local node archive
    for node in node1 node2; do
        write_containerd "$node"
        write_cni "$node"
        write_kubelet "$node"
        write_crictl "$node"
        start_process "$node-containerd"
    done
    for node in node1 node2; do
        await_process 20 "$node-containerd" "answer over the CRI" "$RUN/crictl-$node" version
        for archive in "$CACHE"/images/{pause,agnhost}.tar; do import_image "$node" "$archive"; done
        start_process "$node-kubelet"
    done
    for node in node1 node2; do
        await_process 60 "$node-kubelet" "Ready condition" \
            "$RUN/kubectl" wait --for condition=Ready --timeout 1s "node/$node"
    done
}

# $RUN/crictl-NODE: for people and scripts.
write_crictl() {
    printf 'runtime-endpoint: unix://%s/%s/containerd.sock\ntimeout: 30\n' "$RUN" "$1" >"$RUN/$1/crictl.yaml"
    # Inside the node: containerd streams on its loopback.
    printf '#!/bin/sh\nexec nsenter --net=/run/netns/%q %q --config %q "$@"\n' \
        "$(netns_name "$1")" "$BIN/crictl" "$RUN/$1/crictl.yaml" >"$RUN/crictl-$1"
    chmod +x "$RUN/crictl-$1"
}

# Pods go while the API server still answers: Multus asks it on DEL.
remove_pods() {
    local node kind
    for kind in daemonsets deployments replicasets; do
        "$RUN/kubectl" delete "$kind" --all-namespaces --all --wait=false --request-timeout 5s >/dev/null 2>&1 || true
    done
    # DELETE on the collection: kubectl would delete one after the other, five a second.
    for kind in $("$RUN/kubectl" get pods -A --request-timeout 5s -o 'jsonpath={.items[*].metadata.namespace}' 2>/dev/null |
        tr ' ' '\n' | sort -u); do
        "$RUN/kubectl" delete --raw "/api/v1/namespaces/$kind/pods?gracePeriodSeconds=0" >/dev/null 2>&1 || true
    done
    for node in node1 node2; do
        end_process "$node-kubelet"
        if ! [ -x "$RUN/crictl-$node" ] || ! is_alive "$node-containerd"; then continue; fi
        record_netns "$node"
        timeout 60 "$RUN/crictl-$node" rmp -fa >"$RUN/log/$node-remove.log" 2>&1 ||
            note "$node: some pods were not removed in order (see $RUN/log/$node-remove.log); they are killed"
    done
}

# The namespaces of the pods that still run, in case their removal fails.
record_netns() {
    local pod
    for pod in $("$RUN/crictl-$1" pods -q 2>/dev/null); do
        "$RUN/crictl-$1" inspectp "$pod" 2>/dev/null |
            jq -r '.info.runtimeSpec.linux.namespaces[]? | select(.type == "network") | .path // empty' |
            sed -n 's#.*/netns/##p' >>"$RUN/pod-netns"
    done
}
