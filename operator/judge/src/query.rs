//! Builds the queries of the metrics poller for Prometheus, over the metrics of docs/metrics.md.
//!
//! `increase(...[{{window}}])` covers exactly the time since the confirmation of the weight: the
//! poller substitutes the age of the window at each reading. It handles counter resets, and it
//! selects both revisions by name, so neither an older weight nor an older revision is ever judged.

/// Selects the series of both revisions.
pub(crate) struct SeriesSelector<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    pub(crate) candidate: &'a str,
    pub(crate) stable: &'a str,
    /// Additional matchers, each after a comma.
    pub(crate) matchers: String,
}

/// Names of the gateway's pods. Series that another pod exports under the same metric names are not
/// evidence.
pub(crate) const GATEWAY_PODS: &str = "slipway-gateway-[a-z0-9]+-[a-z0-9]+";
/// Requests at the preview address have another role: their senders choose what to send, so they
/// are not evidence.
pub(crate) const ROLES: &str = r#"role=~"stable|candidate""#;

impl SeriesSelector<'_> {
    /// Increase of a metric's series of both revisions since the confirmation, of the given pods,
    /// with additional matchers. A pod that is scraped twice, by two jobs or two Prometheus behind
    /// one address, counts once: of the series that agree in `labels` the largest is used.
    pub(crate) fn increase(&self, metric: &str, pods: &str, further: &str, labels: &str) -> String {
        let Self { namespace, name, candidate, stable, matchers } = self;
        format!(
            r#"max by (pod, revision, {labels}) (increase({metric}{{namespace="{namespace}",pod=~"{pods}",modeldeployment="{name}",revision=~"{candidate}|{stable}"{matchers}{further}}}[{{{{window}}}}]))"#
        )
    }
}

/// Sums by revision and by a label `result`, derived from the values of `label`. Prometheus anchors
/// the expressions of label_replace, so `correct` does not match `incorrect`.
pub(crate) fn sum_by_result(vector: &str, label: &str, bad: &str, good: &str) -> String {
    let inner = format!(r#"label_replace({vector}, "result", "bad", "{label}", "{bad}")"#);
    format!(
        r#"sum by (revision, result) (label_replace({inner}, "result", "good", "{label}", "{good}"))"#
    )
}
