//! Seeded simulator of cluster, gateway, Prometheus and traffic for slipway-core.
