//! Replays the corpus, and runs mutated seeds.

use proptest::prelude::*;
use slipway_fuzz::{TARGETS, seeds};

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let path = format!("{}/corpus/{target}.b64", env!("CARGO_MANIFEST_DIR"));
    let lines = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{path}: {error}; make fuzz writes it"));
    seeds::unpack(&lines)
}

#[test]
fn every_seed_is_accepted() {
    for (target, run) in TARGETS {
        let seeds = seeds::of(target);
        assert!(!seeds.is_empty(), "no seeds of {target}");
        for seed in seeds {
            assert!(run(&seed), "{target} refuses {}", String::from_utf8_lossy(&seed));
        }
    }
}

#[test]
fn the_corpus_breaks_nothing() {
    for (target, run) in TARGETS {
        let inputs = corpus(target);
        let accepted = inputs.iter().filter(|input| run(input)).count();
        assert!(
            accepted > 0 && accepted < inputs.len(),
            "{target}: {accepted} of {} are accepted",
            inputs.len()
        );
    }
}

proptest! {
    /// A seed with a part overwritten: the cheapest fuzzer, in every run of the tests.
    #[test]
    fn spoilt_seeds_break_nothing(number in any::<usize>(), at in any::<usize>(), part in proptest::collection::vec(any::<u8>(), 1..12)) {
        for (target, run) in TARGETS {
            let seeds = seeds::of(target);
            let mut seed = seeds[number % seeds.len()].clone();
            let at = at % seed.len();
            let end = (at + part.len()).min(seed.len());
            seed.splice(at..end, part.iter().copied());
            run(&seed);
        }
    }
}
