//! Certificates, keys and kubeconfigs of one cluster.

use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use serde_json::json;

use crate::error::{HarnessError, Result};
use crate::families;
use crate::layout::{self, ClusterLayout};

/// A certificate authority that can sign.
type CertificateAuthority = CertifiedIssuer<'static, KeyPair>;

/// The identity of a client: file name, common name (the user), organisation (the group).
struct ClientIdentity {
    file: &'static str,
    user: String,
    group: Option<&'static str>,
}

/// Writes all certificates, keys and kubeconfigs.
pub fn write_pki(layout: &ClusterLayout) -> Result<()> {
    let dir = layout.pki_dir();
    let cluster = create_authority(&dir, "ca", "kubernetes-ca")?;
    let front = create_authority(&dir, "front-proxy-ca", "front-proxy-ca")?;
    for client in client_identities(layout) {
        issue_certificate(&dir, client.file, &cluster, client_params(&client))?;
        let kubeconfig = dir.join(format!("{}.kubeconfig", client.file));
        write_secret(&kubeconfig, &kubeconfig_json(layout, client.file))?;
    }
    let proxy = ClientIdentity {
        file: "front-proxy-client",
        user: "front-proxy-client".into(),
        group: None,
    };
    issue_certificate(&dir, proxy.file, &front, client_params(&proxy))?;
    issue_certificate(&dir, "apiserver", &cluster, server_params(layout, &api_names(layout)))?;
    issue_certificate(
        &dir,
        "kubelet-server",
        &cluster,
        server_params(layout, &[layout.node_name()]),
    )?;
    let tokens = KeyPair::generate()?;
    write_secret(&dir.join("service-account.key"), &tokens.serialize_pem())?;
    write_secret(&dir.join("service-account.pub"), &tokens.public_key_pem())?;
    write_secret(&layout.kubeconfig(), &kubeconfig_json(layout, "admin"))
}

/// Kubeconfig of one of the clients.
pub fn kubeconfig_path(layout: &ClusterLayout, client: &str) -> PathBuf {
    layout.pki_dir().join(format!("{client}.kubeconfig"))
}

fn client_identities(layout: &ClusterLayout) -> Vec<ClientIdentity> {
    let client = |file, user: &str, group| ClientIdentity { file, user: user.into(), group };
    vec![
        client("admin", "admin", Some("system:masters")),
        client("controller-manager", "system:kube-controller-manager", None),
        client("scheduler", "system:kube-scheduler", None),
        client("kube-proxy", "system:kube-proxy", None),
        client("apiserver-kubelet-client", "apiserver-kubelet-client", Some("system:masters")),
        client("kubelet", &format!("system:node:{}", layout.node_name()), Some("system:nodes")),
    ]
}

fn api_names(layout: &ClusterLayout) -> Vec<String> {
    let names = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ];
    names
        .iter()
        .map(|name| (*name).to_string())
        .chain(["localhost".to_string(), layout.node_name()])
        .collect()
}

fn base_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    // Wide limits: clocks of test machines are often wrong, and these keys are short-lived.
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2099, 1, 1);
    params
}

fn create_authority(dir: &Path, file: &str, name: &str) -> Result<CertificateAuthority> {
    let mut params = base_params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    write_secret(&dir.join(format!("{file}.crt")), &authority.pem())?;
    write_secret(&dir.join(format!("{file}.key")), &authority.key().serialize_pem())?;
    Ok(authority)
}

fn client_params(client: &ClientIdentity) -> CertificateParams {
    let mut params = base_params(&client.user);
    if let Some(group) = client.group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn server_params(layout: &ClusterLayout, names: &[String]) -> CertificateParams {
    let mut params = base_params(&names[0]);
    let ipv4 =
        [IpAddr::from([127, 0, 0, 1]), layout.node_ip().into(), layout::API_SERVICE_IP.into()];
    let addresses =
        ipv4.into_iter().chain([families::NODE_IP.into(), families::API_SERVICE_IP.into()]);
    params.subject_alt_names = addresses.map(SanType::IpAddress).collect();
    let dns = names.iter().filter_map(|name| name.as_str().try_into().ok()).map(SanType::DnsName);
    params.subject_alt_names.extend(dns);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}

fn issue_certificate(
    dir: &Path,
    file: &str,
    by: &CertificateAuthority,
    params: CertificateParams,
) -> Result<()> {
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, by)?;
    write_secret(&dir.join(format!("{file}.crt")), &certificate.pem())?;
    write_secret(&dir.join(format!("{file}.key")), &key.serialize_pem())
}

/// JSON is valid YAML, so any reader of kubeconfigs accepts it.
fn kubeconfig_json(layout: &ClusterLayout, client: &str) -> String {
    let file = |name: &str| layout.pki_dir().join(name);
    let name = layout.name();
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": layout.api_url(), "certificate-authority": file("ca.crt")}}],
        "users": [{"name": client, "user": {
            "client-certificate": file(&format!("{client}.crt")),
            "client-key": file(&format!("{client}.key")),
        }}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": client}}],
        "current-context": name,
    });
    format!("{config:#}\n")
}

fn write_secret(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(HarnessError::io("write", path))?;
    let owner_only = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(path, owner_only).map_err(HarnessError::io("protect", path))
}
