//! The keys of the namespace, as files of the Secret `slipway-keys`: what prediction ids are sealed with where no gateway can (results of jobs, messages of
//! streams), and who may ask for more than predictions.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::HeaderMap;
use http::header::AUTHORIZATION;
use ring::hmac::{HMAC_SHA256, Key, sign, verify};
use slipway_prediction_id::{ACCESS, PURPOSE, Report, Sealer, derive, read_master, read_token};

use crate::error::ApiError;

/// How long what was read is used before the files are looked at again.
const READ_AGAIN: Duration = Duration::from_secs(10);
/// By which a gateway proves that it has seen the token: hex of a key that is derived for it.
const ACCESS_HEADER: &str = "x-slipway-access";

/// What the files held.
#[derive(Debug)]
struct Held {
    sealer: Option<Sealer>,
    access: Option<String>,
    token: Option<String>,
}

/// The keys, for one ModelDeployment and one revision of it.
#[derive(Debug)]
pub struct Keys {
    directory: Option<PathBuf>,
    uid: String,
    revision: String,
    held: Mutex<Option<(Instant, Arc<Held>)>>,
}

impl Keys {
    /// Those of a directory; without one there are none, and nobody is asked for any.
    pub fn new(directory: Option<PathBuf>, uid: &str, revision: &str) -> Self {
        Self { directory, uid: uid.to_owned(), revision: revision.to_owned(), held: Mutex::default() }
    }

    /// The id of a prediction that was made now; none without a key.
    pub fn issue(&self, report: &Report) -> Option<String> {
        let held = self.held()?;
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        held.sealer.as_ref()?.seal(&self.revision, u32::try_from(seconds).unwrap_or(u32::MAX), report)
    }

    /// The token, to be shown to another pod or a gateway.
    pub fn token(&self) -> Option<String> {
        self.held()?.token.clone()
    }

    /// Whether a request may do more than predict: it comes from a gateway that has seen the token, or shows the token itself.
    ///
    /// # Errors
    /// `Forbidden`, when there is a directory and it does neither.
    pub fn admit(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let Some(held) = self.held() else { return Ok(()) };
        let proof = headers.get(ACCESS_HEADER).map(http::HeaderValue::as_bytes);
        let token = headers.get(AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        let equal = |shown: Option<&[u8]>, wanted: &Option<String>| {
            shown.zip(wanted.as_ref()).is_some_and(|(shown, wanted)| is_equal(shown, wanted.as_bytes()))
        };
        if equal(proof, &held.access) || equal(token, &held.token) {
            return Ok(());
        }
        Err(ApiError::Forbidden(
            "this is for those who show the token of the Secret slipway-keys; ask at the port `private` (8081) of the ModelDeployment's Service"
                .into(),
        ))
    }

    /// None without a directory.
    fn held(&self) -> Option<Arc<Held>> {
        let directory = self.directory.as_ref()?;
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, fresh)) = held.as_ref().filter(|(at, _)| at.elapsed() < READ_AGAIN) {
            return Some(Arc::clone(fresh));
        }
        let fresh = Arc::new(self.read(directory));
        *held = Some((Instant::now(), Arc::clone(&fresh)));
        Some(fresh)
    }

    fn read(&self, directory: &Path) -> Held {
        let master = read_master(directory).ok().and_then(Result::ok);
        let derived = |purpose| master.as_ref().map(|master| derive(master, purpose, &self.uid));
        let token = read_token(directory).ok().and_then(Result::ok);
        Held {
            sealer: derived(PURPOSE).and_then(|key| Sealer::new(&key)),
            access: derived(ACCESS).map(hex::encode),
            token: token.and_then(|token| String::from_utf8(token).ok()),
        }
    }
}

/// In a time that tells nothing of where they differ.
fn is_equal(a: &[u8], b: &[u8]) -> bool {
    let key = Key::new(HMAC_SHA256, b"equal");
    verify(&key, a, sign(&key, b).as_ref()).is_ok()
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
        let report = Report { sample: 1, labels: vec![] };
        let keys = || Keys::new(Some(directory.path().to_owned()), "uid", "rev1");
        assert_eq!(Keys::new(None, "uid", "rev1").issue(&report), None);
        assert_eq!(keys().issue(&report), None);
        for (length, is_key) in [(31, false), (32, true), (64, true), (65, false)] {
            std::fs::write(&file, vec![7; length]).unwrap();
            assert_eq!(keys().issue(&report).is_some(), is_key, "{length}");
        }
        std::fs::write(&file, [7; 32]).unwrap();
        let id = keys().issue(&report).unwrap();
        assert_eq!(Sealer::new(&derive(&[7; 32], PURPOSE, "uid")).unwrap().open(&id).unwrap().revision, "rev1");
    }

    #[test]
    fn only_who_shows_the_token_or_its_proof_is_admitted() {
        let directory = tempfile::tempdir().unwrap();
        let admits = |uid: &str, name: &'static str, value: &str| {
            let headers =
                HeaderMap::from_iter([(http::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())]);
            Keys::new(Some(directory.path().to_owned()), uid, "rev1").admit(&headers).is_ok()
        };
        let (bearer, proof) = (format!("Bearer {TOKEN_TEXT}"), hex::encode(derive(&[7; 32], ACCESS, "uid")));
        assert!(!admits("uid", "authorization", &bearer), "there is no Secret yet, so nobody can show anything");
        std::fs::write(directory.path().join("master"), [7; 32]).unwrap();
        std::fs::write(directory.path().join("token"), format!("{TOKEN_TEXT}\n")).unwrap();
        assert!(admits("uid", "authorization", &bearer) && admits("uid", ACCESS_HEADER, &proof));
        assert!(!admits("other", ACCESS_HEADER, &proof), "a proof is of one ModelDeployment");
        assert!(!admits("uid", "authorization", TOKEN_TEXT) && !admits("uid", ACCESS_HEADER, ""));
        assert!(Keys::new(None, "uid", "rev1").admit(&HeaderMap::new()).is_ok());
    }
}
