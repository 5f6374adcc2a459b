//! Converts answers of Prometheus to readings of gates. All functions are pure.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use prometheus_http_query::response::{Data, InstantVector, PromqlResult};
use serde::Deserialize;
use slipway_judge::evidence::{EvidenceQuery, GateCounts, GateReading};

/// Longest stored error text.
const TEXT_CHARS: usize = 200;

/// Response of the HTTP API.
#[derive(Deserialize)]
struct PrometheusResponse {
    status: String,
    data: Option<PromqlResult>,
    error: Option<String>,
}

/// The query with `{{window}}` replaced by the age of the window, at least one second.
pub fn with_window(query: &str, since: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(since).as_secs().max(1);
    query.replace("{{window}}", &format!("{seconds}s"))
}

/// The text of a query of any type.
pub fn query_text(queries: &EvidenceQuery) -> &str {
    match queries {
        EvidenceQuery::Counts(query)
        | EvidenceQuery::Buckets(query)
        | EvidenceQuery::Value(query) => query,
    }
}

/// A reading of a provider that cannot be used, with the reason.
pub fn provider_down(why: impl std::fmt::Display) -> GateReading {
    GateReading::ProviderDown(why.to_string().chars().take(TEXT_CHARS).collect())
}

/// A reading without usable data, with the reason.
pub fn no_data(why: impl std::fmt::Display) -> GateReading {
    GateReading::NoData(why.to_string().chars().take(TEXT_CHARS).collect())
}

/// Parses the body of an answer. A rejected query (400, 422) comes from a working provider, so the
/// reading is "no data".
pub fn parse_reading(queries: &EvidenceQuery, http_status: u16, body: &[u8]) -> GateReading {
    let envelope = serde_json::from_slice::<PrometheusResponse>(body);
    if !(200..300).contains(&http_status) {
        return match (http_status, envelope) {
            (400 | 422, Ok(e)) if e.status == "error" => {
                no_data(format!("query refused: {}", e.error.unwrap_or_default()))
            }
            (_, Ok(PrometheusResponse { error: Some(error), .. })) => {
                provider_down(format!("HTTP {http_status}: {error}"))
            }
            _ => provider_down(format!("HTTP {http_status}")),
        };
    }
    match envelope {
        Ok(PrometheusResponse { data: Some(result), .. }) => from_data(queries, result.data()),
        Ok(PrometheusResponse { error, .. }) => {
            provider_down(error.unwrap_or_else(|| "answer without data".into()))
        }
        Err(error) => provider_down(format!("answer cannot be read: {error}")),
    }
}

fn from_data(queries: &EvidenceQuery, data: &Data) -> GateReading {
    match (queries, data) {
        (EvidenceQuery::Value(_), Data::Scalar(sample)) => GateReading::Value(sample.value()),
        (EvidenceQuery::Value(_), Data::Vector(series)) => match series.as_slice() {
            [] => no_data("query returned no series"),
            [one] => GateReading::Value(one.sample().value()),
            many => no_data(format!("query returned {} series, needs exactly one", many.len())),
        },
        (_, Data::Vector(series)) if series.is_empty() => no_data("query returned no series"),
        (EvidenceQuery::Counts(_), Data::Vector(series)) => read_counts(series),
        (EvidenceQuery::Buckets(_), Data::Vector(series)) => read_buckets(series),
        (EvidenceQuery::Value(_), _) => no_data("query returned neither a number nor a vector"),
        _ => no_data("query did not return a vector"),
    }
}

fn series_label<'a>(
    metric: &'a HashMap<String, String>,
    name: &str,
) -> Result<&'a str, GateReading> {
    metric
        .get(name)
        .map(String::as_str)
        .ok_or_else(|| no_data(format!("a series lacks the label {name}")))
}

fn read_counts(series: &[InstantVector]) -> GateReading {
    let mut all: BTreeMap<String, GateCounts> = BTreeMap::new();
    for one in series {
        let read = || -> Result<_, GateReading> {
            Ok((series_label(one.metric(), "revision")?, series_label(one.metric(), "result")?))
        };
        let (revision, result) = match read() {
            Ok(labels) => labels,
            Err(reading) => return reading,
        };
        let counts = all.entry(revision.to_owned()).or_default();
        match result {
            "bad" => counts.bad += one.sample().value(),
            "good" => counts.good += one.sample().value(),
            other => return no_data(format!("label result is {other:?}, neither bad nor good")),
        }
    }
    GateReading::Counts(all)
}

fn read_buckets(series: &[InstantVector]) -> GateReading {
    let mut all: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for one in series {
        let read = || -> Result<_, GateReading> {
            let le = series_label(one.metric(), "le")?;
            // Rust parses "+Inf", Prometheus' notation, as infinity.
            let bound: f64 =
                le.parse().map_err(|_| no_data(format!("label le is {le:?}, not a number")))?;
            Ok((series_label(one.metric(), "revision")?, bound))
        };
        match read() {
            Ok((revision, bound)) => {
                all.entry(revision.to_owned()).or_default().push((bound, one.sample().value()))
            }
            Err(reading) => return reading,
        }
    }
    for (revision, bounds) in &mut all {
        bounds.sort_by(|a, b| a.0.total_cmp(&b.0));
        if bounds.last().is_none_or(|(bound, _)| *bound != f64::INFINITY) {
            return no_data(format!("buckets of revision {revision} lack le=\"+Inf\""));
        }
        if bounds.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return no_data(format!(
                "buckets of revision {revision} have a bound twice; sum by (revision, le)"
            ));
        }
    }
    GateReading::Buckets(all)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(queries: &EvidenceQuery, data: Value) -> GateReading {
        let body = json!({"status": "success", "data": data});
        parse_reading(queries, 200, body.to_string().as_bytes())
    }

    fn vector(series: &[(Value, &str)]) -> Value {
        let result: Vec<Value> =
            series.iter().map(|(m, v)| json!({"metric": m, "value": [1.5, v]})).collect();
        json!({"resultType": "vector", "result": result})
    }

    fn value() -> EvidenceQuery {
        EvidenceQuery::Value("q".into())
    }

    fn says(reading: &GateReading) -> String {
        match reading {
            GateReading::NoData(text) => format!("no data: {text}"),
            GateReading::ProviderDown(text) => format!("down: {text}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn counts_by_revision_and_result() {
        let data = vector(&[
            (json!({"revision": "a", "result": "bad"}), "3"),
            (json!({"revision": "a", "result": "good"}), "97.5"),
            (json!({"revision": "b", "result": "good"}), "5"),
        ]);
        let expected = [
            ("a".to_owned(), GateCounts { bad: 3.0, good: 97.5 }),
            ("b".to_owned(), GateCounts { bad: 0.0, good: 5.0 }),
        ];
        assert_eq!(
            read(&EvidenceQuery::Counts("q".into()), data),
            GateReading::Counts(expected.into())
        );
    }

    #[test]
    fn buckets_are_sorted_and_end_at_infinity() {
        let queries = EvidenceQuery::Buckets("q".into());
        let series = |le: &str, n: &'static str| (json!({"revision": "a", "le": le}), n);
        let data = vector(&[series("+Inf", "9"), series("0.5", "7"), series("0.05", "2")]);
        let expected = vec![(0.05, 2.0), (0.5, 7.0), (f64::INFINITY, 9.0)];
        assert_eq!(read(&queries, data), GateReading::Buckets([("a".to_owned(), expected)].into()));
        assert!(says(&read(&queries, vector(&[series("0.5", "7")]))).contains("+Inf"));
        assert!(
            says(&read(&queries, vector(&[series("+Inf", "7"), series("+Inf", "8")])))
                .contains("twice")
        );
    }

    #[test]
    fn exactly_one_number() {
        assert_eq!(read(&value(), vector(&[(json!({}), "0.25")])), GateReading::Value(0.25));
        assert_eq!(
            read(&value(), json!({"resultType": "scalar", "result": [1.5, "2"]})),
            GateReading::Value(2.0)
        );
        assert_eq!(says(&read(&value(), vector(&[]))), "no data: query returned no series");
        let two = vector(&[(json!({"a": "1"}), "1"), (json!({"a": "2"}), "2")]);
        assert_eq!(
            says(&read(&value(), two)),
            "no data: query returned 2 series, needs exactly one"
        );
        let nan = read(&value(), vector(&[(json!({}), "NaN")]));
        assert!(matches!(nan, GateReading::Value(v) if v.is_nan()));
        assert!(
            matches!(read(&value(), vector(&[(json!({}), "+Inf")])), GateReading::Value(v) if v.is_infinite())
        );
    }

    #[test]
    fn shapes_that_do_not_fit_are_no_data() {
        let counts = EvidenceQuery::Counts("q".into());
        for (data, text) in [
            (
                vector(&[(json!({"result": "bad"}), "1")]),
                "no data: a series lacks the label revision",
            ),
            (
                vector(&[(json!({"revision": "a", "result": "ok"}), "1")]),
                "no data: label result is \"ok\", neither bad nor good",
            ),
            (vector(&[]), "no data: query returned no series"),
            (
                json!({"resultType": "scalar", "result": [1.5, "2"]}),
                "no data: query did not return a vector",
            ),
        ] {
            assert_eq!(says(&read(&counts, data)), text);
        }
    }

    #[test]
    fn a_provider_that_fails_is_down_and_one_that_refuses_has_no_data() {
        let refused =
            json!({"status": "error", "errorType": "bad_data", "error": "parse error"}).to_string();
        assert_eq!(
            says(&parse_reading(&value(), 400, refused.as_bytes())),
            "no data: query refused: parse error"
        );
        for (code, body) in [
            (400, "nonsense"),
            (401, "x"),
            (429, ""),
            (500, "{}"),
            (503, refused.as_str()),
            (200, "<html>"),
        ] {
            assert!(
                says(&parse_reading(&value(), code, body.as_bytes())).starts_with("down: "),
                "{code} {body}"
            );
        }
        let long = json!({"status": "error", "error": "x".repeat(5000)}).to_string();
        assert!(says(&parse_reading(&value(), 500, long.as_bytes())).len() < 220);
    }

    #[test]
    fn the_window_is_whole_seconds_and_never_empty() {
        let at = |s| Timestamp::from_second(s).unwrap();
        assert_eq!(with_window("x[{{window}}] / y[{{window}}]", at(10), at(47)), "x[37s] / y[37s]");
        assert_eq!(with_window("x[{{window}}]", at(10), at(10)), "x[1s]");
        assert_eq!(with_window("x[{{window}}]", at(10), at(3)), "x[1s]");
    }
}
