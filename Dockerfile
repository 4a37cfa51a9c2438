# The image of Ringfence: one binary, the C library it is linked against, and licences. Plain Dockerfile syntax, nothing
# that needs BuildKit: `docker build .`, `podman build .` and `buildah build .` work alike from a clean clone.
#
# Public base: rust:1.95-bookworm for the build (the compiler of rust-toolchain.toml; hack/image checks that both agree).
# The final stage has none: it starts from scratch. `hack/image` builds on a machine without a registry, from a base
# that it makes itself with debootstrap.
ARG BUILD_BASE=docker.io/library/rust:1.95-bookworm

FROM ${BUILD_BASE} AS build
# libclang: rustables reads the kernel's headers with bindgen. A base that has it already needs no package archive.
RUN ls /usr/lib/llvm-*/lib/libclang*.so* >/dev/null 2>&1 \
    || (apt-get update && apt-get install -y --no-install-recommends libclang-dev && rm -rf /var/lib/apt/lists/*)
WORKDIR /src
COPY . .
# true where all crates are in the base's cargo registry already (hack/image): nothing is downloaded then.
ARG CARGO_NET_OFFLINE=false
ARG CARGO_BUILD_JOBS=default
# Without line tables (they make the binary five times as large); function names stay for backtraces, and a panic says
# its file and line in any case. Paths of the build machine do not get into the binary.
ENV CARGO_NET_OFFLINE=${CARGO_NET_OFFLINE} \
    CARGO_BUILD_JOBS=${CARGO_BUILD_JOBS} \
    CARGO_INCREMENTAL=0 \
    CARGO_PROFILE_RELEASE_DEBUG=0 \
    CARGO_PROFILE_RELEASE_STRIP=debuginfo
RUN RUSTFLAGS="--remap-path-prefix=/src=ringfence --remap-path-prefix=${CARGO_HOME:-/usr/local/cargo}/registry/src=crates" \
    cargo build --locked --release -p ringfence --bin ringfence --target-dir /target
# The binary, the shared libraries that it names, and everybody's licences.
RUN sh hack/image-root /target/release/ringfence /root-of-image

FROM scratch
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="ringfence" \
      org.opencontainers.image.description="Network policy on every interface of every pod: the per-node agent" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="GPL-3.0-or-later" \
      org.opencontainers.image.source="https://example.invalid/ringfence" \
      org.opencontainers.image.documentation="https://example.invalid/ringfence/README.md"
COPY --from=build /root-of-image/ /
# The C library gives each thread an arena of memory that keeps what it once held; two are enough.
ENV MALLOC_ARENA_MAX=2 \
    PATH=/usr/bin
# Root, because nobody else can have capabilities here: Kubernetes gives added capabilities to the bounding set, and a
# process that is not root loses them at exec (there are no ambient ones); file capabilities would be an alternative,
# but do not work with allowPrivilegeEscalation: false. The runtime's socket belongs to root as well. What root
# may do is limited by the chart: every capability is dropped but the two or three that are needed.
USER 0:0
ENTRYPOINT ["/usr/bin/ringfence"]
CMD ["agent"]
