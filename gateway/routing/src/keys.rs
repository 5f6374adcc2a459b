//! The keys of the namespace: files of the Secret `slipway-keys`, which the kubelet mounts into the
//! pod and replaces in place.
//!
//! Other keys are derived from `master`, by purpose and UID of the ModelDeployment; `token`
//! authenticates users. A file that is missing or has a wrong size is reported and provides no key,
//! and the gateway continues without it: each use of a key must reject the request, or work without
//! the key.

use std::fmt::{self, Debug, Formatter};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use parking_lot::RwLock;
use ring::hmac::{self, HMAC_SHA256};
use ring::rand::SystemRandom;
use slipway_contracts::files;
use slipway_prediction_id::{KeyFileContent, MasterKey, TOKEN_BYTES, read_master, read_token};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::metrics::GatewayMetrics;

/// How long data that was derived from a replaced key stays valid.
pub const PREVIOUS_KEY_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// Interval between checks of the files. The kubelet itself takes a minute to replace them.
const RELOAD_INTERVAL: Duration = Duration::from_secs(10);

/// A token that can be compared but not read.
struct AccessToken {
    key: hmac::Key,
    tag: hmac::Tag,
    authorization: Option<HeaderValue>,
}

impl AccessToken {
    fn new(token: &[u8]) -> Option<Self> {
        let key = hmac::Key::generate(HMAC_SHA256, &SystemRandom::new()).ok()?;
        let tag = hmac::sign(&key, token);
        let mut authorization = HeaderValue::from_bytes(&[b"Bearer ", token].concat()).ok();
        authorization.iter_mut().for_each(|value| value.set_sensitive(true));
        Some(Self { key, tag, authorization })
    }

    /// Compares in constant time.
    fn matches(&self, shown: &[u8]) -> bool {
        hmac::verify(&self.key, shown, self.tag.as_ref()).is_ok()
    }
}

#[derive(Default)]
struct LoadedKeys {
    master: Option<MasterKey>,
    /// The previous key, and until when it is valid.
    previous: Option<(MasterKey, Instant)>,
    token: Option<AccessToken>,
    /// The last reported problem of each file.
    reported: [Option<String>; 2],
}

/// The keys according to the files.
pub struct KeyStore {
    directory: PathBuf,
    loaded: RwLock<LoadedKeys>,
    metrics: Arc<GatewayMetrics>,
}

impl Debug for KeyStore {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyStore").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl KeyStore {
    /// The keys of a directory; nothing is read before [`KeyStore::reload`].
    pub fn new(directory: PathBuf, metrics: Arc<GatewayMetrics>) -> Arc<Self> {
        Arc::new(Self { directory, loaded: RwLock::default(), metrics })
    }

    /// The master key, if there is one.
    pub fn master(&self) -> Option<MasterKey> {
        self.loaded.read().master.clone()
    }

    /// The master key that was replaced or removed less than [`PREVIOUS_KEY_TTL`] ago. Only for
    /// data that was created with it, not for new data.
    pub fn previous_master(&self) -> Option<MasterKey> {
        let held = self.loaded.read();
        held.previous
            .as_ref()
            .filter(|(_, until)| Instant::now() < *until)
            .map(|(master, _)| master.clone())
    }

    /// The key for a purpose and a ModelDeployment, if there is a master key.
    pub fn derive(&self, purpose: &str, uid: &str) -> Option<[u8; 32]> {
        Some(self.master()?.derive(purpose, uid))
    }

    /// Whether this is the token; false when there is none.
    pub fn is_token(&self, shown: &[u8]) -> bool {
        let held = self.loaded.read();
        TOKEN_BYTES.contains(&shown.len())
            && held.token.as_ref().is_some_and(|token| token.matches(shown))
    }

    /// The header that authenticates this gateway to another one.
    pub fn authorization(&self) -> Option<HeaderValue> {
        self.loaded.read().token.as_ref()?.authorization.clone()
    }

    /// Reads the files. A key whose file exists but cannot be read stays as it was.
    pub fn reload(&self) {
        let master = read_master(&self.directory);
        let token = read_token(&self.directory);
        let mut held = self.loaded.write();
        self.report_key_file(&mut held.reported[0], files::MASTER_KEY, &master);
        self.report_key_file(&mut held.reported[1], files::TOKEN, &token);
        if let Ok(read) = master {
            held.replace_master(read.ok().map(MasterKey::new), Instant::now());
        }
        if let Ok(read) = token {
            let same =
                matches!((&read, &held.token), (Ok(bytes), Some(known)) if known.matches(bytes));
            if !same {
                held.token = read.ok().as_deref().and_then(AccessToken::new);
            }
        }
    }

    /// Logs changes, and updates the metrics.
    fn report_key_file(
        &self,
        last_logged: &mut Option<String>,
        file: &'static str,
        read: &io::Result<KeyFileContent>,
    ) {
        let now = match read {
            Ok(Ok(_)) => String::new(),
            Ok(Err(why)) => why.clone(),
            Err(error) => format!("cannot be read, and what it was before holds: {error}"),
        };
        if read.is_ok() {
            self.metrics.set_key_present(file, now.is_empty());
        }
        if last_logged.as_ref() != Some(&now) {
            let path = self.directory.join(file);
            if now.is_empty() {
                tracing::info!(path = %path.display(), "key file read");
            } else {
                tracing::warn!(path = %path.display(), why = now, "no key from this file; the operator makes the Secret slipway-keys");
            }
            *last_logged = Some(now);
        }
    }
}

impl LoadedKeys {
    fn replace_master(&mut self, new: Option<MasterKey>, now: Instant) {
        if self.master != new
            && let Some(old) = std::mem::replace(&mut self.master, new)
        {
            self.previous = Some((old, now + PREVIOUS_KEY_TTL));
        }
        if self.previous.as_ref().is_some_and(|(_, until)| now >= *until) {
            self.previous = None;
        }
    }
}

/// Reads the files periodically until `stop`.
pub async fn reload_periodically(keys: Arc<KeyStore>, stop: CancellationToken) {
    let mut ticks = interval(RELOAD_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let keys = Arc::clone(&keys);
        // Not on a thread that serves requests, because a mounted directory may block.
        let read = tokio::task::spawn_blocking(move || keys.reload());
        if let Some(Err(error)) = stop.run_until_cancelled(read).await {
            tracing::warn!(%error, "the key files could not be looked at");
        }
    }
}

#[cfg(test)]
mod tests;
