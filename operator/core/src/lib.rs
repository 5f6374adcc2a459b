//! The pure brain of the Slipway operator: plan(&Observed, now) -> Plan.
