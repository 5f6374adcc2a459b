use std::os::unix::fs::symlink;
use std::path::Path;

use tempfile::TempDir;
use tokio::time::advance;

use super::*;

const TOKEN: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG";

fn world() -> (TempDir, Arc<GatewayMetrics>, Arc<KeyStore>) {
    let directory = TempDir::new().unwrap();
    let metrics = GatewayMetrics::new();
    let keys = KeyStore::new(directory.path().join("keys"), Arc::clone(&metrics));
    (directory, metrics, keys)
}

/// Writes files as the kubelet does: they are links into a directory that is itself a link, which
/// is replaced.
fn write(directory: &TempDir, version: &str, master: &[u8], token: &[u8]) {
    let (root, data) = (directory.path().join("keys"), directory.path().join("keys").join(version));
    std::fs::create_dir_all(&data).unwrap();
    std::fs::write(data.join(files::MASTER_KEY), master).unwrap();
    std::fs::write(data.join(files::TOKEN), token).unwrap();
    symlink(version, root.join("..new")).unwrap();
    std::fs::rename(root.join("..new"), root.join("..data")).unwrap();
    for file in [files::MASTER_KEY, files::TOKEN] {
        // There after the first time.
        drop(symlink(Path::new("..data").join(file), root.join(file)));
    }
}

#[test]
fn absent_files_are_no_keys_and_are_told() {
    let (directory, metrics, keys) = world();
    keys.reload();
    assert!(keys.master().is_none() && keys.derive("p", "u").is_none());
    assert!(!keys.is_token(TOKEN) && !keys.is_token(b""));
    assert!(metrics.encode_text().unwrap().contains(r#"slipway_gateway_key{file="master"} 0"#));
    write(&directory, "1", &[7; 32], TOKEN);
    keys.reload();
    assert!(keys.master().is_some() && keys.is_token(TOKEN));
    assert!(metrics.encode_text().unwrap().contains(r#"slipway_gateway_key{file="master"} 1"#));
}

#[test]
fn what_has_a_wrong_size_is_no_key() {
    let (directory, _, keys) = world();
    for (version, master, token) in
        [("1", 31, 31), ("2", 65, 257), ("3", 1 << 20, 1 << 20), ("4", 0, 0)]
    {
        write(&directory, version, &vec![7; master], &vec![b'x'; token]);
        keys.reload();
        assert!(keys.master().is_none(), "{master}");
        assert!(!keys.is_token(&vec![b'x'; token]), "{token}");
    }
    std::fs::remove_file(directory.path().join("keys/token")).unwrap();
    std::fs::create_dir(directory.path().join("keys/token")).unwrap();
    keys.reload();
    assert!(!keys.is_token(TOKEN));
}

#[test]
fn only_the_whole_token_is_the_token() {
    let (directory, _, keys) = world();
    write(&directory, "1", &[7; 32], &[TOKEN, b"\n"].concat());
    keys.reload();
    assert!(keys.is_token(TOKEN), "the end of a line is not part of it");
    assert!(!keys.is_token(&TOKEN[..TOKEN.len() - 1]) && !keys.is_token(&[TOKEN, b"x"].concat()));
    write(&directory, "2", &[7; 32], &TOKEN.to_ascii_uppercase());
    keys.reload();
    assert!(
        !keys.is_token(TOKEN) && keys.is_token(&TOKEN.to_ascii_uppercase()),
        "a token that was replaced is none"
    );
}

#[test]
fn keys_differ_by_purpose_and_uid_and_are_what_the_documentation_says() {
    let master = MasterKey::new(vec![7; 32]);
    let expected = hmac::sign(&hmac::Key::new(HMAC_SHA256, &[7; 32]), b"purpose v1\0uid");
    assert_eq!(master.derive("purpose v1", "uid"), expected.as_ref());
    let all = [("a", "b"), ("a", "c"), ("c", "b"), ("ab", ""), ("", "ab")];
    let derived: std::collections::BTreeSet<_> =
        all.iter().map(|(purpose, uid)| master.derive(purpose, uid)).collect();
    assert_eq!(derived.len(), all.len());
    assert_ne!(MasterKey::new(vec![8; 32]).derive("a", "b"), master.derive("a", "b"));
    assert!(!format!("{master:?}").contains('7'));
}

#[tokio::test(start_paused = true)]
async fn what_was_replaced_is_known_for_a_day() {
    let (directory, _, keys) = world();
    let of = |byte: u8| MasterKey::new(vec![byte; 32]).derive("p", "u");
    let previous = || keys.previous_master().map(|master| master.derive("p", "u"));
    write(&directory, "1", &[1; 32], TOKEN);
    keys.reload();
    keys.reload();
    assert_eq!((keys.derive("p", "u"), previous()), (Some(of(1)), None));
    write(&directory, "2", &[2; 32], TOKEN);
    keys.reload();
    assert_eq!((keys.derive("p", "u"), previous()), (Some(of(2)), Some(of(1))));
    advance(PREVIOUS_KEY_TTL - Duration::from_secs(1)).await;
    keys.reload();
    assert_eq!(previous(), Some(of(1)));
    advance(Duration::from_secs(1)).await;
    assert_eq!(previous(), None);
    // A Secret that is deleted and made again: between them there is none, and the old one stays
    // known.
    for file in [files::MASTER_KEY, files::TOKEN] {
        std::fs::remove_file(directory.path().join("keys").join(file)).unwrap();
    }
    keys.reload();
    assert_eq!((keys.derive("p", "u"), previous()), (None, Some(of(2))));
    write(&directory, "3", &[3; 32], TOKEN);
    keys.reload();
    assert_eq!((keys.derive("p", "u"), previous()), (Some(of(3)), Some(of(2))));
}

#[tokio::test(start_paused = true)]
async fn files_that_come_later_are_read() {
    let (directory, _, keys) = world();
    let stop = CancellationToken::new();
    let task = tokio::spawn(reload_periodically(Arc::clone(&keys), stop.clone()));
    write(&directory, "1", &[1; 32], TOKEN);
    let there = async {
        while keys.master().is_none() {
            advance(Duration::from_secs(1)).await;
            tokio::task::yield_now().await;
        }
    };
    // Uses the wall clock: the files are read on a separate thread, which paused time does not wait
    // for.
    let end = std::time::Instant::now() + Duration::from_secs(20);
    tokio::select! {
        () = there => {}
        () = async { while std::time::Instant::now() < end { tokio::task::yield_now().await; } } => panic!("never read"),
    }
    stop.cancel();
    task.await.unwrap();
}
