//! Exports the counts of the observer as metrics.

use std::fmt::Error;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use slipway_baseline::{ReferenceHistogram, stats};
use slipway_contracts::metric_names::{self, family_name};

use crate::observe::{MARGIN_BINS, Observer, ObserverSlot};

/// Exports the observer in its slot, once there is one.
#[derive(Debug, Default)]
pub struct ObserverCollector(pub ObserverSlot);

impl Collector for ObserverCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let Some(observer) = self.0.get() else { return Ok(()) };
        let totals = observer.totals();
        let mut out = MetricWriter(&mut encoder);
        out.features(observer, &totals.bins)?;
        for (what, group) in observer.histogram_groups() {
            if let Some((histogram, first)) = group {
                out.histogram(what, histogram, first, &totals.bins)?;
            }
        }
        let margins =
            totals.bins.get(observer.margins..observer.margins + MARGIN_BINS).unwrap_or_default();
        let series = margins.iter().enumerate().map(|(i, n)| ([("bin", format!("0.{i}"))], *n));
        out.counters(
            "slipway_runtime_margin_bin",
            "Rows by highest less second highest probability",
            series,
        )?;
        if observer.calibration.is_some() {
            let classes = || observer.classes.iter().map(|c| [("class", c.clone())]);
            let sums =
                |right: bool| totals.expected.iter().map(move |s| if right { s.0 } else { s.1 });
            let help = "Sum over rows of the calibrated probability that the prediction is right, by predicted class";
            out.float_counters(
                family_name(metric_names::RUNTIME_EXPECTED_CORRECT_TOTAL),
                help,
                classes().zip(sums(true)),
            )?;
            let help = "Sum over rows of the calibrated probability that the prediction is wrong, by predicted class";
            out.float_counters(
                family_name(metric_names::RUNTIME_EXPECTED_INCORRECT_TOTAL),
                help,
                classes().zip(sums(false)),
            )?;
            let help =
                "Sum over rows of p (1 - p), for the standard error of the expected accuracy";
            out.float_counters(
                "slipway_runtime_expected_variance",
                help,
                single_series(totals.variance),
            )?;
        }
        out.counters(
            "slipway_runtime_observed_rows",
            "Rows that were counted into bins",
            single_series(totals.rows),
        )?;
        out.counters(
            "slipway_runtime_abstained_rows",
            "Rows without a prediction",
            single_series(totals.abstained),
        )?;
        out.gauges(
            metric_names::RUNTIME_REFERENCE_ROWS,
            "Rows of the baseline",
            single_series(observer.rows as f64),
        )?;
        let help = "Features of the baseline that are not exported";
        out.gauges(
            "slipway_runtime_features_left_out",
            help,
            single_series(observer.left_out as f64),
        )
    }
}

fn single_series<N>(value: N) -> impl Iterator<Item = ([(&'static str, String); 0], N)> {
    std::iter::once(([], value))
}

impl Observer {
    fn histogram_groups(&self) -> [(&'static str, Option<(&ReferenceHistogram, usize)>); 2] {
        [
            ("prediction", self.predictions.as_ref().map(|(_, h, first)| (h, *first))),
            ("score", self.scores.as_ref().map(|(_, h, first)| (h, *first))),
        ]
    }

    /// Every exported feature with the index of its first bin.
    fn feature_columns(&self) -> impl Iterator<Item = (&str, &ReferenceHistogram, usize)> {
        let mut first = 0;
        self.observed.iter().map(move |f| {
            let from = first;
            first += f.histogram.bins.len();
            (f.name.as_str(), &f.histogram, from)
        })
    }
}

struct MetricWriter<'a, 'b>(&'a mut DescriptorEncoder<'b>);

/// Optional labels.
type LabelPairs<const N: usize> = [(&'static str, String); N];

impl MetricWriter<'_, '_> {
    fn family<const N: usize, V>(
        &mut self,
        (name, help): (&str, &str),
        kind: MetricType,
        series: impl Iterator<Item = (LabelPairs<N>, V)>,
        encode: impl Fn(V, prometheus_client::encoding::MetricEncoder<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut family = self.0.encode_descriptor(name, help, None, kind)?;
        let mut series = series;
        if N == 0 {
            // A series without labels uses the descriptor itself.
            return series.next().map_or(Ok(()), |(_, value)| encode(value, family));
        }
        series.try_for_each(|(labels, value)| encode(value, family.encode_family(&labels)?))
    }

    fn counters<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        series: impl Iterator<Item = (LabelPairs<N>, u64)>,
    ) -> Result<(), Error> {
        self.family((name, help), MetricType::Counter, series, |n, e| {
            ConstCounter::new(n).encode(e)
        })
    }

    fn float_counters<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        series: impl Iterator<Item = (LabelPairs<N>, f64)>,
    ) -> Result<(), Error> {
        self.family((name, help), MetricType::Counter, series, |x, e| {
            ConstCounter::new(x).encode(e)
        })
    }

    fn gauges<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        series: impl Iterator<Item = (LabelPairs<N>, f64)>,
    ) -> Result<(), Error> {
        self.family((name, help), MetricType::Gauge, series, |x, e| ConstGauge::new(x).encode(e))
    }

    fn features(&mut self, observer: &Observer, bins: &[u64]) -> Result<(), Error> {
        let series = || {
            observer.feature_columns().flat_map(|(feature, histogram, first)| {
                let names = histogram.bins.names().into_iter().enumerate();
                names.map(move |(i, bin)| {
                    ([("feature", feature.to_owned()), ("bin", bin)], first + i)
                })
            })
        };
        let counts = series().map(|(labels, at)| (labels, bins.get(at).copied().unwrap_or(0)));
        self.counters(
            family_name(metric_names::RUNTIME_FEATURE_BIN_TOTAL),
            "Rows by bin of the baseline",
            counts,
        )?;
        let shares = observer.feature_columns().flat_map(|(_, histogram, _)| histogram.shares());
        let shares = series().zip(shares).map(|((labels, _), share)| (labels, share));
        let help = "Share of the reference rows in each bin";
        self.gauges(metric_names::RUNTIME_FEATURE_REFERENCE_SHARE, help, shares)?;
        let quantiles = observer.feature_columns().map(|(feature, histogram, _)| {
            (
                [("feature", feature.to_owned())],
                stats::chi_square_95(stats::degrees_of_freedom(&histogram.counts)),
            )
        });
        let help = "95 % quantile of chi-square; times (1/n + 1/m) it is the threshold of the PSI";
        self.gauges(metric_names::RUNTIME_FEATURE_CHI2, help, quantiles)
    }

    fn histogram(
        &mut self,
        what: &str,
        histogram: &ReferenceHistogram,
        first: usize,
        bins: &[u64],
    ) -> Result<(), Error> {
        let names = || histogram.bins.names().into_iter().map(|bin| [("bin", bin)]);
        let counts = names()
            .enumerate()
            .map(|(i, labels)| (labels, bins.get(first + i).copied().unwrap_or(0)));
        self.counters(
            &format!("slipway_runtime_{what}_bin"),
            "Rows by bin of the baseline",
            counts,
        )?;
        let help = "Share of the reference rows in each bin";
        let shares = names().zip(histogram.shares());
        self.gauges(&format!("slipway_runtime_{what}_reference_share"), help, shares)?;
        let quantile = stats::chi_square_95(stats::degrees_of_freedom(&histogram.counts));
        let help = "95 % quantile of chi-square; times (1/n + 1/m) it is the threshold of the PSI";
        self.gauges(&format!("slipway_runtime_{what}_chi2"), help, single_series(quantile))
    }
}
