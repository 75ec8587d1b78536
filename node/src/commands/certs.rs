//! `certs`: an authority and certificates in files, without a cluster and without openssl.

use std::{
    fs::OpenOptions,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use time::{Duration, OffsetDateTime};

use crate::{cli::CertsCommand, output::print, settings::check_cluster_name};

/// Hosts whose clocks are a little behind take a new certificate, too.
const BACKDATED: Duration = Duration::hours(1);
/// Beyond this no certificate is written that some program refuses to read.
const MAX_DAYS: u32 = 36_500;

/// # Errors
/// When a file exists already, cannot be written, or the authority cannot be read.
pub fn run(command: &CertsCommand) -> anyhow::Result<()> {
    let text = match command {
        CertsCommand::Ca {
            cluster,
            directory,
            days,
        } => authority(cluster, directory, *days),
        CertsCommand::Node {
            cluster,
            id,
            directory,
            days,
        } => node(cluster, *id, directory, *days),
        CertsCommand::Server {
            hosts,
            name,
            directory,
            days,
        } => server(hosts, name, directory, *days),
    }?;
    Ok(print(&text)?)
}

fn authority(cluster: &str, directory: &Path, days: u32) -> anyhow::Result<String> {
    check_cluster_name(cluster)?;
    std::fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    let mut params = params(&format!("trireme {cluster} authority"), days)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let made = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let files = write(directory, "ca", &made.pem(), &made.key().serialize_pem())?;
    Ok(format!(
        "{} authority: give it to every node (peer.ca) and client (--ca)\n\
         {} its key: keep it off the nodes; whoever has it can make himself a node\n\n\
         next, for each node:\n  \
         trireme certs node --cluster {cluster} --id <node_id> --directory {dir}\n  \
         trireme certs server --host <name or address> --directory {dir}\n",
        files.certificate.display(),
        files.key.display(),
        dir = directory.display(),
    ))
}

fn node(cluster: &str, id: u64, directory: &Path, days: u32) -> anyhow::Result<String> {
    check_cluster_name(cluster)?;
    ensure!(id > 0, "--id: must be 1 or more");
    let mut params = params(&format!("trireme {cluster} node {id}"), days)?;
    let name = format!("trireme-peer://{cluster}/{id}");
    params.subject_alt_names = vec![SanType::URI(name.as_str().try_into()?)];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let files = sign(params, directory, &format!("node-{id}"))?;
    Ok(format!(
        "{certificate} node {id} of cluster {cluster}\n\
         {key} its key: for that node alone\n\n\
         next: copy both and the authority to node {id}, and in its settings:\n  \
         [cluster]\n  name = \"{cluster}\"\n  [peer]\n  ca = \"{ca}\"\n  certificate = \"{certificate}\"\n  key = \"{key}\"\n",
        certificate = files.certificate.display(),
        key = files.key.display(),
        ca = directory.join("ca.pem").display(),
    ))
}

fn server(hosts: &[String], name: &str, directory: &Path, days: u32) -> anyhow::Result<String> {
    ensure!(
        !name.is_empty() && !name.contains('/') && name != "ca",
        "--name: {name:?} is no name of a file of its own"
    );
    let mut params = params(name, days)?;
    for host in hosts {
        params.subject_alt_names.push(match host.parse() {
            Ok(ip) => SanType::IpAddress(ip),
            Err(_) => SanType::DnsName(
                host.as_str()
                    .try_into()
                    .with_context(|| format!("--host: {host:?} is no name and no address"))?,
            ),
        });
    }
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let files = sign(params, directory, name)?;
    Ok(format!(
        "{certificate} the door under {hosts}\n\
         {key} its key: for the nodes alone\n\n\
         next: copy both to the node, and in its settings:\n  \
         [tls]\n  certificate = \"{certificate}\"\n  key = \"{key}\"\n\
         clients: trireme --help, with --server https://{first}:<port> --ca {ca}\n",
        certificate = files.certificate.display(),
        key = files.key.display(),
        hosts = hosts.join(", "),
        first = hosts.first().map_or("<host>", String::as_str),
        ca = directory.join("ca.pem").display(),
    ))
}

fn params(name: &str, days: u32) -> anyhow::Result<CertificateParams> {
    ensure!((1..=MAX_DAYS).contains(&days), "--days: 1 to {MAX_DAYS}");
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let now = OffsetDateTime::now_utc();
    params.not_before = now - BACKDATED;
    params.not_after = now + Duration::days(i64::from(days));
    Ok(params)
}

fn sign(mut params: CertificateParams, directory: &Path, name: &str) -> anyhow::Result<Files> {
    let read = |name: &str| {
        let path = directory.join(name);
        std::fs::read_to_string(&path).with_context(|| {
            format!(
                "{}: the authority is not here; `trireme certs ca --directory {}` makes one",
                path.display(),
                directory.display()
            )
        })
    };
    let key = KeyPair::from_pem(&read("ca-key.pem")?)
        .with_context(|| directory.join("ca-key.pem").display().to_string())?;
    let issuer = Issuer::from_ca_cert_pem(&read("ca.pem")?, key)
        .with_context(|| directory.join("ca.pem").display().to_string())?;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let own = KeyPair::generate()?;
    let certificate = params.signed_by(&own, &issuer)?;
    write(directory, name, &certificate.pem(), &own.serialize_pem())
}

struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

/// Neither file may be there: a key that is in use is not to be lost.
fn write(directory: &Path, name: &str, certificate: &str, key: &str) -> anyhow::Result<Files> {
    let files = Files {
        certificate: directory.join(format!("{name}.pem")),
        key: directory.join(format!("{name}-key.pem")),
    };
    for path in [&files.certificate, &files.key] {
        ensure!(!path.exists(), "{}", taken(path));
    }
    // The key first: a certificate without one would be in the way of the next try.
    create(&files.key, key, 0o600)?;
    create(&files.certificate, certificate, 0o644)?;
    Ok(files)
}

fn taken(path: &Path) -> String {
    format!(
        "{} is there already and is not overwritten: move it away, or give another --directory",
        path.display()
    )
}

fn create(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let created = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path);
    let mut file = match created {
        Err(why) if why.kind() == io::ErrorKind::AlreadyExists => anyhow::bail!(taken(path)),
        created => created.with_context(|| path.display().to_string())?,
    };
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn certificates_are_made_once_and_keys_are_their_owners() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        let said = |text: String| text.replace(at.to_str().unwrap(), "DIR");
        insta::assert_snapshot!(said(authority("blue", at, 10).unwrap()), @r"
        DIR/ca.pem authority: give it to every node (peer.ca) and client (--ca)
        DIR/ca-key.pem its key: keep it off the nodes; whoever has it can make himself a node

        next, for each node:
          trireme certs node --cluster blue --id <node_id> --directory DIR
          trireme certs server --host <name or address> --directory DIR
        ");
        insta::assert_snapshot!(said(node("blue", 1, at, 10).unwrap()), @r#"
        DIR/node-1.pem node 1 of cluster blue
        DIR/node-1-key.pem its key: for that node alone

        next: copy both and the authority to node 1, and in its settings:
          [cluster]
          name = "blue"
          [peer]
          ca = "DIR/ca.pem"
          certificate = "DIR/node-1.pem"
          key = "DIR/node-1-key.pem"
        "#);
        let hosts = ["ci.example.com".to_owned(), "127.0.0.1".to_owned()];
        insta::assert_snapshot!(said(server(&hosts, "server", at, 10).unwrap()), @r#"
        DIR/server.pem the door under ci.example.com, 127.0.0.1
        DIR/server-key.pem its key: for the nodes alone

        next: copy both to the node, and in its settings:
          [tls]
          certificate = "DIR/server.pem"
          key = "DIR/server-key.pem"
        clients: trireme --help, with --server https://ci.example.com:<port> --ca DIR/ca.pem
        "#);
        for key in ["ca-key.pem", "node-1-key.pem", "server-key.pem"] {
            let mode = std::fs::metadata(at.join(key))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600, "{key}");
        }
        let before = std::fs::read(at.join("ca-key.pem")).unwrap();
        for again in [authority("blue", at, 10), node("blue", 1, at, 10)] {
            let why = again.unwrap_err().to_string();
            assert!(why.contains("is not overwritten"), "{why}");
        }
        assert_eq!(std::fs::read(at.join("ca-key.pem")).unwrap(), before);
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let why = format!("{:#}", node("blue", 1, dir.path(), 10).err().unwrap());
        assert!(why.contains("trireme certs ca --directory"), "{why}");
        assert!(authority("Blue", dir.path(), 10).is_err());
        assert!(authority("blue", dir.path(), 0).is_err());
        assert!(node("blue", 0, dir.path(), 10).is_err());
        authority("blue", dir.path(), 10).unwrap();
        let bad = ["no host".to_owned(), "\u{fc}".to_owned()];
        assert!(server(&bad, "server", dir.path(), 10).is_err());
        assert!(server(&["a".to_owned()], "ca", dir.path(), 10).is_err());
    }
}
