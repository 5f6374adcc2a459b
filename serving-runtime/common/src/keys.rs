//! The keys of the namespace, read from the files of the Secret `slipway-keys`. They seal
//! prediction ids that no gateway issues (job results, messages of streams), and they decide which
//! requests may do more than predict.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::HeaderMap;
use http::header::AUTHORIZATION;
use parking_lot::Mutex;
use secrecy::{ExposeSecret as _, SecretString};
use slipway_prediction_id::{
    ACCESS_PURPOSE, PREDICTION_ID_PURPOSE, PredictionIdSealer, PredictionReport, derive_key,
    read_master, read_token,
};

use crate::seal::{EntrySealer, constant_time_eq};

/// How long the keys are used before the files are read again.
const RELOAD_INTERVAL: Duration = Duration::from_secs(10);
/// Proves that a gateway has checked the token: hex of a key derived for this header.
const ACCESS_HEADER: &str = slipway_contracts::headers::ACCESS;

/// The keys derived from the files.
#[derive(Debug)]
struct DerivedKeys {
    sealer: Option<PredictionIdSealer>,
    seal: Option<EntrySealer>,
    access: Option<SecretString>,
    token: Option<SecretString>,
}

/// The derivation purpose of the key that seals cache entries.
const CACHE_PURPOSE: &str = "cache v1";

/// The caller has not proven that it may do more than predict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this is for those who show the token of the Secret slipway-keys; ask at the port `private` (8081) of the ModelDeployment's Service"
)]
pub struct AccessDenied;

/// How entries of the caches in Redis are sealed.
#[derive(Debug)]
pub enum CacheSealing {
    /// No sealing: this process has no key directory.
    Off,
    /// With a key of the ModelDeployment.
    Enabled(EntrySealer),
    /// A key directory is configured but holds no key.
    NoKey,
}

/// The keys of one ModelDeployment and one of its revisions.
#[derive(Debug)]
pub struct DeploymentKeys {
    directory: Option<PathBuf>,
    name: String,
    uid: String,
    revision: String,
    cached: Mutex<Option<(Instant, Arc<DerivedKeys>)>>,
}

impl DeploymentKeys {
    /// Reads the keys from `directory` for the ModelDeployment `name` (`<namespace>/<name>`).
    /// Without a directory there are no keys, and [`Self::authorize`] accepts every request.
    pub fn new(directory: Option<PathBuf>, name: &str, uid: &str, revision: &str) -> Self {
        let [name, uid, revision] = [name, uid, revision].map(str::to_owned);
        Self { directory, name, uid, revision, cached: Mutex::default() }
    }

    /// The id of a prediction made now; `None` without a key.
    pub fn issue_prediction_id(&self, report: &PredictionReport) -> Option<String> {
        let held = self.current()?;
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        held.sealer.as_ref()?.seal(
            &self.revision,
            u32::try_from(seconds).unwrap_or(u32::MAX),
            report,
        )
    }

    pub fn cache_sealing(&self) -> CacheSealing {
        match self.current() {
            None => CacheSealing::Off,
            Some(held) => held.seal.clone().map_or(CacheSealing::NoKey, CacheSealing::Enabled),
        }
    }

    /// The token, to be shown to another pod or a gateway.
    pub fn token(&self) -> Option<SecretString> {
        self.current()?.token.clone()
    }

    /// Checks that a request may do more than predict: it comes from a gateway that has checked the
    /// token, or carries the token itself.
    ///
    /// # Errors
    /// When a key directory is configured and neither is the case.
    pub fn authorize(&self, headers: &HeaderMap) -> Result<(), AccessDenied> {
        let Some(held) = self.current() else { return Ok(()) };
        let proof = headers.get(ACCESS_HEADER).map(http::HeaderValue::as_bytes);
        let token =
            headers.get(AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        let equal = |shown: Option<&[u8]>, wanted: &Option<SecretString>| {
            shown
                .zip(wanted.as_ref())
                .is_some_and(|(shown, it)| constant_time_eq(shown, it.expose_secret().as_bytes()))
        };
        if equal(proof, &held.access) || equal(token, &held.token) {
            return Ok(());
        }
        Err(AccessDenied)
    }

    /// The current keys; `None` without a directory.
    fn current(&self) -> Option<Arc<DerivedKeys>> {
        let directory = self.directory.as_ref()?;
        let mut held = self.cached.lock();
        if let Some((_, fresh)) = held.as_ref().filter(|(at, _)| at.elapsed() < RELOAD_INTERVAL) {
            return Some(Arc::clone(fresh));
        }
        let fresh = Arc::new(self.read(directory));
        *held = Some((Instant::now(), Arc::clone(&fresh)));
        Some(fresh)
    }

    fn read(&self, directory: &Path) -> DerivedKeys {
        let master = read_master(directory).ok().and_then(Result::ok);
        let derived_for =
            |purpose, object| master.as_ref().map(|master| derive_key(master, purpose, object));
        let derived = |purpose| derived_for(purpose, self.uid.as_str());
        let token = read_token(directory).ok().and_then(Result::ok);
        DerivedKeys {
            sealer: derived(PREDICTION_ID_PURPOSE).and_then(|key| PredictionIdSealer::new(&key)),
            // Derived from the name, not the UID: feature rows must survive the deletion and
            // re-creation of the ModelDeployment.
            seal: derived_for(CACHE_PURPOSE, self.name.as_str()).map(|key| EntrySealer::new(&key)),
            access: derived(ACCESS_PURPOSE).map(|key| hex::encode(key).into()),
            token: token.and_then(|token| String::from_utf8(token).ok()).map(SecretString::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const TOKEN_TEXT: &str = "0123456789abcdef0123456789abcdef0123456789a";

    #[test]
    fn ids_are_issued_while_there_is_a_key() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("master");
        let report = PredictionReport { sample: 1, labels: vec![] };
        let keys = || DeploymentKeys::new(Some(directory.path().to_owned()), "ns/m", "uid", "rev1");
        assert_eq!(
            DeploymentKeys::new(None, "ns/m", "uid", "rev1").issue_prediction_id(&report),
            None
        );
        assert_eq!(keys().issue_prediction_id(&report), None);
        for (length, is_key) in [(31, false), (32, true), (64, true), (65, false)] {
            std::fs::write(&file, vec![7; length]).unwrap();
            assert_eq!(keys().issue_prediction_id(&report).is_some(), is_key, "{length}");
        }
        std::fs::write(&file, [7; 32]).unwrap();
        let id = keys().issue_prediction_id(&report).unwrap();
        assert_eq!(
            PredictionIdSealer::new(&derive_key(&[7; 32], PREDICTION_ID_PURPOSE, "uid"))
                .unwrap()
                .open(&id)
                .unwrap()
                .revision,
            "rev1"
        );
    }

    #[test]
    fn only_who_shows_the_token_or_its_proof_is_admitted() {
        let directory = tempfile::tempdir().unwrap();
        let admits = |uid: &str, name: &'static str, value: &str| {
            let headers = HeaderMap::from_iter([(
                http::HeaderName::from_static(name),
                HeaderValue::from_str(value).unwrap(),
            )]);
            DeploymentKeys::new(Some(directory.path().to_owned()), "ns/m", uid, "rev1")
                .authorize(&headers)
                .is_ok()
        };
        let (bearer, proof) = (
            format!("Bearer {TOKEN_TEXT}"),
            hex::encode(derive_key(&[7; 32], ACCESS_PURPOSE, "uid")),
        );
        assert!(
            !admits("uid", "authorization", &bearer),
            "there is no Secret yet, so nobody can show anything"
        );
        std::fs::write(directory.path().join("master"), [7; 32]).unwrap();
        std::fs::write(directory.path().join("token"), format!("{TOKEN_TEXT}\n")).unwrap();
        assert!(admits("uid", "authorization", &bearer) && admits("uid", ACCESS_HEADER, &proof));
        assert!(!admits("other", ACCESS_HEADER, &proof), "a proof is of one ModelDeployment");
        assert!(!admits("uid", "authorization", TOKEN_TEXT) && !admits("uid", ACCESS_HEADER, ""));
        assert!(
            DeploymentKeys::new(None, "ns/m", "uid", "rev1").authorize(&HeaderMap::new()).is_ok()
        );
        let keys = DeploymentKeys::new(Some(directory.path().to_owned()), "ns/m", "uid", "rev1");
        assert!(keys.token().is_some());
        let shown = format!("{keys:?}");
        assert!(!shown.contains(TOKEN_TEXT) && !shown.contains(&proof), "{shown}");
    }

    #[test]
    fn entries_are_sealed_for_one_modeldeployment_of_one_namespace() {
        let directory = tempfile::tempdir().unwrap();
        let sealing = |name: &str| {
            DeploymentKeys::new(Some(directory.path().to_owned()), name, "uid", "rev1")
                .cache_sealing()
        };
        let name = |sealing| match sealing {
            CacheSealing::Enabled(seal) => seal.sealed_name(b"slipway:result:1:00"),
            other => panic!("{other:?}"),
        };
        assert!(matches!(
            DeploymentKeys::new(None, "a/m", "uid", "rev1").cache_sealing(),
            CacheSealing::Off
        ));
        assert!(
            matches!(sealing("a/m"), CacheSealing::NoKey),
            "what should be sealed is not kept in the open"
        );
        std::fs::write(directory.path().join("master"), [7; 32]).unwrap();
        let [this, again, neighbour] = ["a/m", "a/m", "a/n"].map(|of| name(sealing(of)));
        assert!(this == again && this != neighbour);
        std::fs::write(directory.path().join("master"), [8; 32]).unwrap();
        assert_ne!(name(sealing("a/m")), this, "the master key of another namespace");
    }
}
