# The program in an image of its own. Without the broker, for production:
#   docker build --build-arg FEATURES=--no-default-features --tag tidemark .
FROM rust:1.95-bookworm AS build
ARG FEATURES=
WORKDIR /src
COPY . .
# What `tidemark --version` says; the history is not copied: docker build --build-arg TIDEMARK_COMMIT="$(git rev-parse HEAD)"
ARG TIDEMARK_COMMIT=
# A cache of crates and of what was built keeps a second build short.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin tidemark $FEATURES && cp target/release/tidemark /tidemark

FROM debian:bookworm-slim
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --create-home --home-dir /var/lib/tidemark tidemark
COPY --from=build /tidemark /usr/local/bin/tidemark
USER tidemark
WORKDIR /var/lib/tidemark
# SIGTERM drains: everything that was cut is published before the end. Give it time: docker stop --time 60
STOPSIGNAL SIGTERM
ENTRYPOINT ["tidemark"]
CMD ["run"]
