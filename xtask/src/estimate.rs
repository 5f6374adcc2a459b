//! How long parts of the work take: what they took here the last time, else what they took on two idle cores.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use slipway_provision::Cache;

/// Seconds by part, kept in the cache.
#[derive(Debug)]
pub(crate) struct Estimates {
    file: PathBuf,
    seconds: BTreeMap<String, u64>,
}

impl Estimates {
    /// What is known of this machine.
    pub(crate) fn read(cache: &Cache) -> Self {
        let file = cache.path("timings");
        let text = fs::read_to_string(&file).unwrap_or_default();
        Self { seconds: parse(&text), file }
    }

    /// Seconds that a part will take; `declared` where it never ran here.
    pub(crate) fn of(&self, part: &str, declared: u64) -> u64 {
        self.seconds.get(part).copied().unwrap_or(declared)
    }

    /// Remembers what a part took. Estimates that cannot be kept harm nobody.
    pub(crate) fn record(&mut self, part: &str, seconds: u64) {
        // Others may have written meanwhile.
        let mut all = parse(&fs::read_to_string(&self.file).unwrap_or_default());
        all.insert(part.into(), seconds);
        let text: String = all.iter().map(|(part, seconds)| format!("{seconds}\t{part}\n")).collect();
        let partial = self.file.with_extension(format!("{}.partial", std::process::id()));
        if fs::write(&partial, text).is_ok() {
            let _ = fs::rename(&partial, &self.file);
        }
        self.seconds = all;
    }
}

fn parse(text: &str) -> BTreeMap<String, u64> {
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
        let cache = Cache::at(&dir);
        let mut estimates = Estimates::read(&cache);
        assert_eq!(estimates.of("lints (cold)", 300), 300);
        estimates.record("lints (cold)", 250);
        assert_eq!(Estimates::read(&cache).of("lints (cold)", 300), 250);
        assert_eq!(Estimates::read(&cache).of("lints (warm)", 20), 20);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn lines_that_make_no_sense_are_left_out() {
        assert_eq!(parse("12\ta b\nx\tc\nnothing\n").len(), 1);
    }
}
