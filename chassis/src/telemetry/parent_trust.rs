//! Whether clients decide what is traced.
//!
//! A `traceparent` has a flag that its trace is recorded, and the SDK's samplers that are based on
//! parents follow it: any client could have all of its requests recorded. Where clients are not
//! trusted, the trace is continued, and chance with our own ratio decides whether it is recorded.
//! Not the id of the trace, by which the SDK would decide: the client chooses that as well.

use std::sync::OnceLock;

use opentelemetry::trace::{SpanContext, TraceFlags};

/// The share of traces that are recorded when parents are not trusted.
static SAMPLING_RATIO: OnceLock<f64> = OnceLock::new();

/// Whether senders of a `traceparent` decide what is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParentTrust {
    /// They do: gateways, which have decided for model servers.
    Trusted,
    /// They do not: they may be any client.
    Untrusted,
}

impl ParentTrust {
    /// Trusted when `SLIPWAY_TRACE_PARENTS` is `Trusted`: for programs that only known senders
    /// reach.
    pub fn from_environment() -> Self {
        Self::from_name(std::env::var("SLIPWAY_TRACE_PARENTS").ok().as_deref())
    }

    fn from_name(word: Option<&str>) -> Self {
        if word == Some("Trusted") { Self::Trusted } else { Self::Untrusted }
    }

    /// Puts it into force for the process.
    pub(crate) fn apply(self) {
        if self == Self::Untrusted {
            let variable = |name| std::env::var(name).ok();
            let share = sampling_ratio(
                variable("OTEL_TRACES_SAMPLER").as_deref(),
                variable("OTEL_TRACES_SAMPLER_ARG").as_deref(),
            );
            distrust_parents(share);
        }
    }
}

/// From now on this share of traces is recorded, whatever their parents' flags.
pub(crate) fn distrust_parents(share: f64) {
    // A second call keeps the value of the first.
    let _ = SAMPLING_RATIO.set(share);
}

/// The share that the SDK would record of traces without a parent.
fn sampling_ratio(sampler: Option<&str>, argument: Option<&str>) -> f64 {
    match sampler {
        Some("always_off" | "parentbased_always_off") => 0.0,
        Some("traceidratio" | "parentbased_traceidratio") => {
            let share = argument
                .and_then(|share| share.parse::<f64>().ok())
                .filter(|share| share.is_finite());
            share.map_or(1.0, |share| share.clamp(0.0, 1.0))
        }
        _ => 1.0,
    }
}

/// The parent with the flag that is in force.
pub(crate) fn resample_parent(parent: SpanContext) -> SpanContext {
    match SAMPLING_RATIO.get() {
        Some(share) => with_sampled_flag(parent, rand::random_bool(*share)),
        None => parent,
    }
}

fn with_sampled_flag(parent: SpanContext, recorded: bool) -> SpanContext {
    let flags = if recorded { TraceFlags::SAMPLED } else { TraceFlags::default() };
    SpanContext::new(parent.trace_id(), parent.span_id(), flags, true, parent.trace_state().clone())
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TraceState;

    use super::*;

    #[test]
    fn the_ratio_is_that_of_the_sampler() {
        for (sampler, argument, share) in [
            (Some("parentbased_traceidratio"), Some("0.01"), 0.01),
            (Some("traceidratio"), Some("7"), 1.0),
            (Some("traceidratio"), Some("NaN"), 1.0),
            (Some("parentbased_always_off"), Some("1"), 0.0),
            (None, Some("0.5"), 1.0),
        ] {
            assert_eq!(sampling_ratio(sampler, argument), share, "{sampler:?} {argument:?}");
        }
        assert_eq!(ParentTrust::from_name(Some("Trusted")), ParentTrust::Trusted);
        assert!(
            [None, Some(""), Some("yes")]
                .iter()
                .all(|word| ParentTrust::from_name(*word) == ParentTrust::Untrusted)
        );
    }

    #[test]
    fn a_decision_leaves_the_trace_as_it_is() {
        let parent = SpanContext::new(
            7_u128.into(),
            9_u64.into(),
            TraceFlags::SAMPLED,
            true,
            TraceState::default(),
        );
        for recorded in [true, false] {
            let decided = with_sampled_flag(parent.clone(), recorded);
            assert_eq!(
                (decided.trace_id(), decided.span_id()),
                (parent.trace_id(), parent.span_id())
            );
            assert!(decided.is_sampled() == recorded && decided.is_remote());
        }
    }
}
