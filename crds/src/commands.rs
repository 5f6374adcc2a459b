//! Values of the annotations with which users control a rollout ([`crate::labels::COMMANDS`]).
//!
//! A value has the form `<revision>/<step>/<nonce>[/<user>]`. The command acts on that revision
//! only. If the step is a number, the command acts at that step only (its index, from 0); `-`
//! stands for any step. `<user>` is the user who gave the command; a ValidatingAdmissionPolicy of
//! the chart compares it with the user of the request. `kubectl slipway` writes such values.
//!
//! A value of any other form takes effect once, for the rollout and the step that are current when
//! the operator first reads it, and its user is unknown. If such a value is present when a rollout
//! begins, it has no effect.

/// User of a command whose value names none.
pub const UNKNOWN_USER: &str = "unknown";

/// Number of hexadecimal digits of a revision.
const REVISION_DIGITS: usize = 10;

/// The revision and the step that a command acts on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandTarget {
    /// The revision that the command acts on.
    pub revision: String,
    /// Index of the step, from 0; `None` for any step.
    pub step: Option<i32>,
}

/// A parsed command value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandValue {
    /// The revision and the step that the command acts on; `None` if the value does not name them.
    pub target: Option<CommandTarget>,
    /// The user who gave the command, or [`UNKNOWN_USER`].
    pub user: String,
}

impl CommandValue {
    /// Parses the value of an annotation. Never fails: a value of another form has no target.
    pub fn parse(value: &str) -> Self {
        let parts: Vec<&str> = value.splitn(4, '/').collect();
        let bare = Self { target: None, user: UNKNOWN_USER.to_owned() };
        let (Some(revision), Some(step), Some(nonce)) = (parts.first(), parts.get(1), parts.get(2))
        else {
            return bare;
        };
        let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let step = match *step {
            "-" => None,
            digits => match digits.parse() {
                Ok(step) if step >= 0 && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                    Some(step)
                }
                _ => return bare,
            },
        };
        if revision.len() != REVISION_DIGITS || !revision.bytes().all(hex) || nonce.is_empty() {
            return bare;
        }
        let user = parts.get(3).filter(|user| !user.is_empty()).map_or(UNKNOWN_USER, |user| user);
        Self {
            target: Some(CommandTarget { revision: (*revision).to_owned(), step }),
            user: user.to_owned(),
        }
    }

    /// Formats the value of a command.
    pub fn format(target: &CommandTarget, nonce: &str, user: &str) -> String {
        let step = target.step.map_or_else(|| "-".to_owned(), |step| step.to_string());
        format!("{}/{step}/{nonce}/{user}", target.revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_as_they_were_written() {
        for step in [None, Some(0), Some(12)] {
            let target = CommandTarget { revision: "0123456789".to_owned(), step };
            let value = CommandValue::format(&target, "1a", "system:serviceaccount:team/bot");
            let read = CommandValue::parse(&value);
            assert_eq!(
                read,
                CommandValue {
                    target: Some(target),
                    user: "system:serviceaccount:team/bot".to_owned()
                }
            );
        }
        let without_user = CommandValue::parse("0123456789/2/1764450000");
        assert_eq!(
            (without_user.target.unwrap().step, without_user.user.as_str()),
            (Some(2), UNKNOWN_USER)
        );
    }

    #[test]
    fn any_other_value_has_no_target() {
        for value in [
            "",
            "1",
            "2026-11-29T20:00:00Z",
            "a/b/c/d",
            "0123456789",
            "0123456789/2",
            "0123456789/-1/x",
            "0123456789/+1/x",
            "0123456789/1//u",
            "012345678g/1/x",
        ] {
            assert_eq!(
                CommandValue::parse(value),
                CommandValue { target: None, user: UNKNOWN_USER.to_owned() },
                "{value}"
            );
        }
    }
}
