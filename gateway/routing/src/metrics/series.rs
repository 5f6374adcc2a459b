//! Counters and gauges of ModelDeployments and of their revisions. Each is declared only here, with
//! its handle, name and help; registration, series and removal are generated from that.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use slipway_contracts::metric_names::{self, family_name};

use super::labels::{ModelLabels, RevisionLabels};

/// Declares metrics of one kind with the same labels, in the order in which they are exposed: a
/// struct of the handles for one label set, and a struct of the families.
macro_rules! declare_series {
    (
        $(#[$doc:meta])*
        $handles:ident of $families:ident by $labels:ident: $kind:ident {
            $($(#[$about:meta])* $name:ident = $metric:expr, $help:literal;)+
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $handles {
            $($(#[$about])* pub $name: $kind,)+
        }

        #[derive(Debug, Default)]
        pub(super) struct $families {
            $($name: Family<$labels, $kind>,)+
        }

        impl $families {
            pub(super) fn register(&self, registry: &mut Registry) {
                $(registry.register($metric, $help, self.$name.clone());)+
            }

            /// Handles for one label set; the series exist from now on.
            pub(super) fn handles(&self, labels: &$labels) -> $handles {
                $handles { $($name: self.$name.get_or_create_owned(labels),)+ }
            }

            /// Removes the series.
            pub(super) fn remove(&self, labels: &$labels) {
                $(self.$name.remove(labels);)+
            }
        }
    };
}

declare_series! {
    /// Counters of a ModelDeployment.
    ModelCounters of ModelCounterFamilies by ModelLabels: Counter {
        /// Requests that had to be kept from the candidate, because they cannot be replayed.
        unshielded = "slipway_gateway_unshielded",
            "Requests kept from the candidate: not replayable";
    }
}

declare_series! {
    /// Counters of a revision.
    ArmCounters of ArmCounterFamilies by RevisionLabels: Counter {
        /// Replays to the other arm.
        shielded = family_name(metric_names::GATEWAY_SHIELDED_TOTAL),
            "Requests that one arm failed, asked of the other";
        /// Failures that were passed on because the budget was spent.
        shield_refused = "slipway_gateway_shield_refused", "Failures passed on: budget spent";
        /// Requests of stable that it took while stable had no endpoint.
        spilled = "slipway_gateway_spilled",
            "Requests that the candidate took for want of a pod of stable";
        /// Attempts on another pod.
        retries = "slipway_gateway_retries", "Attempts on another pod of the same arm";
    }
}

declare_series! {
    /// Gauges of a revision.
    ArmGauges of ArmGaugeFamilies by RevisionLabels: Gauge {
        /// The weight in force.
        weight = metric_names::GATEWAY_WEIGHT_PERMILLE, "Weight in force";
        /// 1 while the brake holds.
        braked = metric_names::GATEWAY_BRAKED,
            "1 while this gateway keeps traffic from the candidate";
        /// Endpoints that are used.
        endpoints = "slipway_gateway_endpoints", "Endpoints in use";
    }
}

declare_series! {
    /// Gauges of a ModelDeployment.
    ModelGauges of ModelGaugeFamilies by ModelLabels: Gauge {
        /// The generation in force.
        generation = metric_names::GATEWAY_GENERATION, "Generation of weights in force";
    }
}
