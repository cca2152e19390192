# Builds the binary, then puts it alone into a small image.
FROM rust:1.95-slim-bookworm AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked -p crossfade-cli \
    && install -D target/release/crossfade /out/crossfade

FROM debian:bookworm-slim
# For TLS to servers whose certificates are signed by a public authority.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --no-create-home crossfade
COPY --from=build /out/crossfade /usr/local/bin/crossfade
USER crossfade
# Both signals that matter reach the process itself: the first drains and stops, the second forces.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/crossfade"]
CMD ["--help"]
