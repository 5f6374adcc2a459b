//! Long-running processes of a node: started in its namespaces and cgroup, recorded in a pid file.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::error::{HarnessError, Result};
use crate::layout::ClusterLayout;
use crate::{cgroup, shell, wait};

/// Lines of a log that an error shows.
const LOG_TAIL: usize = 30;
const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// A program to run as a component.
#[derive(Debug, Clone)]
pub struct NodeComponent {
    /// Short name, also of the log and the pid file.
    pub name: &'static str,
    pub program: PathBuf,
    pub arguments: Vec<String>,
    /// Whether it uses the node's mounts rather than the host's.
    pub node_mounts: bool,
}

/// A process, distinguished by its start time from a later one with the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeProcess {
    /// The process id.
    pub pid: i32,
    /// The start time, in clock ticks since boot.
    pub started: u64,
}

impl NodeComponent {
    /// Starts it; the log is appended to that of an earlier run.
    pub fn start(&self, layout: &ClusterLayout, path: &str) -> Result<NodeProcess> {
        let log = layout.log_file(self.name);
        let output = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(HarnessError::io("open", &log))?;
        let errors = output.try_clone().map_err(HarnessError::io("open", &log))?;
        let mut command = self.command(layout)?;
        command
            .env("PATH", path)
            .current_dir(layout.data_dir())
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors);
        // Its own process group, so that Ctrl-C on `up` or on a test does not reach it.
        command.process_group(0);
        let child = command
            .spawn()
            .map_err(|source| HarnessError::Start { command: self.name.into(), source })?;
        let process = NodeProcess::from_pid(child.id().cast_signed())
            .ok_or_else(|| self.failure(layout, "ended at once"))?;
        let file = layout.pid_file(self.name);
        let text = serde_json::to_string(&process)
            .map_err(|source| HarnessError::Json { what: "pid file".into(), source })?;
        std::fs::write(&file, text).map_err(HarnessError::io("write", &file))?;
        Ok(process)
    }

    /// The command that joins cgroup and namespaces and then becomes the component, all under one
    /// pid.
    fn command(&self, layout: &ClusterLayout) -> Result<Command> {
        let procs = cgroup::components_cgroup(layout)?.join("cgroup.procs");
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ >\"$0\" && exec \"$@\""]).arg(procs).arg("nsenter");
        command.arg(format!("--net={}", layout.netns_path().display()));
        if self.node_mounts {
            let holder = NodeProcess::find_running(layout, MOUNT_HOLDER)
                .ok_or_else(|| HarnessError::NotUp(layout.name().into()))?;
            command.arg(format!("--mount=/proc/{}/ns/mnt", holder.pid));
        }
        command.arg("--").arg(&self.program).args(&self.arguments);
        Ok(command)
    }

    /// An error with the last lines of the component's log.
    pub fn failure(&self, layout: &ClusterLayout, what: &str) -> HarnessError {
        HarnessError::Component {
            component: self.name.into(),
            what: what.into(),
            log: shell::file_tail(&layout.log_file(self.name), LOG_TAIL),
        }
    }
}

/// Name of the process that holds the node's mount namespace.
pub const MOUNT_HOLDER: &str = "mounts";

impl NodeProcess {
    /// The running process with this id.
    pub fn from_pid(pid: i32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (state, started) = parse_stat(&stat)?;
        // A zombie has ended; its parent has not waited for it yet.
        (state != 'Z' && state != 'X').then_some(Self { pid, started })
    }

    /// The process of a component, if it still runs.
    pub fn find_running(layout: &ClusterLayout, component: &str) -> Option<Self> {
        let text = std::fs::read_to_string(layout.pid_file(component)).ok()?;
        serde_json::from_str::<Self>(&text).ok().filter(Self::is_running)
    }

    /// Whether it still runs and its id has not been reused.
    pub fn is_running(&self) -> bool {
        Self::from_pid(self.pid) == Some(*self)
    }

    /// Sends a signal, unless it has ended.
    pub fn signal(&self, signal: Signal) {
        if self.is_running() {
            // It may end between the check and the signal, which is fine.
            let _ = kill(Pid::from_raw(self.pid), signal);
        }
    }

    /// Sends SIGTERM, after a while SIGKILL, and returns when the process has ended.
    pub fn stop(&self) -> Result<()> {
        self.signal(Signal::SIGTERM);
        if wait::until_blocking("process ends", STOP_DEADLINE, || !self.is_running()).is_ok() {
            return Ok(());
        }
        self.signal(Signal::SIGKILL);
        wait::until_blocking("process ends after SIGKILL", STOP_DEADLINE, || !self.is_running())
    }
}

/// State and start time from `/proc/PID/stat`; the name in parentheses may itself contain spaces
/// and parentheses.
fn parse_stat(stat: &str) -> Option<(char, u64)> {
    let after = stat.rsplit_once(')')?.1;
    let fields: Vec<&str> = after.split_whitespace().collect();
    Some((fields.first()?.chars().next()?, fields.get(19)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_of_a_nasty_name() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 1 0 0 0 5 6 0 0 20 0 1 0 777 1000 10";
        assert_eq!(parse_stat(stat), Some(('S', 777)));
    }

    #[test]
    fn another_process_with_the_same_number_is_not_ours() {
        let this = NodeProcess::from_pid(std::process::id().cast_signed()).unwrap();
        assert!(this.is_running());
        assert!(!NodeProcess { started: this.started + 1, ..this }.is_running());
    }

    #[test]
    fn an_ended_child_counts_as_ended_even_before_it_is_reaped() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let process = NodeProcess::from_pid(child.id().cast_signed()).unwrap();
        process.stop().unwrap();
        assert!(!process.is_running());
        child.wait().unwrap();
    }
}
