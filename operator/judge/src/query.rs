//! What the metrics poller asks Prometheus, over the metrics of docs/metrics.md.
//!
//! `increase(...[{{window}}])` looks back exactly to the confirmation of the weight: the poller
//! puts in the age of the window at each reading. It bears counter resets, and it names both
//! revisions, so neither an older weight nor an older revision is ever judged.

use slipway_crds::v1alpha1::{GateSpec, GateType};

use crate::evidence::{EvidenceQuery, GateQueries};

/// The queries of all gates, in their order. `matchers` are those of the administrator, where one
/// store holds the metrics of several clusters.
pub fn gate_queries(
    namespace: &str,
    name: &str,
    gates: &[GateSpec],
    candidate: &str,
    stable: &str,
    matchers: &[String],
) -> Vec<GateQueries> {
    let matchers = matchers.iter().map(|matcher| format!(",{matcher}")).collect();
    let selector = SeriesSelector { namespace, name, candidate, stable, matchers };
    gates
        .iter()
        .map(|gate| GateQueries { gate: gate.name.clone(), queries: gate_query(gate, &selector) })
        .collect()
}

struct SeriesSelector<'a> {
    namespace: &'a str,
    name: &'a str,
    candidate: &'a str,
    stable: &'a str,
    /// Further ones, each after a comma.
    matchers: String,
}

/// Pods of the gateway: what another pod exports under the names of its metrics is no evidence.
const GATEWAY_PODS: &str = "slipway-gateway-[a-z0-9]+-[a-z0-9]+";
/// Requests at the preview address have another role: somebody looks, and chooses what to ask.
const ROLES: &str = r#"role=~"stable|candidate""#;

impl SeriesSelector<'_> {
    /// Increase of a metric's series of both revisions since confirmation, of these pods, with
    /// further matchers. A pod that is scraped twice, by two jobs or two Prometheus behind one
    /// address, counts once: of series that agree in `labels` the largest.
    fn increase(&self, metric: &str, pods: &str, further: &str, labels: &str) -> String {
        let Self { namespace, name, candidate, stable, matchers } = self;
        format!(
            r#"max by (pod, revision, {labels}) (increase({metric}{{namespace="{namespace}",pod=~"{pods}",modeldeployment="{name}",revision=~"{candidate}|{stable}"{matchers}{further}}}[{{{{window}}}}]))"#
        )
    }
}

fn gate_query(gate: &GateSpec, selector: &SeriesSelector<'_>) -> EvidenceQuery {
    match gate.type_ {
        GateType::ErrorRate => EvidenceQuery::Counts(errors_query(selector)),
        GateType::Latency => EvidenceQuery::Buckets(format!(
            "sum by (revision, le) ({})",
            selector.increase(
                "slipway_gateway_request_duration_seconds_bucket",
                GATEWAY_PODS,
                &format!(",{ROLES}"),
                "role, le"
            )
        )),
        GateType::Accuracy => EvidenceQuery::Counts(accuracy_query(selector)),
        GateType::PromQl => {
            let query = gate.prom_ql.as_ref().map(|p| p.query.as_str()).unwrap_or_default();
            EvidenceQuery::Value(substitute_variables(query, selector))
        }
    }
}

/// The outcomes for which an arm is to blame are bad, its answers (a client's own mistake is
/// answered rightly with 4xx) are good, and requests whose client left before stable would have
/// answered are neither; one that waited for longer is a `timeout`. `contract_error` is a 4xx that
/// stable contradicted; `try_timeout` is what took longer than a try may take, counted alike in
/// both arms.
fn errors_query(selector: &SeriesSelector<'_>) -> String {
    let outcomes =
        "success|client_error|contract_error|server_error|timeout|try_timeout|unavailable";
    let further = format!(r#",{ROLES},outcome=~"{outcomes}""#);
    let increase = selector.increase(
        "slipway_gateway_requests_total",
        GATEWAY_PODS,
        &further,
        "role, outcome",
    );
    sum_by_result(
        &increase,
        "outcome",
        "contract_error|server_error|timeout|try_timeout|unavailable",
        "success|client_error",
    )
}

fn accuracy_query(selector: &SeriesSelector<'_>) -> String {
    let increase = selector.increase(
        "slipway_gateway_feedback_total",
        GATEWAY_PODS,
        r#",result=~"correct|incorrect""#,
        "result",
    );
    sum_by_result(&increase, "result", "incorrect", "correct")
}

/// Sums by revision and by a label `result`, made from the values of `label`. Prometheus anchors
/// the expressions of label_replace, so `correct` does not match `incorrect`.
fn sum_by_result(vector: &str, label: &str, bad: &str, good: &str) -> String {
    let inner = format!(r#"label_replace({vector}, "result", "bad", "{label}", "{bad}")"#);
    format!(
        r#"sum by (revision, result) (label_replace({inner}, "result", "good", "{label}", "{good}"))"#
    )
}

/// A user's query with its variables, all but `{{window}}`, which only the poller knows. Names and
/// revisions are DNS labels: nothing to quote.
fn substitute_variables(query: &str, selector: &SeriesSelector<'_>) -> String {
    query
        .replace("{{candidate}}", selector.candidate)
        .replace("{{stable}}", selector.stable)
        .replace("{{modeldeployment}}", selector.name)
        .replace("{{namespace}}", selector.namespace)
}
