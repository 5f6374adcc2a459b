//! Formats numbers for messages.

use slipway_crds::v1alpha1::{GateStatus, GateVerdict};

/// Longest message of a gate that the API accepts, in characters.
pub(crate) const MAX_MESSAGE: usize = 1024;

/// Truncates a text to `most` characters, with an ellipsis as the last one.
pub(crate) fn truncate_text(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

/// The gates that determine the verdict, with their messages.
pub(crate) fn summarize_gates(verdict: GateVerdict, gates: &[GateStatus]) -> String {
    if gates.is_empty() {
        return "no gates".to_owned();
    }
    let summaries: Vec<String> = gates
        .iter()
        .filter(|g| g.verdict == verdict)
        .map(|g| format!("{}: {}", g.name, g.message))
        .collect();
    truncate_text(&summaries.join("; "), MAX_MESSAGE)
}

/// A whole number with separators: `2,310`.
pub(crate) fn format_count(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A share as a percentage with enough digits to distinguish it from 0: `12%`, `0.52%`, `0.013%`.
pub(crate) fn format_percent(share: f64) -> String {
    let percent = share * 100.0;
    let digits = match percent.abs() {
        p if p == 0.0 || p >= 10.0 => 1,
        p if p >= 0.1 => 2,
        _ => 3,
    };
    let text = format!("{percent:.digits$}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{}%", if text == "-0" { "0" } else { text })
}

/// [`format_percent`] with its sign.
pub(crate) fn format_signed_percent(share: f64) -> String {
    let text = format_percent(share);
    if text.starts_with('-') || text == "0%" { text } else { format!("+{text}") }
}

/// Any number, in a short form.
pub(crate) fn format_number(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && !(1e-4..1e9).contains(&size) {
        return format!("{value:.3e}");
    }
    let text = format!("{value:.4}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// A time in its usual unit: `25 ms`, `2.5 s`.
pub(crate) fn format_seconds(seconds: f64) -> String {
    if seconds < 1.0 {
        format!("{} ms", format_number(seconds * 1000.0))
    } else {
        format!("{} s", format_number(seconds))
    }
}

/// A duration in a coarse unit: `40 s`, `6 min`, `3 h`, `5 d`.
pub(crate) fn format_duration(seconds: f64) -> String {
    let (amount, unit) = match seconds {
        s if s < 90.0 => (s, "s"),
        s if s < 5400.0 => (s / 60.0, "min"),
        s if s < 129_600.0 => (s / 3600.0, "h"),
        s => (s / 86_400.0, "d"),
    };
    format!("{} {unit}", format_count(amount.ceil()))
}

/// `1 request`, `120 requests`.
pub(crate) fn format_plural(number: f64, noun: &str) -> String {
    format!("{} {}", format_count(number), plural_noun(number, noun))
}

/// `request`, `requests`.
pub(crate) fn plural_noun(number: f64, noun: &str) -> String {
    if number == 1.0 { noun.to_owned() } else { format!("{noun}s") }
}

/// Rounds up to two significant digits, so that an estimate does not look like a measurement.
pub(crate) fn round_up_two_digits(number: f64) -> f64 {
    if number < 100.0 {
        return number.ceil().max(1.0);
    }
    let unit = 10_f64.powf(number.log10().floor() - 1.0);
    (number / unit).ceil() * unit
}
