//! Checks that there is one feature resolution: programs for the demo, all programs, and tests must
//! compile every crate with the same features, so that none is compiled twice.

use std::collections::BTreeSet;

use crate::checkout::{Checkout, DEMO_PACKAGES};

/// Compares the features of all crates in the three builds.
pub(crate) fn check_features(checkout: &Checkout) -> Result<(), String> {
    let tests = resolve_features(checkout, &["--workspace", "--edges=normal,build,dev"])?;
    let programs = resolve_features(checkout, &["--workspace", "--edges=normal,build"])?;
    let packages = DEMO_PACKAGES.map(|package| format!("--package={package}"));
    let arguments: Vec<&str> =
        packages.iter().map(String::as_str).chain(["--edges=normal,build"]).collect();
    let demo = resolve_features(checkout, &arguments)?;
    let twice: Vec<String> = [
        feature_difference("programs", &programs, "tests", &tests),
        feature_difference("the demo", &demo, "programs", &programs),
    ]
    .into_iter()
    .flatten()
    .collect();
    if twice.is_empty() {
        return Ok(());
    }
    Err(format!(
        "these crates would be compiled twice; give them the same features, in the workspace's dependencies or in e2e/Cargo.toml:\n{}",
        twice.join("\n")
    ))
}

/// One line `crate version|features` for each crate.
fn resolve_features(checkout: &Checkout, arguments: &[&str]) -> Result<BTreeSet<String>, String> {
    // With a target, features of build scripts' crates are separate from those of programs, as in a
    // build.
    let host = slipway_provision::command::run_command(&mut checkout.command("rustc", &["-vV"]))
        .map_err(|error| error.to_string())?;
    let host = host.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
    let mut command = checkout.cargo_command(&[
        "tree",
        "--prefix=none",
        "--format={p}|{f}",
        "--quiet",
        "--target",
        host,
    ]);
    let text = slipway_provision::command::run_command(command.args(arguments))
        .map_err(|error| error.to_string())?;
    Ok(text.lines().map(|line| line.replace(" (*)", "").replace(" (proc-macro)", "")).collect())
}

fn feature_difference(
    one: &str,
    here: &BTreeSet<String>,
    other: &str,
    there: &BTreeSet<String>,
) -> Vec<String> {
    let name = |line: &str| line.split('|').next().unwrap_or_default().to_owned();
    let differs = here.difference(there);
    differs
        .map(|line| {
            let also: Vec<&str> =
                there.iter().filter(|it| name(it) == name(line)).map(String::as_str).collect();
            format!("  {one}: {line}\n  {other}: {}", also.join(", "))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_features_are_told_with_both_sides() {
        let set = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect();
        let told = feature_difference(
            "programs",
            &set(&["a v1|x", "b v1|"]),
            "tests",
            &set(&["a v1|x,y", "b v1|", "c v1|"]),
        );
        assert_eq!(told, ["  programs: a v1|x\n  tests: a v1|x,y"]);
    }
}
