# Container images without a registry: docker-archives made with tar. Sourced, not run.
# shellcheck shell=bash

PAUSE_IMAGE=registry.k8s.io/pause:3.6
TOOL_IMAGE=localhost/agnhost:1

# The same bytes give the same archive: a layer's identity is its hash.
reproducible_tar() { tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --format=pax \
    --pax-option=delete=atime,delete=ctime "$@"; }

# make_image ARCHIVE NAME:TAG ENTRYPOINT_JSON ROOT_FOLDER
make_image() {
    local archive=$1 name=$2 entrypoint=$3 root=$4 work layer config
    work=$(mktemp -d)
    reproducible_tar -C "$root" -cf "$work/layer.tar" .
    layer=$(sha256sum "$work/layer.tar" | cut -d' ' -f1)
    jq -cn --argjson entrypoint "$entrypoint" --arg layer "sha256:$layer" --arg arch "$(dpkg --print-architecture)" '{
        architecture: $arch, os: "linux",
        config: {Entrypoint: $entrypoint, Env: ["PATH=/bin"], WorkingDir: "/"},
        rootfs: {type: "layers", diff_ids: [$layer]}, history: [{created_by: "e2e"}]}' >"$work/config"
    config=$(sha256sum "$work/config" | cut -d' ' -f1).json
    mv "$work/config" "$work/$config"
    jq -cn --arg config "$config" --arg name "$name" \
        '[{Config: $config, RepoTags: [$name], Layers: ["layer.tar"]}]' >"$work/manifest.json"
    reproducible_tar -C "$work" -cf "$archive.new" "$config" layer.tar manifest.json
    mv "$archive.new" "$archive"
    rm -rf "$work"
}

# Makes the two images that every cluster has, where they are missing or older than what is in them.
make_images() {
    local root
    mkdir -p "$CACHE/images"
    if [ ! "$CACHE/images/pause.tar" -nt "$E2E/images/pause.rs" ]; then
        root=$(mktemp -d)
        rustc --edition 2024 -O -C target-feature=+crt-static -C panic=abort -C strip=symbols \
            -o "$root/pause" "$E2E/images/pause.rs"
        make_image "$CACHE/images/pause.tar" "$PAUSE_IMAGE" '["/pause"]' "$root"
        rm -rf "$root"
    fi
    if [ ! "$CACHE/images/agnhost.tar" -nt "$BIN/agnhost" ]; then
        root=$(mktemp -d)
        mkdir -p "$root/bin" "$root/etc" "$root/tmp"
        cp "$BIN/agnhost" "$root/bin/agnhost"
        make_image "$CACHE/images/agnhost.tar" "$TOOL_IMAGE" '["/bin/agnhost"]' "$root"
        rm -rf "$root"
    fi
}

# import_image NODE ARCHIVE
import_image() {
    local enter=()
    mapfile -t enter < <(enter_words "$1")
    "${enter[@]}" "$BIN/ctr" --namespace k8s.io images import "$2" >/dev/null
}
