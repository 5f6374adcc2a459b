//! Access to Services of a foreign cluster, whose network is not reachable: one `kubectl
//! port-forward` for each.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

use crate::error::{HarnessError, Result};
use crate::shell;

const READY: Duration = Duration::from_secs(30);

/// Services by namespace, name and port.
type ServiceKey = (String, String, u16);

/// The open forwards. They end when this value is dropped.
#[derive(Debug, Default)]
pub(super) struct PortForwards(Mutex<BTreeMap<ServiceKey, (Child, String)>>);

impl PortForwards {
    /// Base URL of a Service on this machine. `kubectl` is the program with the arguments that
    /// choose the cluster. A forward is bound to one pod; when that pod is gone the forward ends,
    /// and the next call opens another.
    pub(super) async fn url(
        &self,
        kubectl: std::process::Command,
        namespace: &str,
        name: &str,
        port: u16,
    ) -> Result<String> {
        let mut open = self.0.lock().await;
        let key = (namespace.to_owned(), name.to_owned(), port);
        if let Some((child, url)) = open.get_mut(&key)
            && matches!(child.try_wait(), Ok(None))
        {
            return Ok(url.clone());
        }
        let mut command = Command::from(kubectl);
        let arguments: [OsString; 5] = [
            "port-forward".into(),
            format!("--namespace={namespace}").into(),
            "--address=127.0.0.1".into(),
            format!("service/{name}").into(),
            format!(":{port}").into(),
        ];
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true);
        let line = shell::command_line(command.as_std());
        let mut child = command
            .spawn()
            .map_err(|source| HarnessError::Start { command: line.clone(), source })?;
        let said = tokio::time::timeout(READY, first_line(&mut child)).await.unwrap_or_default();
        let Some(local) = said.as_deref().and_then(parse_local_port) else {
            let output = said.unwrap_or_else(|| "it says nothing".into());
            return Err(HarnessError::Command {
                command: line,
                status: "no forward".into(),
                output,
            });
        };
        let url = format!("http://127.0.0.1:{local}");
        open.insert(key, (child, url.clone()));
        Ok(url)
    }
}

async fn first_line(child: &mut Child) -> Option<String> {
    let mut lines = BufReader::new(child.stdout.take()?).lines();
    let line = lines.next_line().await.ok().flatten();
    // It writes a line for each connection, and would block on a full pipe.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    line
}

/// `Forwarding from 127.0.0.1:40001 -> 8080`: 40001.
fn parse_local_port(line: &str) -> Option<u16> {
    line.strip_prefix("Forwarding from 127.0.0.1:")?.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_read_off_the_first_line() {
        assert_eq!(parse_local_port("Forwarding from 127.0.0.1:40001 -> 8080"), Some(40_001));
        assert_eq!(parse_local_port("error: no pods"), None);
    }

    #[tokio::test]
    async fn a_program_that_opens_nothing_is_an_error_with_its_words() {
        let mut program = std::process::Command::new("sh");
        program.args(["-c", "echo no such service", "kubectl"]);
        let error = PortForwards::default()
            .url(program, "lab", "digits", 80)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("no such service") && error.contains("service/digits"), "{error}");
    }

    #[tokio::test]
    async fn a_forward_is_kept_while_it_lives() {
        let program = |port: u16, then: &str| {
            let mut program = std::process::Command::new("sh");
            program.args([
                "-c",
                &format!("echo 'Forwarding from 127.0.0.1:{port} -> 80'; {then}"),
                "kubectl",
            ]);
            program
        };
        let forwards = PortForwards::default();
        let first = forwards.url(program(1, "exec sleep 60"), "lab", "digits", 80).await.unwrap();
        assert_eq!(
            forwards.url(program(2, "exec sleep 60"), "lab", "digits", 80).await.unwrap(),
            first
        );
        assert_eq!(
            forwards.url(program(3, ""), "lab", "other", 80).await.unwrap(),
            "http://127.0.0.1:3"
        );
        let again = || async {
            let url = forwards.url(program(4, "exec sleep 60"), "lab", "other", 80).await.unwrap();
            if url == "http://127.0.0.1:4" { Ok(()) } else { Err(url) }
        };
        crate::wait::until_ok("the ended forward to be replaced", READY, again).await.unwrap();
    }
}
