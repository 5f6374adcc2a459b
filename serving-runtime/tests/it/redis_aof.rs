//! A real redis-server on a free port, with an append-only file, that can be killed and started again.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::support::DEADLINE;

/// A running redis-server, stopped when dropped.
pub(crate) struct Redis {
    child: Option<Child>,
    dir: TempDir,
    port: u16,
}

impl Redis {
    /// Starts one; the test fails with a remedy when there is no redis-server.
    pub(crate) fn start() -> Self {
        // Freed before the server takes it; another process may be faster, then the server ends and the next port is tried.
        for _ in 0..10 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut redis = Self { child: None, dir: tempfile::tempdir().unwrap(), port };
            if redis.run() {
                return redis;
            }
        }
        panic!("redis-server does not start");
    }

    /// Starts the server (again), on the same port and files. False when it ended at once.
    pub(crate) fn run(&mut self) -> bool {
        let program = std::env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".into());
        let child = Command::new(&program)
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"])
            .args(["--appendfsync", "always", "--maxmemory-policy", "noeviction", "--dir"])
            .arg(self.dir.path())
            .stdout(Stdio::null())
            .spawn();
        let mut child = child.unwrap_or_else(|e| {
            panic!("cannot run {program} ({e}): apt-get install redis-server, or set REDIS_SERVER")
        });
        let until = Instant::now() + DEADLINE;
        loop {
            if child.try_wait().unwrap().is_some() {
                return false;
            }
            let answers = redis::Client::open(self.url()).unwrap().get_connection_with_timeout(Duration::from_secs(1));
            if answers.and_then(|mut c| redis::cmd("PING").query::<String>(&mut c)).is_ok() {
                self.child = Some(child);
                return true;
            }
            assert!(Instant::now() < until, "redis-server does not answer");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// One command.
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

    /// The law: all that came in is somewhere, exactly once.
    #[track_caller]
    pub(crate) fn conserved(&self) {
        let ended: i64 =
            ["succeeded", "failed", "dead", "expired", "cancelled", "duplicate"].iter().map(|s| self.total(s)).sum();
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

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}
