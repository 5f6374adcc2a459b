//! Properties that must hold for all values.
#![allow(clippy::unwrap_used, reason = "these are tests")]

use proptest::collection::vec;
use proptest::prelude::*;
use slipway_baseline::stats::{self, DriftStatistics};
use slipway_baseline::{
    BaselineError, BaselineModel, BaselineTensorSpec, CalibrationCurve, FORMAT, FeatureColumn,
    GoldenRequest, GoldenSet, GoldenTensor, HistogramBinner, HistogramBins, ModelBaseline,
    NumericTolerance, ReferenceHistogram,
};

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => -1e3..1e3_f64,
        2 => (-3..3_i8).prop_map(f64::from),
        1 => any::<f64>(),
        1 => Just(f64::NAN),
        1 => Just(f64::NEG_INFINITY),
    ]
}

/// The definition, implemented literally.
fn slowly(bins: &HistogramBins, x: f64) -> usize {
    let HistogramBins::Numeric { edges, low, high } = bins else { unreachable!() };
    if x.is_nan() {
        edges.len() + 2
    } else if x < *low || x > *high {
        edges.len() + 1
    } else {
        edges.iter().position(|e| x <= *e).unwrap_or(edges.len())
    }
}

proptest! {
    #[test]
    fn every_number_has_exactly_one_bin(reference in vec(number(), 1..200), live in vec(number(), 0..100), bins in 0..40_usize) {
        let histogram = ReferenceHistogram::numeric(&reference, bins);
        prop_assert_eq!(histogram.total(), reference.len() as u64);
        prop_assert_eq!(histogram.counts.len(), histogram.bins.names().len());
        prop_assert!((histogram.shares().iter().sum::<f64>() - 1.0).abs() < 1e-9);
        let binner = HistogramBinner::new(&histogram.bins);
        for x in reference.iter().chain(&live) {
            prop_assert_eq!(binner.number_bin(*x), slowly(&histogram.bins, *x));
        }
        prop_assert!(binner.missing_bin() == histogram.bins.len() - 1);
        prop_assert!(baseline(histogram, reference.len() as u64).to_vec().is_ok());
    }

    #[test]
    fn every_name_has_exactly_one_bin(reference in vec("[a-c]{0,3}|other|missing", 1..200), most in 0..80_usize) {
        let histogram = ReferenceHistogram::categorical(reference.iter().map(String::as_str), most);
        prop_assert_eq!(histogram.total(), reference.len() as u64);
        let empty = reference.iter().filter(|v| v.is_empty()).count() as u64;
        prop_assert_eq!(*histogram.counts.last().unwrap(), empty);
        prop_assert!(baseline(histogram, reference.len() as u64).to_vec().is_ok());
    }

    #[test]
    fn counts_of_parts_add_up_to_the_whole(a in vec(number(), 1..100), b in vec(number(), 1..100)) {
        let whole: Vec<f64> = a.iter().chain(&b).copied().collect();
        let histogram = ReferenceHistogram::numeric(&whole, 10);
        let binner = HistogramBinner::new(&histogram.bins);
        let count = |values: &[f64]| {
            let mut counts = vec![0_u64; histogram.bins.len()];
            values.iter().for_each(|x| counts[binner.number_bin(*x)] += 1);
            counts
        };
        let merged: Vec<u64> = count(&a).iter().zip(count(&b)).map(|(x, y)| x + y).collect();
        prop_assert_eq!(&merged, &histogram.counts);
        prop_assert!(stats::population_stability_index(&histogram.counts, &merged).abs() < 1e-12);
    }

    #[test]
    fn distances_are_distances(pairs in vec((0..1000_u64, 0..1000_u64), 1..20)) {
        let (p, q): (Vec<u64>, Vec<u64>) = pairs.into_iter().unzip();
        prop_assert!(stats::population_stability_index(&p, &q) >= 0.0);
        let js = stats::jensen_shannon(&p, &q);
        prop_assert!((0.0..=1.000_001).contains(&js));
        prop_assert!((js - stats::jensen_shannon(&q, &p)).abs() < 1e-9);
        prop_assert!((0.0..=1.000_001).contains(&stats::kolmogorov_smirnov(&p, &q)));
        prop_assert!(stats::population_stability_index(&p, &p) == 0.0 && stats::jensen_shannon(&p, &p) < 1e-7);
    }

    #[test]
    fn calibration_ascends_and_keeps_the_mean(rows in vec((0.0..1.0_f64, any::<bool>()), 1..300), bins in 0..30_usize) {
        let table = CalibrationCurve::fit(&rows, bins).unwrap();
        prop_assert!(table.accuracy.is_sorted());
        prop_assert_eq!(table.counts.iter().sum::<u64>(), rows.len() as u64);
        let binner = table.binner();
        let expected: f64 = rows.iter().map(|(score, _)| table.bin_accuracy(binner.index(*score)).unwrap()).sum();
        let right = rows.iter().filter(|r| r.1).count() as f64;
        prop_assert!((expected - right).abs() < 1e-6, "{} {}", expected, right);
    }

    #[test]
    fn arbitrary_bytes_never_panic(text in "\\{[\"a-z:,0-9\\[\\]{}]{0,100}") {
        prop_assert!(ModelBaseline::from_slice(text.as_bytes()).is_err());
    }
}

fn baseline(histogram: ReferenceHistogram, rows: u64) -> ModelBaseline {
    let spec = |name: &str| BaselineTensorSpec {
        name: name.into(),
        datatype: "FP32".into(),
        shape: vec![-1, 1],
    };
    let tensor = |name: &str| GoldenTensor {
        name: name.into(),
        datatype: "FP32".into(),
        shape: vec![1, 1],
        data: vec![1.5.into()],
    };
    ModelBaseline {
        format: FORMAT.into(),
        model: BaselineModel {
            digest: format!("sha256:{}", "0".repeat(64)),
            inputs: vec![spec("x")],
            outputs: vec![spec("y")],
        },
        rows,
        features: vec![FeatureColumn {
            name: "age".into(),
            input: "x".into(),
            column: 0,
            histogram,
        }],
        predictions: None,
        scores: None,
        calibration: None,
        golden: GoldenSet {
            tolerance: NumericTolerance::default(),
            requests: vec![GoldenRequest { inputs: vec![tensor("x")], outputs: vec![tensor("y")] }],
        },
    }
}

#[test]
fn a_file_round_trips_and_nothing_else_is_read() {
    let rows: Vec<f64> = (0..100).map(f64::from).collect();
    let good = baseline(ReferenceHistogram::numeric(&rows, 10), 100);
    let bytes = good.to_vec().unwrap();
    assert_eq!(ModelBaseline::from_slice(&bytes).unwrap(), good);
    let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    let broken = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut value = value.clone();
        change(&mut value);
        ModelBaseline::from_slice(value.to_string().as_bytes()).unwrap_err().to_string()
    };
    for (part, text) in [
        ("kubectl slipway baseline", broken(&|v| v["format"] = "slipway.dev/baseline/v9".into())),
        ("unknown field", broken(&|v| v["more"] = 1.into())),
        ("model.digest", broken(&|v| v["model"]["digest"] = "md5:0".into())),
        ("rows", broken(&|v| v["rows"] = 0.into())),
        ("add up", broken(&|v| v["features"][0]["histogram"]["counts"][0] = 1.into())),
        (
            "must be 13",
            broken(&|v| v["features"][0]["histogram"]["counts"] = serde_json::json!([100])),
        ),
        ("ascend", broken(&|v| v["features"][0]["histogram"]["bins"]["edges"][3] = 0.into())),
        ("none of model.inputs", broken(&|v| v["features"][0]["input"] = "z".into())),
        ("features[0].name", broken(&|v| v["features"][0]["name"] = "".into())),
        (
            "shape and the data differ",
            broken(&|v| v["golden"]["requests"][0]["inputs"][0]["shape"][0] = 2.into()),
        ),
        ("tolerance", broken(&|v| v["golden"]["tolerance"]["absolute"] = (-1).into())),
        (
            "as the model has them",
            broken(&|v| v["golden"]["requests"][0]["outputs"] = serde_json::json!([])),
        ),
    ] {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
    assert!(matches!(
        ModelBaseline::from_slice(&vec![b' '; 33 << 20]),
        Err(BaselineError::TooLarge(_))
    ));
}

#[test]
fn repeated_and_constant_values_get_bins_of_their_own() {
    let pixels: Vec<f64> = (0..100).map(|i| if i < 70 { 0.0 } else { f64::from(i % 16) }).collect();
    let histogram = ReferenceHistogram::numeric(&pixels, 10);
    let HistogramBins::Numeric { edges, .. } = &histogram.bins else { unreachable!() };
    assert_eq!(edges[0], 0.0, "the heap at 0 is a bin: {edges:?}");
    let constant = ReferenceHistogram::numeric(&[7.0; 10], 10);
    let binner = HistogramBinner::new(&constant.bins);
    assert_eq!([6.9, 7.0, 7.1, 700.0].map(|x| binner.number_bin(x)), [0, 1, 2, 3]);
}

/// A small random generator, so that the numbers below are the same on every machine.
struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().max(1e-300).ln()).sqrt()
            * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

/// The table of docs/model-metrics.md: false alarms near 5 % at every size, and a shift of a
/// quarter sigma is detected.
#[test]
fn the_threshold_keeps_false_alarms_near_five_percent() {
    let mut random = Random(7);
    let reference: Vec<f64> = (0..10_000).map(|_| random.normal()).collect();
    let histogram = ReferenceHistogram::numeric(&reference, 10);
    let binner = HistogramBinner::new(&histogram.bins);
    let mut alarms = |n: usize, shift: f64, fixed: Option<f64>| {
        let mut alarms = 0;
        for _ in 0..400 {
            let mut live = vec![0_u64; histogram.bins.len()];
            (0..n).for_each(|_| live[binner.number_bin(random.normal() + shift)] += 1);
            let drift =
                DriftStatistics::between(&histogram.counts, &live, histogram.bins.ordered_len());
            let threshold = fixed.unwrap_or_else(|| {
                stats::drift_threshold(
                    stats::degrees_of_freedom(&histogram.counts),
                    1.0 / n as f64 + 1e-4,
                    0.0,
                )
            });
            alarms += u32::from(drift.psi > threshold);
        }
        f64::from(alarms) / 400.0
    };
    println!("    n  false(chi2)  false(0.1)  shift 0.25 sd found(chi2)  found(0.1)");
    for n in [50, 100, 200, 500, 1000, 5000] {
        let (ours, fixed) = (alarms(n, 0.0, None), alarms(n, 0.0, Some(0.1)));
        let (found, found_fixed) = (alarms(n, 0.25, None), alarms(n, 0.25, Some(0.1)));
        println!("{n:5}  {ours:11.3}  {fixed:10.3}  {found:25.3}  {found_fixed:10.3}");
        assert!(ours < if n < 200 { 0.16 } else { 0.10 }, "{n} rows: {ours}");
        if n >= 500 {
            assert!(ours > 0.01 && found > 0.9, "{n} rows: {ours} {found}");
        }
    }
}

#[test]
fn a_threshold_needs_rows_and_an_effect() {
    assert!(!DriftStatistics::between(&[100, 100], &[0, 0], 2).has_drifted());
    // A million rows prove a difference that is too small to matter.
    let tiny = DriftStatistics::between(&[1_000_000, 1_000_000], &[1_010_000, 990_000], 2);
    assert!(tiny.psi > 20.0 * tiny.noise && !tiny.has_drifted(), "{tiny:?}");
    assert!((stats::chi_square_95(31) - 44.985).abs() < 0.05 && stats::chi_square_95(0) == 0.0);
}
