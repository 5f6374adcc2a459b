//! What the metrics poller asks Prometheus, over the metrics of docs/metrics.md.
//!
//! `increase(...[{{window}}])` looks back exactly to the confirmation of the weight: the poller
//! puts in the age of the window at each reading. It bears counter resets, and it names both
//! revisions, so neither an older weight nor an older revision is ever judged.

/// The series of both revisions, and what else they are chosen by.
pub(crate) struct SeriesSelector<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    pub(crate) candidate: &'a str,
    pub(crate) stable: &'a str,
    /// Further ones, each after a comma.
    pub(crate) matchers: String,
}

/// Pods of the gateway: what another pod exports under the names of its metrics is no evidence.
pub(crate) const GATEWAY_PODS: &str = "slipway-gateway-[a-z0-9]+-[a-z0-9]+";
/// Requests at the preview address have another role: somebody looks, and chooses what to ask.
pub(crate) const ROLES: &str = r#"role=~"stable|candidate""#;

impl SeriesSelector<'_> {
    /// Increase of a metric's series of both revisions since confirmation, of these pods, with
    /// further matchers. A pod that is scraped twice, by two jobs or two Prometheus behind one
    /// address, counts once: of series that agree in `labels` the largest.
    pub(crate) fn increase(&self, metric: &str, pods: &str, further: &str, labels: &str) -> String {
        let Self { namespace, name, candidate, stable, matchers } = self;
        format!(
            r#"max by (pod, revision, {labels}) (increase({metric}{{namespace="{namespace}",pod=~"{pods}",modeldeployment="{name}",revision=~"{candidate}|{stable}"{matchers}{further}}}[{{{{window}}}}]))"#
        )
    }
}

/// Sums by revision and by a label `result`, made from the values of `label`. Prometheus anchors
/// the expressions of label_replace, so `correct` does not match `incorrect`.
pub(crate) fn sum_by_result(vector: &str, label: &str, bad: &str, good: &str) -> String {
    let inner = format!(r#"label_replace({vector}, "result", "bad", "{label}", "{bad}")"#);
    format!(
        r#"sum by (revision, result) (label_replace({inner}, "result", "good", "{label}", "{good}"))"#
    )
}
