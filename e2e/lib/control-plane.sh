# etcd, kube-apiserver and, in a full cluster, controller-manager and scheduler. Needs $RUN and $ID. Sourced, not run.
# shellcheck shell=bash

# Every port of the fast lane is on 127.0.0.1 and is the run's own. A full cluster has its ports in its own namespace.
choose_ports() {
    [ ! -e "$RUN/ports" ] || return 0
    local port ports=()
    while [ ${#ports[@]} -lt 3 ]; do
        # Listened on by nobody, and taken by no other run that has not started yet.
        while port=$(free_port); [[ " ${ports[*]} " == *" $port "* ]] || grep -qs "=$port\$" "$RUNS"/*/ports; do :; done
        ports+=("$port")
    done
    printf 'etcd=%s\npeer=%s\napi=%s\n' "${ports[@]}" >"$RUN/ports"
}

# control_plane fast|full
control_plane() {
    local kind=$1 netns=host bind=127.0.0.1 server etcd=2379 peer=2380 api=443
    local extra=(--disable-admission-plugins ServiceAccount)
    if [ "$kind" = full ]; then
        netns=cp bind=0.0.0.0
        # Kubelets are asked by address: nobody resolves their names.
        extra=(--kubelet-preferred-address-types InternalIP)
        server=192.0.2.1
    else
        locked choose_ports
        # shellcheck source=/dev/null
        . "$RUN/ports"
        server=127.0.0.1
    fi
    local folder=$RUN/cp
    mkdir -p "$folder/certs"
    openssl genrsa -out "$folder/sa.key" 2048 2>/dev/null
    printf 'admin-of-this-run,admin,admin,"system:masters"\n' >"$folder/tokens.csv"

    # --unsafe-no-fsync: nothing here outlives the machine.
    write_command etcd "$netns" "$BIN/etcd" --name e2e --data-dir "$folder/etcd" --unsafe-no-fsync --log-level warn \
        --listen-client-urls "http://127.0.0.1:$etcd" --advertise-client-urls "http://127.0.0.1:$etcd" \
        --listen-peer-urls "http://127.0.0.1:$peer" --initial-advertise-peer-urls "http://127.0.0.1:$peer" \
        --initial-cluster "e2e=http://127.0.0.1:$peer"
    # No endpoint reconciler: there is one API server, and nobody finds it by its Endpoints.
    write_command apiserver "$netns" "$BIN/kube-apiserver" --etcd-servers "http://127.0.0.1:$etcd" \
        --cert-dir "$folder/certs" --bind-address "$bind" --advertise-address "$server" --secure-port "$api" \
        --endpoint-reconciler-type none --service-cluster-ip-range 10.0.0.0/24 --authorization-mode RBAC \
        --token-auth-file "$folder/tokens.csv" --service-account-issuer https://kubernetes.default.svc \
        --service-account-key-file "$folder/sa.key" --service-account-signing-key-file "$folder/sa.key" \
        --allow-privileged=true "${extra[@]}"
    start_process etcd
    start_process apiserver
    await_process 60 apiserver "certificate" test -s "$folder/certs/apiserver.crt"
    write_kubeconfig "$RUN/kubeconfig" "https://$server:$api" admin-of-this-run
    write_kubectl "$netns"
    api_ready
}

api_ready() { await_process 60 apiserver "answer at /readyz" "$RUN/kubectl" get --raw /readyz; }

# write_kubeconfig FILE SERVER TOKEN
write_kubeconfig() {
    cat >"$1" <<END
apiVersion: v1
kind: Config
clusters: [{name: e2e, cluster: {server: "$2", certificate-authority: "$RUN/cp/certs/apiserver.crt"}}]
users: [{name: e2e, user: {token: "$3"}}]
contexts: [{name: e2e, context: {cluster: e2e, user: e2e}}]
current-context: e2e
END
}

# $RUN/kubectl: for people and scripts.
write_kubectl() {
    local place=$1
    write_tool kubectl "$place" "$BIN/kubectl" --kubeconfig "$RUN/kubeconfig" --cache-dir "$RUN/kubectl-cache"
}

# write_tool NAME PLACE COMMAND...: a script $RUN/NAME that runs the command there with further arguments.
write_tool() {
    local name=$1 enter=()
    mapfile -t enter < <(enter_words "$2")
    shift 2
    printf '#!/bin/sh\nexec%s "$@"\n' "$(printf ' %q' "${enter[@]}" "$@")" >"$RUN/$name"
    chmod +x "$RUN/$name"
}

controllers() {
    local folder=$RUN/cp names=namespace-controller,garbage-collector-controller,serviceaccount-controller
    names+=,root-ca-certificate-publisher-controller,daemonset-controller,deployment-controller,replicaset-controller
    names+=,job-controller,node-lifecycle-controller
    write_command controller-manager cp "$BIN/kube-controller-manager" --kubeconfig "$RUN/kubeconfig" \
        --service-account-private-key-file "$folder/sa.key" --root-ca-file "$folder/certs/apiserver.crt" \
        --leader-elect=false --bind-address 127.0.0.1 --secure-port 10257 --controllers "$names"
    write_command scheduler cp "$BIN/kube-scheduler" --kubeconfig "$RUN/kubeconfig" \
        --leader-elect=false --bind-address 127.0.0.1 --secure-port 10259
    start_process controller-manager
    start_process scheduler
}

install_crds() {
    "$RUN/kubectl" apply -f "$E2E/manifests" >/dev/null
    "$RUN/kubectl" wait --for condition=established --timeout 20s -f "$E2E/manifests" >/dev/null
}
