//! Thousands of worlds with all kinds of faults. `SLIPWAY_SIM_SEEDS=n` changes their number,
//! `SLIPWAY_SIM_SEED=n` runs a single one.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::atomic::{AtomicU64, Ordering};

use slipway_sim::{SeedOutcome, run_seed};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn show(seed: u64, outcome: &SeedOutcome) -> String {
    format!(
        "seed {seed}:\n{}\n\nbroken:\n{}",
        outcome.transcript.join("\n"),
        outcome.violations.join("\n")
    )
}

#[test]
fn no_seed_breaks_an_invariant() {
    if let Some(seed) = number("SLIPWAY_SIM_SEED") {
        let outcome = run_seed(seed);
        println!("{}", show(seed, &outcome));
        assert!(outcome.violations.is_empty());
        return;
    }
    let seeds = number("SLIPWAY_SIM_SEEDS").unwrap_or(2000);
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(2, |it| it.get());
    let started = std::time::Instant::now();
    let parts: Vec<Part> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| work(&next, seeds))).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    let all = parts.into_iter().fold(Part::default(), Part::add);
    println!(
        "{seeds} seeds in {:?}: {} plans, {} writes",
        started.elapsed(),
        all.plans,
        all.writes
    );
    println!(
        "bad promoted: {:?}, good taken back: {:?}, failing seeds: {}",
        all.bad,
        all.good,
        all.failed.len()
    );
    if let Some((seed, outcome)) = all.failed.iter().min_by_key(|(seed, _)| *seed) {
        let rest: Vec<String> =
            all.failed.iter().map(|(seed, it)| format!("{seed}: {}", it.violations[0])).collect();
        panic!("{}\n\nall failing seeds:\n{}", show(*seed, outcome), rest.join("\n"));
    }
    // The guaranteed error rates of the judge, with a margin for chance.
    assert!(
        f64::from(all.bad.1) <= 1.0 + 0.01 * f64::from(all.bad.0),
        "bad versions promoted: {:?}",
        all.bad
    );
    assert!(
        f64::from(all.good.1) <= 3.0 + 0.015 * f64::from(all.good.0),
        "good versions taken back: {:?}",
        all.good
    );
}

#[derive(Default)]
struct Part {
    bad: (u32, u32),
    good: (u32, u32),
    plans: u64,
    writes: u64,
    failed: Vec<(u64, SeedOutcome)>,
}

impl Part {
    fn add(mut self, other: Self) -> Self {
        self.bad = (self.bad.0 + other.bad.0, self.bad.1 + other.bad.1);
        self.good = (self.good.0 + other.good.0, self.good.1 + other.good.1);
        self.plans += other.plans;
        self.writes += other.writes;
        self.failed.extend(other.failed);
        self
    }
}

fn work(next: &AtomicU64, seeds: u64) -> Part {
    let mut part = Part::default();
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= seeds {
            return part;
        }
        let outcome = run_seed(seed);
        part.bad = (part.bad.0 + outcome.bad.0, part.bad.1 + outcome.bad.1);
        part.good = (part.good.0 + outcome.good.0, part.good.1 + outcome.good.1);
        part.plans += outcome.plans;
        part.writes += outcome.writes;
        if !outcome.violations.is_empty() {
            part.failed.push((seed, outcome));
        }
    }
}

#[test]
fn a_seed_is_the_same_world_again() {
    let (one, two) = (run_seed(7), run_seed(7));
    assert_eq!(one.transcript, two.transcript);
}

/// Compares the transcripts of scripts with the approved ones. `SLIPWAY_BLESS=1` approves the
/// current ones; review the difference before you commit it.
#[test]
fn scripts_go_as_approved() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scripts");
    let bless = std::env::var_os("SLIPWAY_BLESS").is_some();
    let mut played = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|it| it != "txt") {
            continue;
        }
        played += 1;
        let transcript =
            slipway_sim::script::play_script(&std::fs::read_to_string(&path).unwrap()).unwrap();
        assert!(!transcript.contains("BROKEN"), "{}:\n{transcript}", path.display());
        let approved = path.with_extension("out");
        if bless {
            std::fs::write(&approved, transcript).unwrap();
        } else {
            let approved = std::fs::read_to_string(approved).unwrap_or_default();
            assert_eq!(transcript, approved, "{}", path.display());
        }
    }
    assert!(played > 0);
}
