//! Whether whoever asks says what is traced.
//!
//! A `traceparent` has a flag that says that its trace is recorded, and the SDK's samplers that are based on parents follow it. Where anybody may ask, anybody could
//! so make all requests be recorded. There the trace goes on, and whether it is recorded is decided by our own share. Not by the id of the trace, as the SDK would
//! do it: that is the client's choice as well.

use std::sync::OnceLock;

use opentelemetry::trace::{SpanContext, TraceFlags};

/// The share of traces that are recorded where parents are not trusted.
static OWN_SHARE: OnceLock<f64> = OnceLock::new();

/// Those who send us a `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parents {
    /// They have decided already: gateways, before model servers.
    Trusted,
    /// Anybody.
    Untrusted,
}

impl Parents {
    /// As `SLIPWAY_TRACE_PARENTS` says: `Trusted`, where all who reach the program are known to decide well; or else not.
    pub fn of_environment() -> Self {
        Self::named(std::env::var("SLIPWAY_TRACE_PARENTS").ok().as_deref())
    }

    fn named(word: Option<&str>) -> Self {
        if word == Some("Trusted") { Self::Trusted } else { Self::Untrusted }
    }

    /// From now on it is so.
    pub(crate) fn apply(self) {
        if self == Self::Untrusted {
            let variable = |name| std::env::var(name).ok();
            let share =
                own_share(variable("OTEL_TRACES_SAMPLER").as_deref(), variable("OTEL_TRACES_SAMPLER_ARG").as_deref());
            distrust(share);
        }
    }
}

/// From now on such a share is recorded, whatever parents say.
pub(crate) fn distrust(share: f64) {
    // A second call finds what the first has read.
    let _ = OWN_SHARE.set(share);
}

/// The share that the SDK would take of traces without a parent.
fn own_share(sampler: Option<&str>, argument: Option<&str>) -> f64 {
    match sampler {
        Some("always_off" | "parentbased_always_off") => 0.0,
        Some("traceidratio" | "parentbased_traceidratio") => {
            let share = argument.and_then(|share| share.parse::<f64>().ok()).filter(|share| share.is_finite());
            share.map_or(1.0, |share| share.clamp(0.0, 1.0))
        }
        _ => 1.0,
    }
}

/// A parent as it counts.
pub(crate) fn decided(parent: SpanContext) -> SpanContext {
    match OWN_SHARE.get() {
        Some(share) => decide(parent, rand::random_bool(*share)),
        None => parent,
    }
}

fn decide(parent: SpanContext, recorded: bool) -> SpanContext {
    let flags = if recorded { TraceFlags::SAMPLED } else { TraceFlags::default() };
    SpanContext::new(parent.trace_id(), parent.span_id(), flags, true, parent.trace_state().clone())
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TraceState;

    use super::*;

    #[test]
    fn our_own_share_is_that_of_the_sampler() {
        for (sampler, argument, share) in [
            (Some("parentbased_traceidratio"), Some("0.01"), 0.01),
            (Some("traceidratio"), Some("7"), 1.0),
            (Some("traceidratio"), Some("NaN"), 1.0),
            (Some("parentbased_always_off"), Some("1"), 0.0),
            (None, Some("0.5"), 1.0),
        ] {
            assert_eq!(own_share(sampler, argument), share, "{sampler:?} {argument:?}");
        }
        assert_eq!(Parents::named(Some("Trusted")), Parents::Trusted);
        assert!([None, Some(""), Some("yes")].iter().all(|word| Parents::named(*word) == Parents::Untrusted));
    }

    #[test]
    fn a_decision_leaves_the_trace_as_it_is() {
        let parent = SpanContext::new(7_u128.into(), 9_u64.into(), TraceFlags::SAMPLED, true, TraceState::default());
        for recorded in [true, false] {
            let decided = decide(parent.clone(), recorded);
            assert_eq!((decided.trace_id(), decided.span_id()), (parent.trace_id(), parent.span_id()));
            assert!(decided.is_sampled() == recorded && decided.is_remote());
        }
    }
}
