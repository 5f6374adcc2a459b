//! Limits the sessions of a model to the memory of the pod. Each worker has its own session, and a
//! pod without a CPU limit has as many workers as its node has cores: on a large node their
//! sessions would exceed the memory, and the kernel would kill the process without a message.

use std::fs;
use std::path::Path;

/// Share of the available memory that sessions may use, as a fraction. The rest is for requests and
/// for other memory that the kernel charges to the pod.
const USABLE_SHARE: (u64, u64) = (3, 4);
/// Lower bound for the size of a further session, in bytes.
const MIN_SESSION_BYTES: u64 = 1 << 20;

/// Measures the memory of sessions while they are loaded.
#[derive(Debug)]
pub struct SessionMemory {
    /// Memory limit of the process in bytes; `None` when it cannot be read.
    limit: Option<u64>,
    /// Resident bytes of the process before the last session was loaded.
    resident_before: u64,
    /// Bytes that the last session added.
    session_bytes: u64,
}

impl SessionMemory {
    /// Starts the measurement before the first session. `told` replaces the limit that would be
    /// read from the system.
    pub fn start(told: Option<u64>) -> Self {
        let resident = resident_bytes().unwrap_or(0);
        let limit =
            told.or_else(|| memory_limit(Path::new("/sys/fs/cgroup"), &read_meminfo(), resident));
        Self { limit, resident_before: resident, session_bytes: 0 }
    }

    /// Whether one more session fits, estimated by the size of the last one. Prepacked weights are
    /// shared, so the second session is often smaller than the first.
    pub fn has_room(&mut self) -> bool {
        let resident = resident_bytes().unwrap_or(0);
        self.session_bytes = resident.saturating_sub(self.resident_before).max(MIN_SESSION_BYTES);
        self.resident_before = resident;
        self.limit.is_none_or(|limit| session_fits(limit, resident, self.session_bytes))
    }

    /// Logs a warning when fewer workers than requested were started.
    pub fn warn_if_short(&self, workers: usize, wanted: usize) {
        if workers < wanted {
            tracing::warn!(
                workers,
                wanted,
                session_bytes = self.session_bytes,
                memory_bytes = self.limit,
                remedy =
                    "raise resources.limits.memory, or ask for fewer by --workers or a CPU limit",
                "memory holds no more sessions of this model"
            );
        }
    }
}

fn session_fits(limit: u64, resident: u64, session: u64) -> bool {
    resident.saturating_add(session) <= limit / USABLE_SHARE.1 * USABLE_SHARE.0
}

/// The memory limit of the process in bytes: the lower of its cgroup's limit (v2 or v1) and the
/// free memory of the machine.
fn memory_limit(cgroup: &Path, meminfo: &str, resident: u64) -> Option<u64> {
    let read = |file: &str| fs::read_to_string(cgroup.join(file)).ok()?.trim().parse::<u64>().ok();
    // Without a limit, v2 has the text `max`, which does not parse, and v1 a number larger than any
    // machine's memory.
    let of_cgroup = read("memory.max").or_else(|| read("memory/memory.limit_in_bytes"));
    let free = parse_proc_line(meminfo, "MemAvailable:").map(|free| free.saturating_add(resident));
    [of_cgroup, free].into_iter().flatten().min()
}

fn read_meminfo() -> String {
    fs::read_to_string("/proc/meminfo").unwrap_or_default()
}

fn resident_bytes() -> Option<u64> {
    parse_proc_line(&fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

/// A line of `/proc`, converted from kB to bytes.
fn parse_proc_line(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const MEMINFO: &str =
        "MemTotal:       16000000 kB\nMemFree:         1000000 kB\nMemAvailable:    8000000 kB\n";

    #[test]
    fn the_limit_is_the_least_of_cgroup_and_machine() {
        let dir = tempfile::tempdir().unwrap();
        let free = 8_000_000 * 1024 + 100 * MIB;
        assert_eq!(memory_limit(dir.path(), MEMINFO, 100 * MIB), Some(free), "no cgroup");
        fs::write(dir.path().join("memory.max"), "max\n").unwrap();
        assert_eq!(
            memory_limit(dir.path(), MEMINFO, 100 * MIB),
            Some(free),
            "a cgroup without a limit"
        );
        fs::write(dir.path().join("memory.max"), "2147483648\n").unwrap();
        assert_eq!(memory_limit(dir.path(), MEMINFO, 0), Some(2048 * MIB));
        let first = tempfile::tempdir().unwrap();
        fs::create_dir(first.path().join("memory")).unwrap();
        fs::write(first.path().join("memory/memory.limit_in_bytes"), "1073741824\n").unwrap();
        assert_eq!(memory_limit(first.path(), MEMINFO, 0), Some(1024 * MIB));
        fs::write(first.path().join("memory/memory.limit_in_bytes"), "9223372036854771712\n")
            .unwrap();
        assert_eq!(
            memory_limit(first.path(), "", 0),
            Some(9_223_372_036_854_771_712),
            "as good as none"
        );
    }

    #[test]
    fn a_quarter_is_left_for_requests() {
        assert!(session_fits(2048 * MIB, 1400 * MIB, 110 * MIB));
        assert!(!session_fits(2048 * MIB, 1430 * MIB, 110 * MIB));
        assert!(!session_fits(1, u64::MAX, 1));
    }

    #[test]
    fn this_process_is_seen() {
        assert!(resident_bytes().unwrap() > MIB);
        assert!(parse_proc_line(&read_meminfo(), "MemTotal:").unwrap() > MIB);
        let mut memory = SessionMemory::start(None);
        assert!(memory.limit.is_some() && memory.has_room());
        memory.limit = Some(MIB);
        assert!(!memory.has_room());
    }
}
