//! The output of `scripts/commit-msg` for messages.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::Path;
use std::process::Command;

/// The complaint of the script; `None` when it accepts the message.
fn complaint(message: &str) -> Option<String> {
    let hash =
        message.bytes().fold(5381_u64, |all, byte| all.wrapping_mul(33).wrapping_add(byte.into()));
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("message-{hash:x}"));
    fs::write(&file, message).unwrap();
    let script = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/commit-msg"));
    let out = Command::new(script).arg(&file).output().unwrap();
    fs::remove_file(&file).unwrap();
    let told = String::from_utf8(out.stderr).unwrap();
    match out.status.code() {
        Some(0) if told.is_empty() => None,
        Some(1) if !told.is_empty() => Some(told),
        other => panic!("{message:?}: {other:?} {told}"),
    }
}

#[test]
fn good_messages_pass() {
    for message in [
        "Keep the queue of jobs on NATS JetStream, too",
        "Keep the queue\n\nfix: is a word like others here. It may end in a full stop.\n",
        "# a comment\n\nRefuse a weight above 100 %\n# Please enter the commit message\n",
        "Say why: a client left\n",
        "Address reviews of the gateway",
        "Use one client",
        // 72 characters, but more bytes.
        &format!("Accept {}", "ü".repeat(65)),
        "Merge branch 'main' into other.",
        "Revert \"Added what nobody needs, in a subject that is much longer than seventy-two letters.\"",
        "fixup! Refuse a weight",
        "Keep it\n# ------------------------ >8 ------------------------\ndiff --git a/x b/x\n",
        "",
    ] {
        assert_eq!(complaint(message), None, "{message:?}");
    }
}

#[test]
fn bad_messages_are_told_what_is_wrong() {
    for (message, part) in [
        (format!("Accept {}", "x".repeat(66)).as_str(), "73 characters"),
        ("Refuse a weight.", "full stop"),
        ("fix: refuse a weight", "prefix"),
        ("feat(gateway)!: refuse a weight", "prefix"),
        ("gateway/proxy: refuse a weight", "prefix"),
        ("[gateway] Refuse a weight", "prefix"),
        ("Added a weight", "\"Added\" is no imperative"),
        ("Fixes a weight", "imperative"),
        ("moving a weight", "imperative"),
        ("Made a weight", "imperative"),
        ("Refuse a weight\nbecause of this", "empty line"),
    ] {
        let told = complaint(message).unwrap_or_default();
        assert!(told.contains(part), "{message:?}: {told:?}");
    }
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let told = complaint("fix: a weight.").unwrap();
    assert!(told.contains("prefix") && told.contains("full stop"));
}
