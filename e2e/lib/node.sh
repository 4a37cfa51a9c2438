# A node: containerd with NRI, a kubelet, Multus over a bridge. Needs $RUN and $ID. Sourced, not run.
# shellcheck shell=bash

# A "machine": a process that holds the node's network and a view of the file system in which NODE_FOLDERS are the node's
# own. So containerd, kubelet, CNI and the agent find everything at the usual places, two nodes do not see each other's, and
# every mount goes with the last process.
start_machine() {
    local node=$1 folder script="mount --make-rslave /"
    for folder in "${NODE_FOLDERS[@]}"; do
        mkdir -p "$RUN/$node$folder"
        script+="; mount --bind '$RUN/$node$folder' '$folder'"
    done
    # Containers get what is mounted later by propagation, which wants shared mounts.
    script+="; mount --make-rshared /; touch '$RUN/$node/ready'; exec sleep infinity"
    write_command "$node" host nsenter "--net=/run/netns/$(netns_name "$node")" \
        unshare --mount --propagation slave sh -ec "$script"
    start_process "$node"
    await_process 10 "$node" "file system of its own" test -e "$RUN/$node/ready"
}

write_containerd() {
    local node=$1
    cat >"$RUN/$node/containerd.toml" <<END
version = 3
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "$PAUSE_IMAGE"
[plugins."io.containerd.cri.v1.runtime"]
  # Without CAP_SYS_RESOURCE runc fails otherwise, with "can't get final child's PID from pipe: EOF".
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["$BIN/cni"]
    conf_dir = "$RUN/$node/cni"
    max_conf_num = 1
[plugins."io.containerd.internal.v1.opt"]
  path = "$RUN/$node/opt"
END
    write_command "$node-containerd" "$node" "$BIN/containerd" --config "$RUN/$node/containerd.toml"
}

# Multus (thin) in front of a bridge with host-local addresses.
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

write_kubelet() {
    local node=$1
    mkdir -p "$RUN/$node"/{manifests,volume-plugins}
    cat >"$RUN/$node/kubelet.yaml" <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
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
staticPodPath: $RUN/$node/manifests
volumePluginDir: $RUN/$node/volume-plugins
nodeStatusUpdateFrequency: 5s
syncFrequency: 10s
END
    write_command "$node-kubelet" "$node" "$BIN/kubelet" --kubeconfig "$RUN/kubeconfig" \
        --config "$RUN/$node/kubelet.yaml" --hostname-override "$node" --node-ip "$(node_address "$node")"
}

start_nodes() {
    local node archive
    for node in node1 node2; do
        start_machine "$node"
        write_containerd "$node"
        write_cni "$node"
        write_kubelet "$node"
        printf 'runtime-endpoint: unix:///run/containerd/containerd.sock\ntimeout: 30\n' >"$RUN/$node/crictl.yaml"
        write_tool "crictl-$node" "$node" "$BIN/crictl" --config "$RUN/$node/crictl.yaml"
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

# Pods go while the API server still answers: Multus asks it on DEL.
remove_pods() {
    local node namespace
    "$RUN/kubectl" delete daemonsets,deployments,replicasets,jobs --all-namespaces --all --wait=false \
        --request-timeout 5s >/dev/null 2>&1
    # DELETE on the collection: kubectl would delete one after the other, five a second.
    for namespace in $("$RUN/kubectl" get pods -A --request-timeout 5s \
        -o 'jsonpath={.items[*].metadata.namespace}' 2>/dev/null | tr ' ' '\n' | sort -u); do
        "$RUN/kubectl" delete --raw "/api/v1/namespaces/$namespace/pods?gracePeriodSeconds=0" >/dev/null 2>&1
    done
    for node in node1 node2; do
        end_process "$node-kubelet"
        is_alive "$node-containerd" || continue
        timeout 60 "$RUN/crictl-$node" rmp -fa >"$RUN/log/$node-remove.log" 2>&1 ||
            note "$node: some pods were not removed in order and are killed: $(tail -n 1 "$RUN/log/$node-remove.log")"
    done
}
