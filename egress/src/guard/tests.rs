use std::collections::VecDeque;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::allow::AllowRule;

/// Names with the successive results of their resolution; the last one stays.
#[derive(Debug, Default)]
struct Names(Mutex<HashMap<String, VecDeque<Vec<IpAddr>>>>);

impl Names {
    fn boxed(names: &[(&str, &[&str])]) -> Box<dyn HostLookup> {
        let mut all: HashMap<String, VecDeque<Vec<IpAddr>>> = HashMap::new();
        for (name, addresses) in names {
            let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
            all.entry((*name).to_owned()).or_default().push_back(addresses);
        }
        Box::new(Self(Mutex::new(all)))
    }
}

impl HostLookup for Names {
    fn lookup(&self, host: String) -> BoxFuture<'static, Result<Vec<IpAddr>>> {
        let mut all = self.0.lock();
        let answers = all.get_mut(&host).unwrap_or_else(|| panic!("nobody knows {host}"));
        let answer =
            if answers.len() > 1 { answers.pop_front().unwrap() } else { answers[0].clone() };
        std::future::ready(Ok(answer)).boxed()
    }
}

fn written(names: &[(&str, &[&str])]) -> EgressGuard {
    EgressGuard::for_trusted_url(AllowList::public()).with_lookup(Names::boxed(names))
}

fn url(text: &str) -> Url {
    text.parse().unwrap()
}

async fn found(guard: &EgressGuard, host: &str) -> std::result::Result<Vec<String>, String> {
    let found =
        guard.allowed_addresses(host.to_owned()).await.map_err(|error| error.to_string())?;
    Ok(found.iter().map(ToString::to_string).collect())
}

/// One address of each class that is never allowed for redirects, also in IPv6 notations.
const INSIDE: [&str; 22] = [
    "127.0.0.1",
    "0.0.0.0",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.0.1",
    "100.64.0.1",
    "169.254.169.254",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "198.18.0.1",
    "::1",
    "::",
    "fe80::1",
    "fd00:ec2::254",
    "ff02::1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::a00:1",
    "64:ff9b:1::a00:1",
    "2002:a00:1::1",
    "2001:0:a00:1::1",
];

#[tokio::test]
async fn a_server_leads_to_no_address_inside_by_whatever_spelling() {
    let from = url("http://store.test/m.onnx");
    for inside in INSIDE {
        let literal = if inside.contains(':') { format!("[{inside}]") } else { inside.to_owned() };
        let guard = written(&[("store.test", &["93.184.216.34"]), ("elsewhere.test", &[inside])]);
        let to = url(&format!("http://{literal}/m.onnx"));
        assert_eq!(guard.check_redirect(&from, &to), Err(NOT_PUBLIC), "{inside}");
        // For a name the resolver decides, because only its result is connected to.
        assert_eq!(guard.check_redirect(&from, &url("http://elsewhere.test/m.onnx")), Ok(()));
        assert_eq!(found(&guard, "elsewhere.test").await, Err(NOT_PUBLIC.to_owned()), "{inside}");
    }
    for spelled in [
        "http://0x7f.1/",
        "http://2130706433/",
        "http://0177.0.0.1/",
        "http://127.1/",
        "http://%31%32%37.1/",
    ] {
        assert_eq!(written(&[]).check_redirect(&from, &url(spelled)), Err(NOT_PUBLIC), "{spelled}");
    }
    let guard = written(&[("cdn.test", &["10.0.0.1", "93.184.216.34"])]);
    assert_eq!(guard.check_redirect(&from, &url("http://93.184.216.34/")), Ok(()));
    assert_eq!(
        found(&guard, "CDN.test").await.unwrap(),
        ["93.184.216.34"],
        "of several the public ones"
    );
    assert!(
        guard
            .check_redirect(&from, &url("https://93.184.216.34/"))
            .unwrap_err()
            .contains("another scheme")
    );
}

#[tokio::test]
async fn what_people_wrote_may_be_inside_and_stays_where_it_was() {
    let names: &[(&str, &[&str])] = &[
        ("store.test", &["10.0.0.1"]),
        ("store.test", &["169.254.169.254"]),
        ("cdn.test", &["93.184.216.34"]),
    ];
    let (guard, store) = (written(names), url("http://store.test/m.onnx"));
    assert_eq!(found(&guard, "store.test").await.unwrap(), ["10.0.0.1"]);
    assert_eq!(
        guard.check_redirect(&store, &url("http://store.test:9000/other")),
        Ok(()),
        "to itself"
    );
    assert_eq!(
        found(&guard, "store.test").await.unwrap(),
        ["10.0.0.1"],
        "the name has moved meanwhile"
    );
    let cdn = url("http://cdn.test/m.onnx");
    assert_eq!(guard.check_redirect(&store, &cdn), Ok(()));
    assert_eq!(found(&guard, "cdn.test").await.unwrap(), ["93.184.216.34"]);
    assert_eq!(
        guard.check_redirect(&cdn, &store),
        Err(NOT_PUBLIC),
        "another server leads back into the cluster"
    );
}

#[tokio::test]
async fn who_answers_at_a_public_address_of_a_name_gains_nothing_by_its_private_one() {
    let guard = written(&[("store.test", &["93.184.216.34", "169.254.169.254"])]);
    let store = url("http://store.test/m.onnx");
    assert_eq!(found(&guard, "store.test").await.unwrap().len(), 2);
    assert_eq!(guard.check_redirect(&store, &url("http://store.test/latest/meta-data")), Ok(()));
    assert_eq!(found(&guard, "store.test").await.unwrap(), ["93.184.216.34"]);
}

#[tokio::test]
async fn a_strict_guard_looks_each_time_and_hands_on_only_what_is_allowed() {
    let rules: [AllowRule; 2] = ["hooks.test", "10.0.0.0/8"].map(|rule| rule.parse().unwrap());
    let names: &[(&str, &[&str])] = &[
        ("hooks.test", &["127.0.0.1", "93.184.216.34", "10.0.0.1", "::1"]),
        ("hooks.test", &["127.0.0.1"]),
        ("evil.test", &["93.184.216.34"]),
    ];
    let guard = EgressGuard::strict(AllowList::new(&rules)).with_lookup(Names::boxed(names));
    assert_eq!(found(&guard, "hooks.test").await.unwrap(), ["93.184.216.34", "10.0.0.1"]);
    for host in ["hooks.test", "evil.test"] {
        assert!(
            was_refused(&guard.allowed_addresses(host.to_owned()).await.unwrap_err()),
            "{host}"
        );
    }
    assert!(!guard.is_peer_allowed("hooks.test", Some("127.0.0.1:80".parse().unwrap())));
    assert!(guard.is_peer_allowed("hooks.test", Some("93.184.216.34:80".parse().unwrap())));
}

/// A server on this machine that closes the connection after each answer, so that the client
/// reconnects; returns its port and the received request heads.
async fn server(answers: Vec<String>) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, heads) =
        (listener.local_addr().unwrap().port(), Arc::<Mutex<Vec<String>>>::default());
    let kept = Arc::clone(&heads);
    tokio::spawn(async move {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            kept.lock().push(String::from_utf8(head).unwrap().to_ascii_lowercase());
            let answer = answer.replace("PORT", &port.to_string());
            stream
                .write_all(
                    format!("HTTP/1.1 {answer}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
                        .as_bytes(),
                )
                .await
                .unwrap();
        }
    });
    (port, heads)
}

fn to(location: &str) -> String {
    format!("302 Found\r\nlocation: {location}")
}

fn client(guard: &EgressGuard) -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    guard.client_builder().tls_certs_only([]).build().unwrap()
}

#[tokio::test]
async fn a_name_that_moves_between_two_connections_is_connected_to_where_it_was() {
    let (port, heads) = server(vec![to("/again"), "200 OK".into()]).await;
    let names: &[(&str, &[&str])] =
        &[("store.test", &["127.0.0.1"]), ("store.test", &["127.0.0.2"])];
    let answer =
        client(&written(names)).get(format!("http://store.test:{port}/m")).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), heads.lock().len()), (200, 2));
}

#[tokio::test]
async fn another_host_gets_neither_credentials_nor_the_address_that_led_to_it() {
    let (port, heads) =
        server(vec![to("/same"), to("http://cdn.test:PORT/m"), "200 OK".into()]).await;
    let list = AllowList::new(&[AllowRule::Any, "127.0.0.0/8".parse().unwrap()]);
    let names: &[(&str, &[&str])] = &[("store.test", &["127.0.0.1"]), ("cdn.test", &["127.0.0.1"])];
    let client = client(&EgressGuard::for_trusted_url(list).with_lookup(Names::boxed(names)));
    let answer = client
        .get(format!("http://user:word@store.test:{port}/m?sig=secret"))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status().as_u16(), 200);
    let heads = heads.lock();
    assert_eq!(
        heads.iter().map(|head| head.contains("authorization: basic")).collect::<Vec<_>>(),
        [true, true, false]
    );
    assert!(
        heads[1..].iter().all(|head| !head.contains("referer") && !head.contains("secret")),
        "{heads:?}"
    );
}

#[tokio::test]
async fn redirects_have_an_end_and_strict_clients_follow_none() {
    let (port, heads) = server(vec![to("/next"); 10]).await;
    let guard = written(&[("store.test", &["127.0.0.1"])]);
    let error = client(&guard).get(format!("http://store.test:{port}/")).send().await.unwrap_err();
    assert!(error.is_redirect(), "{error}");
    assert_eq!(heads.lock().len(), MAX_REDIRECTS + 1);
    let guard = EgressGuard::strict(AllowList::new(&["127.0.0.0/8".parse().unwrap()]));
    let answer = client(&guard).get(format!("http://127.0.0.1:{port}/")).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 302);
}
