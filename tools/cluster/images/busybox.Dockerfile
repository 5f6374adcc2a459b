# A shell with the usual tools, for tests and as the base of small images.
ARG BASE
FROM ${BASE}
COPY busybox /bin/busybox
COPY passwd group /etc/
# Runs the busybox itself, as there is no shell yet.
RUN ["/bin/busybox", "--install", "-s", "/bin"]
RUN mkdir -m 1777 /tmp
ENTRYPOINT []
CMD ["/bin/sh"]
