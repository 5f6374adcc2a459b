//! The conformance runner against this server. `docs/conformance-report.md` is its report.

use std::path::Path;

use slipway_conformance::{CheckOutcome, ConformanceOptions, ConformanceReport, run_checks};

use super::support::{DEADLINE, Server, client};

async fn report(server: &Server) -> ConformanceReport {
    // Installs the crypto provider that the runner's client needs.
    drop(client());
    let options = ConformanceOptions {
        url: server.api.clone(),
        grpc: Some(server.api.clone()),
        model: "m".into(),
        timeout: DEADLINE,
    };
    run_checks(&options).await.unwrap()
}

/// `affine` has one input, `simple` two of INT32, `classifier` outputs of two datatypes, `types`
/// one of every datatype.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_fails() {
    for (model, skipped) in [("simple", 3), ("affine", 4), ("classifier", 4), ("types", 42)] {
        let server = Server::start(model, &[]);
        let report = report(&server).await;
        assert!(report.conforms(), "{model}\n{}", report.to_table());
        assert!(
            report.checks.iter().all(|row| row.outcome != CheckOutcome::Fail),
            "{model}\n{}",
            report.to_table()
        );
        let skips = report.checks.iter().filter(|row| row.outcome == CheckOutcome::Skip).count();
        assert!(skips <= skipped, "{model}: {skips} skipped\n{}", report.to_table());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_published_report_is_this_one() {
    let server = Server::start("simple", &[]);
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/conformance-report.md");
    let now = report(&server).await.to_markdown();
    let published = std::fs::read_to_string(&page).unwrap_or_default();
    if now != published {
        std::fs::write(&page, &now).unwrap();
    }
    assert_eq!(
        now, published,
        "the report was stale and has been rewritten: look at the change and commit it"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_does_not_conform() {
    drop(client());
    let url = "http://127.0.0.1:9".to_owned();
    let options = ConformanceOptions { url, grpc: None, model: "m".into(), timeout: DEADLINE };
    assert!(!run_checks(&options).await.unwrap().conforms());
}
