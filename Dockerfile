# One static binary, and what it reads: root certificates and the order of name look-up. No shell, no package manager.

FROM rust:1.95.0-slim-bookworm AS build
WORKDIR /src
ENV RUSTFLAGS="-C target-feature=+crt-static"

# Dependencies change seldom: built beside an empty program, they are a layer that stays. Naming the target keeps
# RUSTFLAGS away from procedural macros, which the compiler loads and which cannot be static.
COPY Cargo.toml Cargo.lock ./
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    mkdir src && touch src/lib.rs && echo 'fn main() {}' >src/main.rs \
    && cargo build --release --locked --target "$(rustc --print host-tuple)"

# The sources may be older than the empty program; cargo goes by time.
COPY src src
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    touch src/lib.rs src/main.rs \
    && cargo build --release --locked --target "$(rustc --print host-tuple)" \
    && install -D --target-directory=/root-of-image "target/$(rustc --print host-tuple)/release/oncegate"

# What a static binary still reads. Without nsswitch.conf the C library asks DNS before it looks into /etc/hosts.
COPY LICENSE-APACHE LICENSE-MIT /root-of-image/licenses/
RUN install -D --mode=644 --target-directory=/root-of-image/etc/ssl/certs /etc/ssl/certs/ca-certificates.crt \
    && echo 'hosts: files dns' >/root-of-image/etc/nsswitch.conf \
    && echo 'oncegate:x:65532:65532::/:/none' >/root-of-image/etc/passwd \
    && echo 'oncegate:x:65532:' >/root-of-image/etc/group

FROM scratch
LABEL org.opencontainers.image.title="oncegate" \
      org.opencontainers.image.description="A standalone idempotency reverse proxy: POST becomes safe to retry" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
COPY --from=build /root-of-image /
USER 65532:65532
# Requests, then health and metrics.
EXPOSE 8080 9464
# A drain: what is under way ends and is stored.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/oncegate"]
CMD ["run"]
