//! Bounds of texts in statuses and Events.

/// Longest message in status.
pub(crate) const MESSAGE_BYTES: usize = 1000;

/// Text that fits into status.
pub fn clip_message(text: &str) -> String {
    if text.len() <= MESSAGE_BYTES {
        return text.to_owned();
    }
    let end = (0..=MESSAGE_BYTES).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
    format!("{}…", text.get(..end).unwrap_or_default())
}
