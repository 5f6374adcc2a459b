//! The source of feature rows that were not written: one configured address.

use std::time::Duration;

use reqwest::{Client, StatusCode, redirect};
use slipway_contracts::environment::FEATURE_SOURCE_URL;
use url::Url;

/// Placeholder of the entity in the address, and largest size of one row in bytes.
pub const MAX_ROW: usize = 256 << 10;
const ENTITY_PLACEHOLDER: &str = "{entity}";

/// A feature source: `GET` of an address with the entity in its path or query returns the row, or
/// 404.
///
/// Requests go only to the configured host: the entity is encoded so that it cannot leave its path
/// segment or query parameter, and redirects are not followed.
#[derive(Debug)]
pub struct FeatureRowSource {
    template: String,
    client: Client,
}

impl FeatureRowSource {
    /// Creates a source from its address.
    ///
    /// # Errors
    /// What is wrong with the address.
    pub fn new(template: &str, timeout: Duration) -> Result<Self, String> {
        let wrong = |why: &str| format!("--feature-source-url ({FEATURE_SOURCE_URL}): {why}");
        let url = Url::parse(&template.replace(ENTITY_PLACEHOLDER, "x"))
            .map_err(|e| wrong(&e.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong("must be http:// or https://"));
        }
        // The part before the path must not depend on the entity.
        let after_host = template
            .find("://")
            .and_then(|at| template[at + 3..].find('/').map(|slash| at + 3 + slash));
        let place = template.find(ENTITY_PLACEHOLDER);
        if place.is_none_or(|place| after_host.is_none_or(|slash| place < slash)) {
            return Err(wrong("must hold {entity} once in its path or query"));
        }
        // Requests go directly to the configured host, not through a proxy.
        let client = Client::builder()
            .redirect(redirect::Policy::none())
            .no_proxy()
            .timeout(timeout)
            .build();
        let client = client.map_err(|e| wrong(&e.to_string()))?;
        Ok(Self { template: template.to_owned(), client })
    }

    /// The row of an entity as text; `None` when the source has none.
    ///
    /// # Errors
    /// When the source does not answer, or its answer is no row.
    pub async fn fetch_row(&self, entity: &str) -> Result<Option<String>, String> {
        let failed =
            |why: String| format!("the feature source has no answer for entity {entity:?}: {why}");
        // `.` and `..` change the path, encoded or not.
        if matches!(entity, "." | "..") {
            return Ok(None);
        }
        let url = self.template.replace(ENTITY_PLACEHOLDER, &percent_encode(entity));
        let response = self.client.get(url).send().await;
        let mut response = response.map_err(|e| failed(e.without_url().to_string()))?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND | StatusCode::GONE => return Ok(None),
            status => return Err(failed(format!("it answered {status}"))),
        }
        let mut bytes = Vec::new();
        while let Some(piece) =
            response.chunk().await.map_err(|e| failed(e.without_url().to_string()))?
        {
            if bytes.len() + piece.len() > MAX_ROW {
                return Err(failed(format!("more than {MAX_ROW} bytes")));
            }
            bytes.extend_from_slice(&piece);
        }
        String::from_utf8(bytes).map(Some).map_err(|_| failed("it is not UTF-8".into()))
    }
}

/// Percent-encodes all characters but letters, digits, `-` and `_`.
fn percent_encode(entity: &str) -> String {
    entity.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entity_cannot_leave_its_place() {
        let base = Url::parse("http://store.shop/rows/x/v1").unwrap();
        for entity in [
            "../../admin",
            "a/b",
            "a?b=c",
            "a#b",
            "@evil.example",
            "%2e%2e",
            "ü",
            "a b",
            "\r\nhost: x",
        ] {
            let url = Url::parse(
                &"http://store.shop/rows/{entity}/v1"
                    .replace(ENTITY_PLACEHOLDER, &percent_encode(entity)),
            )
            .unwrap();
            assert_eq!(
                (url.host(), url.port(), url.query(), url.fragment()),
                (base.host(), None, None, None)
            );
            let path: Vec<&str> = url.path_segments().unwrap().collect();
            assert_eq!((path.len(), path[0], path[2]), (3, "rows", "v1"), "{entity} gives {url}");
        }
    }

    #[test]
    fn addresses_that_cannot_work_are_refused() {
        slipway_chassis::tls::install_provider();
        let new = |url: &str| FeatureRowSource::new(url, Duration::from_secs(1)).map(drop);
        assert_eq!(new("http://store/rows/{entity}"), Ok(()));
        assert_eq!(new("https://store:8443/rows?id={entity}"), Ok(()));
        for url in [
            "http://store/rows",
            "http://{entity}/rows",
            "http://store.{entity}/x",
            "file:///{entity}",
            "{entity}",
        ] {
            assert!(new(url).is_err(), "{url}");
        }
    }
}
