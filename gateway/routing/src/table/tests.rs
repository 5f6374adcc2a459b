use std::net::SocketAddr;
use std::time::Duration;

use slipway_crds::routing::RoutingClaims;
use slipway_gateway_policy::config::{BrakeConfig, PodSettings, ShieldConfig};

use super::*;

struct Fixture {
    router: ModelRouter,
    metrics: Arc<GatewayMetrics>,
    snapshot: RoutingSnapshot,
}

impl Fixture {
    fn new() -> Self {
        let metrics = GatewayMetrics::new();
        let settings = ProcessSettings {
            series_retention: Duration::from_secs(600),
            ..ProcessSettings::default()
        };
        let keys = KeyStore::new("/nowhere".into(), Arc::clone(&metrics));
        let router = ModelRouter::new(
            settings,
            CapacityPools::new(100, 1 << 20),
            Arc::clone(&metrics),
            PodConnector::default(),
            keys,
        );
        let config = ModelConfig {
            name: "digits".into(),
            uid: "uid".into(),
            created: 0,
            claims: RoutingClaims { model_name: "digits".into(), ..RoutingClaims::default() },
            weights: None,
            stable: None,
            timeout: Duration::from_secs(30),
            max_request: 16 << 20,
            scaled_to_zero: false,
            caching: false,
            sticky_header: None,
            replay: true,
            shield: ShieldConfig { enabled: true, candidate_timeout: None },
            brake: BrakeConfig {
                min_failures: 1,
                failure_millionths: 10000,
                ..BrakeConfig::DEFAULT
            },
            pod_settings: PodSettings::default(),
            outcomes: Vec::new(),
            rollout: String::new(),
            reveals_revision: false,
        };
        let snapshot = RoutingSnapshot {
            models: [("digits".to_owned(), config)].into(),
            ..RoutingSnapshot::default()
        };
        Self { router, metrics, snapshot }
    }

    fn config(&mut self) -> &mut ModelConfig {
        self.snapshot.models.get_mut("digits").unwrap()
    }

    fn weigh(&mut self, generation: i64, backends: &[(&str, ArmRole, u32)]) -> Arc<RoutedModel> {
        let backends = backends.iter().map(|(revision, role, permille)| WeightedBackend {
            revision: (*revision).into(),
            role: *role,
            permille: *permille,
        });
        self.config().weights =
            Some(TrafficWeights { generation, backends: backends.collect(), preview: None });
        self.apply()
    }

    fn pods(&mut self, revision: &str, count: u16, created: i64) {
        let ready = (0..count).map(|port| SocketAddr::from(([10, 0, 0, 1], port + 1))).collect();
        let group = EndpointGroup { ready, created, ..EndpointGroup::default() };
        self.snapshot.endpoints.insert(("digits".into(), revision.into()), group);
    }

    fn apply(&self) -> Arc<RoutedModel> {
        self.router.apply_snapshot(&self.snapshot);
        Arc::clone(&self.router.table().models["digits"])
    }
}

const HALF: [(&str, ArmRole, u32); 2] =
    [("aaa", ArmRole::Stable, 500), ("bbb", ArmRole::Candidate, 500)];

fn backends(model: &RoutedModel) -> Vec<(&str, u32)> {
    model.arms.iter().map(|arm| (arm.revision.as_str(), arm.permille)).collect()
}

#[test]
fn weights_that_vanish_stay_in_force() {
    let mut fixture = Fixture::new();
    fixture.weigh(7, &HALF);
    fixture.config().weights = None;
    let model = fixture.apply();
    assert_eq!(backends(&model), [("aaa", 500), ("bbb", 500)]);
    assert_eq!(model.weights.as_ref().map(|weights| weights.generation), Some(7));

    fixture.config().uid = "another".into();
    assert!(fixture.apply().weights.is_none(), "another object of the same name starts afresh");
}

#[test]
fn a_modeldeployment_that_is_made_again_keeps_the_traffic_of_its_pods() {
    let mut fixture = Fixture::new();
    fixture.pods("aaa", 1, 1);
    fixture.pods("bbb", 2, 2);
    fixture.weigh(7, &[("aaa", ArmRole::Stable, 1000)]);
    (fixture.config().uid, fixture.config().weights) = ("another".into(), None);
    for _ in 0..2 {
        let model = fixture.apply();
        assert_eq!(backends(&model), [("aaa", 1000)], "and not to the revision with most pods");
        assert_eq!(
            model.weights.as_ref().map(|weights| weights.generation),
            Some(0),
            "confirms nothing"
        );
    }
    assert_eq!(
        backends(&fixture.weigh(1, &HALF)),
        [("aaa", 500), ("bbb", 500)],
        "until it has its own"
    );
    // Without pods there are no weights to keep.
    (fixture.config().uid, fixture.config().weights) = ("a third".into(), None);
    fixture.pods("aaa", 0, 1);
    fixture.pods("bbb", 0, 2);
    assert!(fixture.apply().weights.is_none());
}

#[test]
fn without_any_weights_the_safest_revision_gets_all() {
    let mut fixture = Fixture::new();
    assert!(fixture.apply().arms.is_empty());
    fixture.pods("bbb", 1, 5);
    assert_eq!(backends(&fixture.apply()), [("bbb", 1000)], "the only one");
    fixture.pods("aaa", 1, 3);
    assert_eq!(backends(&fixture.apply()), [("aaa", 1000)], "of equals the oldest");
    fixture.pods("bbb", 2, 5);
    assert_eq!(backends(&fixture.apply()), [("bbb", 1000)], "the one with most pods");
    fixture.config().stable = Some("aaa".into());
    let model = fixture.apply();
    assert_eq!(backends(&model), [("aaa", 1000)], "what the status calls stable");
    assert_eq!(
        model.weights.as_ref().map(|weights| weights.generation),
        Some(0),
        "confirms nothing"
    );
    assert_eq!(backends(&fixture.weigh(1, &HALF)), [("aaa", 500), ("bbb", 500)]);
}

#[test]
fn requests_count_from_the_generation_and_endpoints_do_not_reset_them() {
    let mut fixture = Fixture::new();
    let count = |model: &RoutedModel| {
        model.arms[0].counts.requests.load(std::sync::atomic::Ordering::Relaxed)
    };
    fixture.weigh(1, &HALF).arms[0]
        .counts
        .requests
        .fetch_add(5, std::sync::atomic::Ordering::Relaxed);
    fixture.pods("aaa", 3, 0);
    let model = fixture.apply();
    assert_eq!((count(&model), model.arms[0].endpoints.ready_count()), (5, 3));
    assert_eq!(count(&fixture.weigh(2, &HALF)), 0);
}

#[test]
fn a_braked_candidate_gets_nothing_until_the_weights_are_written_anew() {
    let mut fixture = Fixture::new();
    let model = fixture.weigh(1, &HALF);
    model.arms[1].update_brake(true);
    assert!(
        (0..2000).all(|_| model.choose_arm(None).unwrap().revision == "aaa"),
        "in the table of that moment"
    );
    let model = fixture.weigh(2, &HALF);
    assert!(
        (0..2000).all(|_| model.choose_arm(None).unwrap().revision == "aaa"),
        "one generation may have been on its way"
    );
    let model = fixture.weigh(3, &HALF);
    assert!((0..2000).any(|_| model.choose_arm(None).unwrap().revision == "bbb"));
    model.arms[0].update_brake(true);
    assert!(!model.arms[0].is_braked(), "stable has no brake");
}

#[test]
fn slots_beyond_the_candidates_are_stables() {
    let mut fixture = Fixture::new();
    let three = [
        ("bbb", ArmRole::Candidate, 100),
        ("aaa", ArmRole::Stable, 700),
        ("ccc", ArmRole::Candidate, 200),
    ];
    let model = fixture.weigh(1, &three);
    let mut counts = HashMap::<&str, u32>::new();
    for _ in 0..1000 {
        *counts.entry(&model.choose_arm(None).unwrap().revision).or_default() += 1;
    }
    assert_eq!(counts, HashMap::from([("aaa", 700), ("bbb", 100), ("ccc", 200)]));
}

/// The metrics without those of feedback, which may arrive a day later.
fn of_requests(fixture: &Fixture) -> String {
    let later = |line: &str| {
        ["feedback", "outcome", "window"]
            .iter()
            .any(|it| line.contains(&format!("slipway_gateway_{it}")))
    };
    fixture.metrics.encode_text().unwrap().lines().filter(|line| !later(line)).collect()
}

#[tokio::test(start_paused = true)]
async fn series_of_a_revision_that_is_gone_stay_for_a_while_at_weight_zero() {
    let mut fixture = Fixture::new();
    fixture.weigh(1, &HALF);
    fixture.weigh(2, &[("aaa", ArmRole::Stable, 1000)]);
    let weight = r#"weight_permille{modeldeployment="digits",revision="bbb"} 0"#;
    assert!(fixture.metrics.encode_text().unwrap().contains(weight));
    fixture.router.sweep(Instant::now() + Duration::from_secs(599));
    assert!(fixture.metrics.encode_text().unwrap().contains("bbb"));
    fixture.router.sweep(Instant::now() + Duration::from_secs(601));
    let text = of_requests(&fixture);
    assert!(!text.contains("bbb") && text.contains("aaa"));

    fixture.snapshot = RoutingSnapshot::default();
    fixture.router.apply_snapshot(&fixture.snapshot);
    fixture.router.sweep(Instant::now() + Duration::from_secs(601));
    assert!(!of_requests(&fixture).contains("digits"));
}

#[test]
fn answers_of_a_revision_without_weight_are_still_told() {
    let mut fixture = Fixture::new();
    let model = fixture.weigh(1, &HALF);
    model.arms[1].state.in_flight.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let model = fixture.weigh(2, &[("aaa", ArmRole::Stable, 1000)]);
    let lingering: Vec<_> = model
        .draining_arms
        .iter()
        .map(|(revision, state)| (revision.as_str(), state.in_flight()))
        .collect();
    assert_eq!(lingering, [("bbb", 1)]);
}
