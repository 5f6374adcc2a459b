//! Bounds of texts in statuses and Events.

/// Maximum length of a message in the status, in bytes.
pub(crate) const MESSAGE_BYTES: usize = 1000;

/// Truncates a text so that it fits into the status.
pub fn clip_message(text: &str) -> String {
    if text.len() <= MESSAGE_BYTES {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(MESSAGE_BYTES)])
}
