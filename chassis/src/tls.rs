//! TLS of the process.

use rustls::crypto::ring::default_provider;

/// Makes ring the provider of cryptography for all TLS of this process, and returns whether it is
/// the first one. Named, because libraries refuse to choose where two are compiled in.
pub fn install_provider() -> bool {
    default_provider().install_default().is_ok()
}
