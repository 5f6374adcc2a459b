//! A real redis-server on a free port, with an append-only file, which can be killed and restarted.

use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::support::Process;

/// A running redis-server, stopped when dropped.
pub(crate) struct Redis {
    process: Process,
    dir: TempDir,
    port: u16,
}

impl Redis {
    pub(crate) fn start() -> Self {
        Process::on_a_free_port(|port| {
            let mut redis =
                Self { process: Process::default(), dir: tempfile::tempdir().unwrap(), port };
            redis.run().then_some(redis)
        })
    }

    /// Starts the server (again), on the same port and files. Returns `false` when it ended at
    /// once.
    pub(crate) fn run(&mut self) -> bool {
        // Debian's package of that name contains it; `make check` installs it.
        let mut command =
            Command::new(std::env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".into()));
        command.args([
            "--port",
            &self.port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "yes",
        ]);
        command
            .args(["--appendfsync", "always", "--maxmemory-policy", "noeviction", "--dir"])
            .arg(self.dir.path());
        let client = redis::Client::open(self.url()).unwrap();
        self.process.start(&mut command, || {
            let connection = client.get_connection_with_timeout(Duration::from_secs(1));
            connection.and_then(|mut c| redis::cmd("PING").query::<String>(&mut c)).is_ok()
        })
    }

    /// Sends SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// Runs one command.
    pub(crate) fn command<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let mut connection = redis::Client::open(self.url()).unwrap().get_connection().unwrap();
        let (name, arguments) = words.split_first().unwrap();
        redis::cmd(name).arg(arguments).query(&mut connection).unwrap()
    }

    /// A counter of the queue `test`.
    pub(crate) fn total(&self, name: &str) -> i64 {
        self.command::<Option<i64>>(&["HGET", "slipway:{test}:stats", name]).unwrap_or(0)
    }

    /// Entries of the queue `test`.
    pub(crate) fn entries(&self) -> i64 {
        ["high", "normal", "low"]
            .iter()
            .map(|p| self.command::<i64>(&["XLEN", &format!("slipway:{{test}}:jobs:{p}")]))
            .sum()
    }

    /// Checks the conservation law: every job that was enqueued is in exactly one place.
    #[track_caller]
    pub(crate) fn conserved(&self) {
        let ended: i64 = ["succeeded", "failed", "dead", "expired", "cancelled", "duplicate"]
            .iter()
            .map(|s| self.total(s))
            .sum();
        assert_eq!(
            self.total("enqueued"),
            ended + self.entries(),
            "{:?}",
            self.command::<Vec<String>>(&["HGETALL", "slipway:{test}:stats"])
        );
        if self.entries() == 0 {
            assert_eq!(self.total("bytes"), 0);
        }
    }
}
