# The container that holds a pod's namespaces: it only has to be there.
ARG BASE
FROM ${BASE}
COPY busybox /busybox
ENTRYPOINT ["/busybox", "sleep", "infinity"]
