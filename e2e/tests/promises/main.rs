//! One file for each promise to users, all in one program: it is linked once, and tests that do not
//! disturb one another run in parallel. They need a cluster with Slipway installed: `make e2e`.

#![allow(clippy::expect_used, reason = "a test may panic, and so may what it calls")]

mod any_pod_fits;
mod attackers_wait_outside;
mod autoscaler_takes_over;
mod bad_model;
mod bad_spec_is_refused;
mod baseline_is_watched;
mod blue_green;
mod broken_children_are_mended;
mod caches_answer;
mod canary_promotes;
mod canary_rolls_back;
mod chart_brings_prometheus;
mod commands_are_bound;
mod deadlines_hold;
mod forgeries_count_nothing;
mod gateway_rolls;
mod gateways_are_updated_in_turn;
mod gateways_follow_their_namespace;
mod governed_namespace_works;
mod grpc_is_shielded;
mod hpa_scales;
mod jobs_are_done;
mod memory_bounds_the_workers_of_a_pod;
mod neighbours_are_safe;
mod new_version_midway;
mod no_traffic_holds;
mod node_drain_loses_nothing;
mod one_revision_is_one_model;
mod operator_absent;
mod operator_killed_mid_step;
mod pod_killed_under_load;
mod prometheus_down_holds;
mod prometheus_with_login_judges;
mod refused_children_are_told;
mod restart_replaces_pods;
mod tenants_stay_apart;
mod two_operators_share_a_cluster;
mod uninstall_leaves_nothing;
mod unreachable_gateways_roll_back;
mod user_aborts;
mod user_pauses_and_promotes;
mod workers_scale;
