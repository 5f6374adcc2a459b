//! `slipway-fuzz-seeds DIR`: writes the seeds of every target to `DIR/<target>/`, for libFuzzer.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a tool of the developers")]

fn main() -> std::io::Result<()> {
    let dir = std::path::PathBuf::from(std::env::args().nth(1).expect("a directory"));
    for (target, _) in slipway_fuzz::TARGETS {
        let dir = dir.join(target);
        std::fs::create_dir_all(&dir)?;
        for (number, seed) in slipway_fuzz::seeds::of(target).into_iter().enumerate() {
            std::fs::write(dir.join(format!("seed-{number}")), seed)?;
        }
    }
    Ok(())
}
