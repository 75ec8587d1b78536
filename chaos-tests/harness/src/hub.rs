//! A network of its own for each node, where the machine allows it.
//!
//! Nodes listen on loopback only as long as they have no certificates, and a namespace has a loopback of its own. So the
//! network between the namespaces is made of loopback addresses: `lo` keeps 127.0.0.1 alone, and 127.9.0.0/16 lies on
//! virtual Ethernet with `route_localnet`. The program itself stands in a namespace of its own as well (it executes
//! itself there), because the machine's must stay as it is; all of it is gone with its last process.
//!
//! - 127.9.0.N: node N, in its namespace. 127.9.0.254: this program: forge, clients, agents.
//! - 127.9.1.N: the proxies of node N, which it advertises.
//! - 127.9.2.D: whence proxies dial on behalf of node D; 127.9.2.254 on behalf of others.
//!
//! A pair is parted by giving its addresses a hardware address that nobody has: packets are lost, handshakes and
//! acknowledgements too, and TCP does what it does then.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr},
    path::Path,
    process::Command,
};

use crate::links::{Links, Party};

const HUB: &str = "hub";
const BRIDGE: &str = "br0";
/// No card has it.
const NOWHERE: &str = "02:00:00:00:ff:ff";
const OUTSIDE: u8 = 254;
/// Nodes of one hub: their numbers are bytes of addresses.
pub const MAX_NODES: u64 = 200;
/// Where nodes listen.
pub(crate) const PEER_PORT: u16 = 7000;
pub(crate) const API_PORT: u16 = 8000;

/// The namespaces of one cluster, seen from the one in the middle.
#[derive(Debug, Clone)]
pub struct Hub {
    _private: (),
}

fn run(program: &str, arguments: &[&str]) -> io::Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|why| io::Error::new(why.kind(), format!("{program}: {why}")))?;
    if output.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!(
        "{program} {}: {}",
        arguments.join(" "),
        why.trim()
    )))
}

fn ip(arguments: &str) -> io::Result<()> {
    let words: Vec<&str> = arguments.split_whitespace().collect();
    run("ip", &words)
}

/// Packets from and to 127.9.0.0/16 pass through this namespace's cards.
const OPEN: &str = "for f in /proc/sys/net/ipv4/conf/*/route_localnet; do echo 1 > $f || exit 1; done; \
                    for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $f || exit 1; done";

fn address(net: u8, host: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 9, net, host)
}

fn host(node: u64) -> io::Result<u8> {
    u8::try_from(node)
        .ok()
        .filter(|host| u64::from(*host) <= MAX_NODES && *host > 0)
        .ok_or_else(|| {
            io::Error::other(format!(
                "node {node}: ids up to {MAX_NODES} have an address"
            ))
        })
}

fn party(ip: IpAddr) -> Party {
    match ip {
        IpAddr::V4(ip) if ip.octets()[..3] == [127, 9, 0] && ip.octets()[3] != OUTSIDE => {
            Party::Node(u64::from(ip.octets()[3]))
        }
        _ => Party::Outside,
    }
}

fn source(party: Party) -> IpAddr {
    let host = match party {
        Party::Node(id) => u8::try_from(id).unwrap_or(OUTSIDE),
        Party::Outside => OUTSIDE,
    };
    address(2, host).into()
}

impl Hub {
    /// Whether this process may make namespaces, tried by making one.
    ///
    /// # Errors
    /// With what was refused.
    pub fn is_allowed() -> io::Result<()> {
        run("unshare", &["--net", "--mount", "true"])
    }

    /// The command that executes a program in fresh namespaces; it replaces the process that runs it.
    #[must_use]
    pub fn command(program: &Path) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "--"]).arg(program);
        command
    }

    /// Makes the network. The process must stand in fresh network and mount namespaces: see [`Self::command`].
    ///
    /// # Errors
    /// With what was refused; loopback works then as ever.
    pub fn make() -> io::Result<Self> {
        ip("link set lo up")?;
        // The names of our namespaces are nobody else's business.
        fs::create_dir_all("/run/netns")?;
        run("mount", &["-t", "tmpfs", HUB, "/run/netns"])?;
        ip(&format!("link add {BRIDGE} type bridge"))?;
        ip(&format!("link set {BRIDGE} up"))?;
        run("sh", &["-c", OPEN])?;
        ip("addr add 127.0.0.1/32 dev lo")?;
        ip("addr del 127.0.0.1/8 dev lo")?;
        ip(&format!("addr add {}/16 dev {BRIDGE}", address(0, OUTSIDE)))?;
        ip(&format!("addr add {}/32 dev {BRIDGE}", address(2, OUTSIDE)))?;
        Ok(Self { _private: () })
    }

    #[must_use]
    pub fn links(&self, seed: u64) -> Links {
        Links::between_namespaces(seed, party, source)
    }

    /// Where this program listens for nodes.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        address(0, OUTSIDE).into()
    }

    /// A namespace for a node; gives where it listens and where its proxies do.
    pub(crate) fn add(&self, node: u64) -> io::Result<(IpAddr, IpAddr)> {
        let host = host(node)?;
        let name = name(node);
        ip(&format!("netns add {name}"))?;
        ip(&format!(
            "link add e{node} type veth peer name eth0 netns {name}"
        ))?;
        ip(&format!("link set e{node} master {BRIDGE} up"))?;
        ip(&format!("-n {name} link set lo up"))?;
        ip(&format!("-n {name} addr add 127.0.0.1/32 dev lo"))?;
        ip(&format!("-n {name} addr del 127.0.0.1/8 dev lo"))?;
        run("nsenter", &[&inside(node), "sh", "-c", OPEN])?;
        ip(&format!(
            "-n {name} addr add {}/16 dev eth0",
            address(0, host)
        ))?;
        ip(&format!("-n {name} link set eth0 up"))?;
        ip(&format!("addr add {}/32 dev {BRIDGE}", address(1, host)))?;
        ip(&format!("addr add {}/32 dev {BRIDGE}", address(2, host)))?;
        run("sh", &["-c", OPEN])?;
        Ok((address(0, host).into(), address(1, host).into()))
    }

    /// Loses every packet between the two, or none any more.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_parted(&self, one: u64, other: u64, parted: bool) -> io::Result<()> {
        for (here, there) in [(one, other), (other, one)] {
            let (name, there) = (name(here), host(there)?);
            for net in [1, 2] {
                let there = address(net, there);
                if parted {
                    ip(&format!(
                        "-n {name} neigh replace {there} lladdr {NOWHERE} nud permanent dev eth0"
                    ))?;
                } else {
                    ip(&format!("-n {name} neigh del {there} dev eth0"))?;
                }
            }
        }
        Ok(())
    }
}

fn name(node: u64) -> String {
    format!("node{node}")
}

/// For `nsenter`, which becomes the program that it is given.
pub(crate) fn inside(node: u64) -> String {
    format!("--net=/run/netns/{}", name(node))
}
