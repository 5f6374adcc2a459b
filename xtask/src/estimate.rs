//! Estimates how long steps take: their last duration on this machine, else that on two idle cores.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use slipway_provision::BuildCache;

/// Seconds by step, stored in the cache.
#[derive(Debug)]
pub(crate) struct DurationEstimates {
    file: PathBuf,
    seconds: BTreeMap<String, u64>,
}

impl DurationEstimates {
    /// Reads the durations on this machine.
    pub(crate) fn read(cache: &BuildCache) -> Self {
        let file = cache.path("timings");
        let text = fs::read_to_string(&file).unwrap_or_default();
        Self { seconds: parse_timings(&text), file }
    }

    /// The expected seconds of a step; `declared` if it never ran on this machine.
    pub(crate) fn seconds_for(&self, part: &str, declared: u64) -> u64 {
        self.seconds.get(part).copied().unwrap_or(declared)
    }

    /// Records the duration of a step. A failure to store it is harmless.
    pub(crate) fn record(&mut self, part: &str, seconds: u64) {
        // Another process may have written meanwhile.
        let mut all = parse_timings(&fs::read_to_string(&self.file).unwrap_or_default());
        all.insert(part.into(), seconds);
        let text: String =
            all.iter().map(|(part, seconds)| format!("{seconds}\t{part}\n")).collect();
        let partial = self.file.with_extension(format!("{}.partial", std::process::id()));
        if fs::write(&partial, text).is_ok() {
            let _ = fs::rename(&partial, &self.file);
        }
        self.seconds = all;
    }
}

fn parse_timings(text: &str) -> BTreeMap<String, u64> {
    let line = |line: &str| {
        let (seconds, part) = line.split_once('\t')?;
        Some((part.to_owned(), seconds.parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_time_wins_over_what_is_declared() {
        let dir = std::env::temp_dir().join(format!("slipway-estimates-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let cache = BuildCache::with_root(&dir);
        let mut estimates = DurationEstimates::read(&cache);
        assert_eq!(estimates.seconds_for("lints (cold)", 300), 300);
        estimates.record("lints (cold)", 250);
        assert_eq!(DurationEstimates::read(&cache).seconds_for("lints (cold)", 300), 250);
        assert_eq!(DurationEstimates::read(&cache).seconds_for("lints (warm)", 20), 20);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn lines_that_make_no_sense_are_left_out() {
        assert_eq!(parse_timings("12\ta b\nx\tc\nnothing\n").len(), 1);
    }
}
