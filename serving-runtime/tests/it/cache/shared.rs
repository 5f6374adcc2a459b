//! The result cache with a Redis that other pods use, that others write to, or that fails.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{ALWAYS, ON, ask, breaker, errors, inferences, outcome};
use crate::redis::RedisServer;
use crate::support::{Server, affine, eventually};

#[tokio::test]
async fn pods_share_answers_through_redis_and_models_do_not() {
    let redis = RedisServer::start();
    let args = [ON, ALWAYS, "--redis-url", &redis.url(), "--redis-budget-ms", "5000"];
    let (one, two) = (Server::start("affine", &args), Server::start("affine", &args));
    let body = affine(&[[1.0, 2.0]]);
    let first = ask(&one, &body).await;
    assert_eq!(first.cache.as_deref(), Some("miss"));
    eventually("written", async || {
        redis::cmd("DBSIZE").query::<u32>(&mut redis.connection().unwrap()) == Ok(1)
    })
    .await;
    let second = ask(&two, &body).await;
    assert_eq!(
        (second.cache.as_deref(), &second.body["outputs"]),
        (Some("hit"), &first.body["outputs"])
    );
    assert_eq!((outcome(&two, "hit_redis").await, inferences(&two).await), (1.0, 0.0));
    assert_eq!(ask(&two, &body).await.cache.as_deref(), Some("hit"));
    assert_eq!(outcome(&two, "hit_local").await, 1.0, "what came from Redis stays here");

    // The same input to a model of another digest.
    let other = Server::start("mean", &args);
    let body =
        json!({"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]});
    let got = ask(&other, &body).await;
    assert_eq!(
        (got.status, got.cache.as_deref(), inferences(&other).await),
        (200, Some("miss"), 1.0)
    );
    let key: String = redis::cmd("RANDOMKEY").query(&mut redis.connection().unwrap()).unwrap();
    let left: u64 = redis::cmd("PTTL").arg(&key).query(&mut redis.connection().unwrap()).unwrap();
    assert!(left <= 300_000, "everything ends: {left}");
}

#[tokio::test]
async fn spoilt_and_foreign_values_are_misses() {
    let redis = RedisServer::start();
    let args = [ON, ALWAYS, "--redis-url", &redis.url(), "--redis-budget-ms", "5000"];
    let one = Server::start("affine", &args);
    let first = ask(&one, &affine(&[[1.0, 2.0]])).await;
    let mut stored = redis.connection().unwrap();
    eventually("written", async || {
        redis::cmd("DBSIZE").query::<u32>(&mut redis.connection().unwrap()) == Ok(1)
    })
    .await;
    let key: String = redis::cmd("RANDOMKEY").query(&mut stored).unwrap();
    let good: Vec<u8> = redis::cmd("GET").arg(&key).query(&mut stored).unwrap();
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let huge = vec![b'x'; 8 << 20];
    for (n, bad) in
        [flipped.as_slice(), b"hello", &huge, &good[..good.len() - 1]].into_iter().enumerate()
    {
        let () = redis::cmd("SET").arg(&key).arg(bad).query(&mut stored).unwrap();
        let two = Server::start("affine", &args);
        let got = ask(&two, &affine(&[[1.0, 2.0]])).await;
        assert_eq!(
            (got.status, got.cache.as_deref(), &got.body["outputs"]),
            (200, Some("miss"), &first.body["outputs"]),
            "{n}"
        );
        assert_eq!((errors(&two, "corrupt").await, inferences(&two).await), (1.0, 1.0));
        // The entry is repaired as a side effect.
        eventually("repaired", async || {
            redis::cmd("GETRANGE")
                .arg(&key)
                .arg(0)
                .arg(3)
                .query::<Vec<u8>>(&mut redis.connection().unwrap())
                == Ok(b"SLWR".to_vec())
                && redis::cmd("STRLEN").arg(&key).query::<usize>(&mut redis.connection().unwrap())
                    == Ok(good.len())
        })
        .await;
    }
    // A key of another type: Redis returns an error, which must not open the circuit breaker.
    let () = redis::cmd("DEL").arg(&key).query(&mut stored).unwrap();
    let () = redis::cmd("LPUSH").arg(&key).arg("x").query(&mut stored).unwrap();
    let two = Server::start("affine", &args);
    assert_eq!(ask(&two, &affine(&[[1.0, 2.0]])).await.cache.as_deref(), Some("miss"));
    assert_eq!((errors(&two, "refused").await, breaker(&two).await), (1.0, 0.0));
}

/// A client with write access to a shared Redis, but without the keys of the namespace, cannot
/// influence answers.
#[tokio::test]
async fn forged_and_moved_answers_in_a_shared_redis_are_misses() {
    let redis = RedisServer::start();
    let keys = [7, 8].map(|byte| {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("master"), [byte; 32]).unwrap();
        folder
    });
    let url = redis.url();
    let start = |keys: &tempfile::TempDir, namespace: &str| {
        let folder = keys.path().display().to_string();
        let keyed = ["--namespace", namespace, "--uid", "uid", "--keys-directory", &folder];
        let args =
            [&[ON, ALWAYS, "--redis-url", &url, "--redis-budget-ms", "5000"][..], &keyed].concat();
        Server::start("affine", &args)
    };
    let stored = async |wanted: u32| {
        eventually("written", async || {
            redis::cmd("DBSIZE").query::<u32>(&mut redis.connection().unwrap()) == Ok(wanted)
        })
        .await;
        redis::cmd("KEYS").arg("*").query::<Vec<String>>(&mut redis.connection().unwrap()).unwrap()
    };
    let value = |key: &str| {
        redis::cmd("GET").arg(key).query::<Vec<u8>>(&mut redis.connection().unwrap()).unwrap()
    };
    let set = |key: &str, value: &[u8]| {
        redis::cmd("SET")
            .arg(key)
            .arg(value)
            .query::<()>(&mut redis.connection().unwrap())
            .unwrap();
    };
    let (one, two) = (affine(&[[1.0, 2.0]]), affine(&[[3.0, 4.0]]));

    // Two namespaces neither read nor overwrite each other's entries.
    let (prod, staging) = (start(&keys[0], "prod"), start(&keys[1], "staging"));
    let first = ask(&prod, &one).await;
    let key = stored(1).await.remove(0);
    assert_eq!(ask(&staging, &one).await.cache.as_deref(), Some("miss"));
    let others = stored(2).await.into_iter().find(|other| *other != key).unwrap();
    assert_eq!(
        (errors(&staging, "corrupt").await, outcome(&staging, "hit_redis").await),
        (0.0, 0.0)
    );
    let same = start(&keys[0], "prod");
    assert_eq!(
        ask(&same, &one).await.cache.as_deref(),
        Some("hit"),
        "pods of one ModelDeployment share"
    );

    // The answer to another input, and one of another namespace, put in its place; and the answer
    // without its tag.
    let good = value(&key);
    assert_eq!(ask(&prod, &two).await.cache.as_deref(), Some("miss"));
    let moved =
        stored(3).await.into_iter().find(|other| *other != key && *other != others).unwrap();
    for (n, forged) in [value(&moved), value(&others), good[32..].to_vec()].iter().enumerate() {
        set(&key, forged);
        let pod = start(&keys[0], "prod");
        let got = ask(&pod, &one).await;
        assert_eq!(
            (got.cache.as_deref(), &got.body["outputs"]),
            (Some("miss"), &first.body["outputs"]),
            "{n}"
        );
        assert_eq!((errors(&pod, "corrupt").await, inferences(&pod).await), (1.0, 1.0), "{n}");
        eventually("repaired", async || value(&key).len() == good.len() && value(&key) != *forged)
            .await;
    }

    // A pod that should have keys but has none does not use Redis.
    let none = tempfile::tempdir().unwrap();
    let pod = start(&none, "prod");
    assert_eq!(ask(&pod, &one).await.cache.as_deref(), Some("miss"));
    assert!(errors(&pod, "no_key").await > 0.0);
    assert_eq!(stored(3).await.len(), 3, "nothing is kept in the open");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_do_not_notice_when_redis_dies_hangs_and_returns() {
    let mut redis = RedisServer::start();
    // Ten times the default, for a test machine under load.
    let server = Server::start(
        "affine",
        &[ON, ALWAYS, "--redis-url", &redis.url(), "--redis-budget-ms", "20"],
    );
    let n = std::cell::Cell::new(0.0);
    let fresh = || {
        n.set(n.get() + 1.0);
        affine(&[[n.get(), 2.0]])
    };
    assert_eq!(ask(&server, &fresh()).await.status, 200);
    eventually("connected", async || breaker(&server).await == 0.0).await;

    redis.signal("STOP");
    let begun = Instant::now();
    let mut asked = 0;
    while breaker(&server).await == 0.0 {
        assert_eq!(ask(&server, &fresh()).await.status, 200);
        asked += 1;
        assert!(asked < 100, "the breaker opens after some failures");
    }
    assert!(errors(&server, "timeout").await >= 4.0, "reads and writes that found nobody");
    let (waited, before) = (begun.elapsed(), errors(&server, "timeout").await);
    assert!(waited < Duration::from_secs(20), "{waited:?}");
    for _ in 0..50 {
        assert_eq!(ask(&server, &fresh()).await.status, 200);
    }
    assert!(
        errors(&server, "timeout").await <= before + 16.0,
        "nobody asks any more, but for writes that were under way"
    );
    redis.signal("CONT");
    eventually("closed again", async || {
        ask(&server, &fresh()).await;
        breaker(&server).await == 0.0
    })
    .await;

    redis.kill();
    eventually("open again", async || {
        assert_eq!(ask(&server, &fresh()).await.status, 200);
        breaker(&server).await == 2.0
    })
    .await;
    redis.restart();
    eventually("closed again", async || {
        assert_eq!(ask(&server, &fresh()).await.status, 200);
        breaker(&server).await == 0.0
    })
    .await;
    let keys =
        async || redis::cmd("DBSIZE").query::<u32>(&mut redis.connection().unwrap()).unwrap();
    eventually("kept again", async || {
        ask(&server, &fresh()).await;
        keys().await > 0
    })
    .await;
}

#[tokio::test]
async fn a_redis_that_was_never_there_is_no_reason_not_to_serve() {
    let server = Server::start("affine", &[ON, ALWAYS, "--redis-url", "redis://127.0.0.1:1"]);
    assert_eq!(ask(&server, &affine(&[[1.0, 2.0]])).await.cache.as_deref(), Some("miss"));
    assert_eq!(
        ask(&server, &affine(&[[1.0, 2.0]])).await.cache.as_deref(),
        Some("hit"),
        "from this process's memory"
    );
    assert_eq!(breaker(&server).await, 2.0);
}
