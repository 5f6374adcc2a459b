# Prometheus as its module builds it, under the path that its published image has: the chart deploys it with prometheus.install=true.
ARG BASE
FROM ${BASE}
COPY prometheus /bin/prometheus
USER 65534:65534
EXPOSE 9090
ENTRYPOINT ["/bin/prometheus"]
