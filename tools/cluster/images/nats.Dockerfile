# nats-server as its module builds it, for tests of the queue on JetStream. Users have their own NATS.
ARG BASE
FROM ${BASE}
COPY nats-server /nats-server
USER 65532:65532
ENTRYPOINT ["/nats-server"]
