//! Bounds of texts in statuses and Events.

/// Longest message in status.
pub(crate) const MESSAGE_BYTES: usize = 1000;

/// Text that fits into status.
pub fn clip_message(text: &str) -> String {
    if text.len() <= MESSAGE_BYTES {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(MESSAGE_BYTES)])
}
