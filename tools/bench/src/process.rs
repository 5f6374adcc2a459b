//! Measured processes: pinned to a core, with the CPU time and the memory of all their children.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, SysconfVar, sysconf};

/// How long a server may take to end after SIGTERM.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// A server. It and its children end when this value is dropped.
#[derive(Debug)]
pub(crate) struct ServerProcess {
    child: Child,
    log: PathBuf,
}

impl ServerProcess {
    /// Starts `command` on `core`, with its output in `log`.
    pub(crate) fn start(command: &mut Command, core: usize, log: &Path) -> anyhow::Result<Self> {
        let out = std::fs::File::create(log).with_context(|| log.display().to_string())?;
        let err = out.try_clone()?;
        let mut pinned = Command::new("taskset");
        pinned
            .args(["--cpu-list", &core.to_string()])
            .arg(command.get_program())
            .args(command.get_args());
        pinned.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        if let Some(dir) = command.get_current_dir() {
            pinned.current_dir(dir);
        }
        pinned.stdin(Stdio::null()).stdout(out).stderr(err);
        // A separate process group, so that its workers are ended with it.
        pinned.process_group(0);
        let child = pinned.spawn().with_context(|| format!("{pinned:?}"))?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// Whether it is still running.
    pub(crate) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Polls until `is` is true. If the process ends before, or that takes longer than `most`, the
    /// error contains the end of its log.
    pub(crate) fn wait_until(
        &mut self,
        most: Duration,
        every: Duration,
        mut is: impl FnMut() -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let end = Instant::now() + most;
        while !is()? {
            if !self.is_alive() || Instant::now() > end {
                let text = std::fs::read_to_string(&self.log).unwrap_or_default();
                let tail: Vec<&str> = text.lines().rev().take(12).collect();
                bail!(
                    "it does not get there:\n{}",
                    tail.into_iter().rev().collect::<Vec<_>>().join("\n")
                );
            }
            std::thread::sleep(every);
        }
        Ok(())
    }

    /// CPU seconds so far of the process and all its descendants, including ended ones.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100) as f64;
        let all = read_processes();
        let sum: u64 = process_tree(&all, self.child.id())
            .iter()
            .filter_map(|pid| all.get(pid))
            .map(|row| row.ticks)
            .sum();
        sum as f64 / ticks
    }

    /// Proportional memory of the process and all its descendants, in bytes.
    pub(crate) fn pss_bytes(&self) -> u64 {
        let all = read_processes();
        process_tree(&all, self.child.id()).iter().filter_map(|pid| process_pss(*pid)).sum()
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let group = Pid::from_raw(self.child.id().cast_signed());
        let _ = killpg(group, Signal::SIGTERM);
        let until = Instant::now() + STOP_TIMEOUT;
        while self.is_alive() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
        // Children that outlive their parent, and processes that ignored SIGTERM.
        let _ = killpg(group, Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

struct ProcessStat {
    parent: u32,
    ticks: u64,
}

/// All processes by id.
fn read_processes() -> BTreeMap<u32, ProcessStat> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return BTreeMap::new() };
    let ids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter_map(|pid| {
        Some((pid, parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?))
    })
    .collect()
}

/// proc(5): after the name in parentheses come state, ppid, …, utime (14), stime (15), cutime (16),
/// cstime (17).
fn parse_stat(text: &str) -> Option<ProcessStat> {
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(ProcessStat {
        parent: u32::try_from(number(1)?).ok()?,
        ticks: number(11)? + number(12)? + number(13)? + number(14)?,
    })
}

fn process_tree(all: &BTreeMap<u32, ProcessStat>, root: u32) -> BTreeSet<u32> {
    let mut found = BTreeSet::from([root]);
    loop {
        let more: Vec<u32> = all
            .iter()
            .filter(|(pid, row)| found.contains(&row.parent) && !found.contains(pid))
            .map(|(pid, _)| *pid)
            .collect();
        if more.is_empty() {
            return found;
        }
        found.extend(more);
    }
}

fn process_pss(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? << 10)
}

/// Pins the calling thread, and threads that it starts, to a core.
pub(crate) fn pin_to_core(core: usize) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    let pinned = set.set(core).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set));
    pinned.with_context(|| format!("cannot run on core {core} (--server-core, --load-core)"))
}

/// CPU seconds of the calling thread.
pub(crate) fn thread_cpu_seconds() -> f64 {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID);
    time.map_or(0.0, |time| time.tv_sec() as f64 + time.tv_nsec() as f64 / 1e9)
}

/// The load average of the last minute.
pub(crate) fn load_average() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_spaces_and_parentheses_are_no_trouble() {
        let row = parse_stat("12 (a b) c) S 7 1 1 0 -1 0 0 0 0 0 11 22 33 44 20 0 1 0 5").unwrap();
        assert_eq!((row.parent, row.ticks), (7, 110));
    }

    #[test]
    fn a_tree_has_all_generations_and_nobody_else() {
        let row = |parent| ProcessStat { parent, ticks: 1 };
        let all = BTreeMap::from([(1, row(0)), (2, row(1)), (3, row(2)), (4, row(9)), (5, row(3))]);
        assert_eq!(process_tree(&all, 2), BTreeSet::from([2, 3, 5]));
    }

    #[test]
    fn time_and_memory_of_children_count() {
        let dir = std::env::temp_dir().join(format!("bench-{}", std::process::id()));
        let mut server = ServerProcess::start(
            Command::new("sh").args(["-c", "sh -c 'while :; do :; done' & wait"]),
            0,
            &dir,
        )
        .unwrap();
        let until = Instant::now() + Duration::from_secs(30);
        while server.cpu_seconds() < 0.2 {
            assert!(server.is_alive() && Instant::now() < until);
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(server.pss_bytes() > 0);
        let _ = std::fs::remove_file(dir);
    }
}
