use slipway_baseline::{BaselineModel, BaselineTensorSpec as Spec, FORMAT, GoldenSet};
use slipway_runtime_engine::signature::TensorSignature;
use slipway_runtime_engine::tensor::DataType;

use super::*;

fn spec(name: &str, datatype: DataType, shape: &[Option<usize>]) -> TensorSignature {
    TensorSignature { name: name.into(), datatype, shape: shape.to_vec(), axis: None }
}

fn signature(width: usize) -> ModelSignature {
    ModelSignature {
        inputs: vec![
            spec("x", DataType::F32, &[None, Some(width)]),
            spec("city", DataType::Bytes, &[None]),
        ],
        outputs: vec![
            spec("label", DataType::I64, &[None]),
            spec("probabilities", DataType::F32, &[None, Some(2)]),
        ],
    }
}

fn feature(name: &str, input: &str, column: usize, histogram: ReferenceHistogram) -> FeatureColumn {
    FeatureColumn { name: name.into(), input: input.into(), column, histogram }
}

fn baseline(width: usize) -> ModelBaseline {
    let rows: Vec<f64> = (0..100).map(f64::from).collect();
    let cities = || (0..100).map(|i| if i < 60 { "Rome" } else { "Oslo" });
    let labels = || (0..100).map(|i| if i < 50 { "0" } else { "1" });
    let mut features: Vec<_> = (0..width)
        .map(|i| feature(&format!("f{i}"), "x", i, ReferenceHistogram::numeric(&rows, 10)))
        .collect();
    features.push(feature("city", "city", 0, ReferenceHistogram::categorical(cities(), 10)));
    let scores: Vec<_> = (0..100).map(|i| (0.5 + f64::from(i) / 200.0, i % 4 != 0)).collect();
    let spec = |name: &str| Spec { name: name.into(), datatype: "FP32".into(), shape: vec![-1, 1] };
    ModelBaseline {
        format: FORMAT.into(),
        model: BaselineModel {
            digest: String::new(),
            inputs: vec![spec("x")],
            outputs: vec![spec("y")],
        },
        rows: 100,
        features,
        predictions: Some(ReferenceHistogram::categorical(labels(), 10)),
        scores: Some(ReferenceHistogram::numeric(
            &scores.iter().map(|s| s.0).collect::<Vec<_>>(),
            10,
        )),
        calibration: CalibrationCurve::fit(&scores, 10),
        golden: GoldenSet::default(),
    }
}

fn answer(labels: &[i64]) -> (Vec<Tensor>, Predictions) {
    let probabilities =
        labels.iter().flat_map(|l| if *l == 0 { [0.9, 0.1] } else { [0.2, 0.8] }).collect();
    let outputs = vec![
        Tensor { shape: vec![labels.len()], data: TensorData::I64(labels.to_vec()) },
        Tensor { shape: vec![labels.len(), 2], data: TensorData::F32(probabilities) },
    ];
    let predictions = OutputReader::new(&signature(2)).read(&outputs);
    (outputs, predictions)
}

fn observer(width: usize, most: usize, only: &[String]) -> Observer {
    let signature = signature(width);
    Observer::new(&baseline(width), &signature, OutputReader::new(&signature), most, only)
}

fn text(observer: Observer) -> String {
    let mut registry = prometheus_client::registry::Registry::default();
    let slot = ObserverSlot::default();
    slot.set(Arc::new(observer)).unwrap();
    registry
        .sub_registry_with_label(("revision".into(), "r".into()))
        .register_collector(Box::new(ObserverCollector(slot)));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    text
}

#[test]
fn every_value_of_an_answered_request_is_in_one_bin() {
    let observer = observer(2, 64, &[]);
    let inputs = [
        Tensor {
            shape: vec![3, 2],
            data: TensorData::F32(vec![5.0, 1e9, f32::NAN, 15.0, 95.0, 15.0]),
        },
        Tensor {
            shape: vec![3],
            data: TensorData::Bytes(vec!["Rome".into(), "Bonn".into(), String::new()]),
        },
    ];
    let binned = observer.bin_inputs(&inputs, 3);
    assert_eq!(observer.totals().rows, 0, "nothing is counted before the answer");
    let (outputs, predictions) = answer(&[0, 1, 7]);
    observer.count_request(&binned, &outputs, &predictions, 3);
    let totals = observer.totals();
    // Per row: two numbers and a name, one prediction, one score, one margin.
    assert_eq!(totals.bins.iter().sum::<u64>(), 3 * 3 + 3 * 3);
    let text = text(observer);
    for line in [
        r#"slipway_runtime_feature_bin_total{revision="r",feature="f0",bin="00"} 1"#,
        r#"slipway_runtime_feature_bin_total{revision="r",feature="f0",bin="nan"} 1"#,
        r#"slipway_runtime_feature_bin_total{revision="r",feature="f0",bin="09"} 1"#,
        r#"slipway_runtime_feature_bin_total{revision="r",feature="f1",bin="out_of_range"} 1"#,
        r#"slipway_runtime_feature_bin_total{revision="r",feature="f1",bin="01"} 2"#,
        r#"slipway_runtime_feature_bin_total{revision="r",feature="city",bin="Rome"} 1"#,
        r#"slipway_runtime_feature_bin_total{revision="r",feature="city",bin="other"} 1"#,
        r#"slipway_runtime_feature_bin_total{revision="r",feature="city",bin="missing"} 1"#,
        r#"slipway_runtime_feature_reference_share{revision="r",feature="city",bin="Rome"} 0.6"#,
        r#"slipway_runtime_feature_chi2{revision="r",feature="city"} 3.841"#,
        r#"slipway_runtime_prediction_bin_total{revision="r",bin="other"} 1"#,
        r#"slipway_runtime_prediction_reference_share{revision="r",bin="0"} 0.5"#,
        r#"slipway_runtime_margin_bin_total{revision="r",bin="0.6"} 2"#,
        r#"slipway_runtime_observed_rows_total{revision="r"} 3"#,
        r#"slipway_runtime_reference_rows{revision="r"} 100.0"#,
        r#"slipway_runtime_features_left_out{revision="r"} 0.0"#,
    ] {
        assert!(text.contains(line), "{line}\nis not in\n{text}");
    }
    let sum = |name: &str| -> f64 {
        let lines = text.lines().filter(|l| l.starts_with(name));
        lines.map(|l| l.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    };
    let (right, wrong) = (
        sum("slipway_runtime_expected_correct_total"),
        sum("slipway_runtime_expected_incorrect_total"),
    );
    assert!((right + wrong - 3.0).abs() < 1e-9 && right > 1.5, "{right} {wrong}");
}

#[test]
fn the_number_of_series_is_bounded() {
    let lines = |o: Observer| {
        text(o).lines().filter(|l| l.starts_with("slipway_runtime_feature_bin_total")).count()
    };
    assert_eq!(lines(observer(30, 64, &[])), 30 * 13 + 4);
    let some = observer(30, 5, &[]);
    assert_eq!(some.left_out, 26);
    assert_eq!(lines(some), 5 * 13);
    assert_eq!(lines(observer(30, 64, &["f7".into(), "city".into()])), 13 + 4);
    assert_eq!(lines(observer(30, 0, &[])), 0);
}

#[test]
fn shards_of_many_threads_add_up() {
    let observer = observer(2, 64, &[]);
    let (outputs, predictions) = answer(&[0]);
    std::thread::scope(|scope| {
        for _ in 0..24 {
            scope.spawn(|| {
                for i in 0..200_u16 {
                    let inputs = [Tensor {
                        shape: vec![1, 2],
                        data: TensorData::F32(vec![f32::from(i), 1.0]),
                    }];
                    observer.count_request(
                        &observer.bin_inputs(&inputs, 1),
                        &outputs,
                        &predictions,
                        1,
                    );
                }
            });
        }
    });
    let totals = observer.totals();
    assert_eq!(totals.rows, 24 * 200);
    assert_eq!(totals.bins.iter().take(13).sum::<u64>(), 24 * 200);
}

/// Prints the cost of a row of 30 numbers: `cargo test -p slipway-runtime --lib cost_of_a_row --
/// --nocapture`. The bound is deliberately loose: it catches a change of kind (a lock or a hash per
/// value), not a slow machine.
#[test]
fn cost_of_a_row() {
    let observer = observer(
        30,
        64,
        &[
            "f0", "f1", "f2", "f3", "f4", "f5", "f6", "f7", "f8", "f9", "f10", "f11", "f12", "f13",
            "f14", "f15", "f16", "f17", "f18", "f19", "f20", "f21", "f22", "f23", "f24", "f25",
            "f26", "f27", "f28", "f29",
        ]
        .map(String::from),
    );
    let values: Vec<f32> = (0..30 * 64).map(|i| (i * 37 % 100) as f32).collect();
    for rows in [1, 64] {
        let inputs =
            [Tensor { shape: vec![rows, 30], data: TensorData::F32(values[..rows * 30].to_vec()) }];
        let (outputs, predictions) = answer(&vec![1; rows]);
        let mut best = f64::INFINITY;
        for _ in 0..20 {
            let begun = std::time::Instant::now();
            for _ in 0..2000 / rows {
                observer.count_request(
                    &observer.bin_inputs(&inputs, rows),
                    &outputs,
                    &predictions,
                    rows,
                );
            }
            best = best.min(begun.elapsed().as_nanos() as f64 / (2000 / rows * rows) as f64);
        }
        println!(
            "{rows:3} rows a request: {best:.0} ns a row of 30 features, {:.1} ns a value",
            best / 30.0
        );
        assert!(best < 20_000.0, "{best} ns a row");
    }
}
