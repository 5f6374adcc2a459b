//! Results: stored as JSON while they are collected, reported as a table and plots.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, ensure};
use plotters::prelude::*;
use serde::{Deserialize, Serialize};

use crate::BenchOptions;
use crate::raw::RawMeasurement;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ResultCell {
    pub(crate) server: String,
    pub(crate) model: String,
    pub(crate) wire: String,
    /// CPU microseconds per request, of the server's whole process tree.
    pub(crate) cpu_us: f64,
    pub(crate) per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// At a fixed rate of half of what the closed loop reached.
    #[serde(deserialize_with = "nullable")]
    pub(crate) open_p50_us: f64,
    #[serde(deserialize_with = "nullable")]
    pub(crate) open_p99_us: f64,
    pub(crate) pss_bytes: u64,
    #[serde(deserialize_with = "nullable")]
    pub(crate) ready_ms: f64,
    pub(crate) load_average: f64,
}

/// JSON has no NaN and contains null instead.
fn nullable<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

impl ResultCell {
    /// ONNX Runtime without a server.
    pub(crate) fn from_raw(model: &str, raw: RawMeasurement) -> Self {
        let run = 1e6 / raw.per_second;
        Self {
            server: RAW.into(),
            model: model.into(),
            wire: "none".into(),
            cpu_us: raw.cpu_us,
            per_second: raw.per_second,
            p50_us: run,
            p99_us: run,
            open_p50_us: run,
            open_p99_us: run,
            pss_bytes: 0,
            ready_ms: 0.0,
            load_average: crate::process::load_average(),
        }
    }
}

const RAW: &str = "raw ONNX Runtime";

/// All measurements so far.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct BenchResults {
    cells: Vec<ResultCell>,
}

type ResultKey = (String, String, String);

/// A summary of the rounds of one measurement.
#[derive(Debug, Clone, Copy)]
struct RoundSummary {
    count: usize,
    /// CPU microseconds per request in the best round. Other processes of the machine can only
    /// increase it.
    least_us: f64,
}

impl BenchResults {
    pub(crate) fn read(dir: &Path) -> anyhow::Result<Self> {
        match std::fs::read(dir.join("results.json")) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .with_context(|| format!("{}/results.json", dir.display())),
            Err(_) => Ok(Self::default()),
        }
    }

    pub(crate) fn add(&mut self, cell: ResultCell) {
        eprintln!(
            "  {:<22} {:<7} {:<7} {:8.1} us CPU  {:8.0}/s  p50 {:7.0} us  p99 {:8.0} us  load {:.1}",
            cell.server,
            cell.model,
            cell.wire,
            cell.cpu_us,
            cell.per_second,
            cell.p50_us,
            cell.p99_us,
            cell.load_average
        );
        self.cells.push(cell);
    }

    pub(crate) fn write(&self, dir: &Path) -> anyhow::Result<()> {
        Ok(std::fs::write(dir.join("results.json"), serde_json::to_vec_pretty(self)?)?)
    }

    /// The median round of each measurement, by CPU time, with the summary of its rounds.
    fn medians(&self) -> BTreeMap<ResultKey, (ResultCell, RoundSummary)> {
        let mut groups: BTreeMap<ResultKey, Vec<&ResultCell>> = BTreeMap::new();
        for cell in &self.cells {
            groups
                .entry((cell.model.clone(), cell.wire.clone(), cell.server.clone()))
                .or_default()
                .push(cell);
        }
        let median = |mut cells: Vec<&ResultCell>| {
            cells.sort_by(|a, b| a.cpu_us.total_cmp(&b.cpu_us));
            let rounds = RoundSummary { count: cells.len(), least_us: cells.first()?.cpu_us };
            Some((ResultCell::clone(cells.get((cells.len() - 1) / 2)?), rounds))
        };
        groups.into_iter().filter_map(|(key, cells)| Some((key, median(cells)?))).collect()
    }
}

/// Writes `table.md` and the plots.
pub(crate) fn write_report(options: &BenchOptions) -> anyhow::Result<()> {
    let medians = BenchResults::read(&options.dir)?.medians();
    ensure!(!medians.is_empty(), "no results in {}: measure first", options.dir.display());
    std::fs::create_dir_all(&options.report)
        .with_context(|| format!("cannot make {}", options.report.display()))?;
    std::fs::write(options.report.join("table.md"), render_results_table(&medians))?;
    let mut groups: BTreeMap<(String, String), Vec<(String, f64)>> = BTreeMap::new();
    for ((model, wire, server), (cell, _)) in &medians {
        if server != RAW {
            groups
                .entry((model.clone(), wire.clone()))
                .or_default()
                .push((server.clone(), cell.cpu_us));
        }
    }
    for ((model, wire), mut bars) in groups {
        bars.sort_by(|a, b| a.1.total_cmp(&b.1));
        let raw =
            medians.get(&(model.clone(), "none".into(), RAW.into())).map(|(cell, _)| cell.cpu_us);
        plot_bars(
            &options.report.join(format!("{model}-{wire}.svg")),
            &format!("{model}, {wire}"),
            &bars,
            raw,
        )?;
    }
    writeln!(std::io::stdout(), "{}", options.report.join("table.md").display())?;
    Ok(())
}

fn render_results_table(medians: &BTreeMap<ResultKey, (ResultCell, RoundSummary)>) -> String {
    let mut text = String::from(
        "<!-- Written by `slipway-bench report`; do not edit. -->\n\n\
         | model | wire | server | CPU us/request | least | over raw | requests/s | p50 us | p99 us | open p50 | open p99 | PSS MiB | ready ms | rounds | load |\n\
         | --- | --- | --- | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: |\n",
    );
    let mut rows: Vec<_> = medians.values().collect();
    rows.sort_by(|(a, _), (b, _)| {
        (&a.model, &a.wire).cmp(&(&b.model, &b.wire)).then(a.cpu_us.total_cmp(&b.cpu_us))
    });
    for (cell, rounds) in rows {
        let raw = medians
            .get(&(cell.model.clone(), "none".into(), RAW.into()))
            .map(|(raw, _)| cell.cpu_us - raw.cpu_us);
        let over = raw
            .filter(|_| cell.server != RAW)
            .map_or_else(String::new, |over| format!("{over:.1}"));
        let or_nothing =
            |value: f64| if value > 0.0 { format!("{value:.0}") } else { String::new() };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {:.1} | {:.1} | {over} | {:.0} | {:.0} | {:.0} | {} | {} | {} | {} | {} | {:.1} |",
            cell.model,
            cell.wire,
            cell.server,
            cell.cpu_us,
            rounds.least_us,
            cell.per_second,
            cell.p50_us,
            cell.p99_us,
            or_nothing(cell.open_p50_us),
            or_nothing(cell.open_p99_us),
            or_nothing(cell.pss_bytes as f64 / f64::from(1 << 20)),
            or_nothing(cell.ready_ms),
            rounds.count,
            cell.load_average,
        );
    }
    text
}

/// Bars of CPU time on a logarithmic scale, with a line for the lower bound.
fn plot_bars(
    path: &Path,
    title: &str,
    bars: &[(String, f64)],
    raw: Option<f64>,
) -> anyhow::Result<()> {
    let height = u32::try_from(90 + 34 * bars.len())?;
    let root = SVGBackend::new(path, (820, height)).into_drawing_area();
    root.fill(&WHITE)?;
    let most = bars.iter().map(|(_, us)| *us).fold(1.0, f64::max) * 2.0;
    let least = raw.into_iter().chain(bars.iter().map(|(_, us)| *us)).fold(most, f64::min) / 2.0;
    let rows = i32::try_from(bars.len())?;
    let mut chart = ChartBuilder::on(&root)
        .caption(format!("CPU time of a request: {title}"), ("sans-serif", 18))
        .margin(10)
        .x_label_area_size(32)
        .y_label_area_size(170)
        .build_cartesian_2d((least..most).log_scale(), (0..rows - 1).into_segmented())?;
    let name = |at: &SegmentValue<i32>| match at {
        SegmentValue::CenterOf(n) => usize::try_from(*n)
            .ok()
            .and_then(|n| bars.get(n))
            .map_or_else(String::new, |(name, _)| name.clone()),
        _ => String::new(),
    };
    chart
        .configure_mesh()
        .disable_y_mesh()
        .x_desc(if raw.is_some() {
            "microseconds, logarithmic; dashed: ONNX Runtime alone"
        } else {
            "microseconds, logarithmic"
        })
        .x_labels(6)
        .y_label_formatter(&name)
        .y_labels(bars.len())
        .draw()?;
    for (n, (server, us)) in bars.iter().enumerate() {
        let n = i32::try_from(n)?;
        let colour = if server.starts_with("slipway") {
            RGBColor(31, 119, 180)
        } else {
            RGBColor(160, 160, 160)
        };
        let mut bar = Rectangle::new(
            [(least, SegmentValue::Exact(n)), (*us, SegmentValue::Exact(n + 1))],
            colour.filled(),
        );
        bar.set_margin(5, 5, 0, 0);
        chart.draw_series(std::iter::once(bar))?;
        let label = Text::new(
            format!("{us:.1}"),
            (*us * 1.03, SegmentValue::CenterOf(n)),
            ("sans-serif", 13),
        );
        chart.draw_series(std::iter::once(label))?;
    }
    if let Some(raw) = raw {
        let ends = [(raw, SegmentValue::Exact(0)), (raw, SegmentValue::Exact(rows))];
        chart.draw_series(DashedLineSeries::new(ends, 6, 4, ShapeStyle::from(&RED)))?;
    }
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(server: &str, cpu_us: f64) -> ResultCell {
        ResultCell {
            server: server.into(),
            wire: "json".into(),
            cpu_us,
            ready_ms: f64::NAN,
            ..ResultCell::from_raw("m", RawMeasurement { cpu_us: 0.0, per_second: 1.0 })
        }
    }

    #[test]
    fn the_median_round_is_told_and_nothing_is_lost_on_the_way() {
        let cells = [3.0, 9.0, 5.0].map(|us| cell("a", us)).to_vec();
        let text = serde_json::to_string(&BenchResults { cells }).unwrap();
        let back: BenchResults = serde_json::from_str(&text).unwrap();
        let medians = back.medians();
        let (median, rounds) = medians.values().next().unwrap();
        assert_eq!((median.cpu_us, rounds.count, medians.len()), (5.0, 3, 1));
        assert!(render_results_table(&medians).contains("| m | json | a | 5.0 | 3.0 |"));
    }

    #[test]
    fn plots_are_drawn() {
        let path = std::env::temp_dir().join(format!("bench-{}.svg", std::process::id()));
        plot_bars(&path, "m", &[("slipway".into(), 15.0), ("other".into(), 300.0)], Some(4.0))
            .unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("slipway") && text.contains("300.0"));
        std::fs::remove_file(path).unwrap();
    }
}
