//! What lies between the nodes, and between them and everybody else, when it is to be disturbed: a proxy in this process
//! in front of each node's two listeners. The nodes advertise the proxies, so all bytes pass here.
//!
//! - *Who dials* is told by the source address where each node has a network namespace of its own. On loopback all share
//!   one address, so the dialer's port is looked up in `/proc/net/tcp`, and the socket found there among the open files
//!   of the nodes' processes. Whoever is no node is "outside": clients, agents, the forge.
//! - *A way* is a pair of dialer and node in one direction. What a rule says of a way holds for bytes that are already on
//!   it as well. Held bytes wait, and so do the ends of connections: as in a real partition nobody is told anything.
//!   Full partitions hold both ways of each pair, one-way partitions one of them, a bridge all pairs that it joins.
//! - *Weather* is delay, jitter and loss. Order is kept, since this is what lies above TCP: what comes behind a delayed
//!   chunk is delayed with it, and a lost segment is a stall until it would have been sent again.
//! - A node that was killed has no listener, so that its peers are refused as by a machine that runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpSocket, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};

/// An Ethernet segment's payload: the unit of loss.
const SEGMENT: usize = 1460;
/// Read at once where nothing is lost.
const CHUNK: usize = 64 << 10;
/// Chunks on one way of one connection; then the sender's window closes.
const CHUNKS_ON_THE_WAY: usize = 256;
/// Between two tries to listen where a node was killed a moment ago.
const LISTEN_AGAIN: Duration = Duration::from_millis(20);
/// Tries to listen.
const MAX_LISTEN_TRIES: u32 = 250;

/// One end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Party {
    Node(u64),
    /// Clients, agents, the forge.
    Outside,
}

/// What happens to bytes on a way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Weather {
    pub delay: Duration,
    /// Added at random, up to this.
    pub jitter: Duration,
    /// Chunks of 10,000 that are lost, which costs [`Self::stall`].
    pub lost: u32,
    pub stall: Duration,
    /// Chunks of 10,000 at which the connection is reset.
    pub reset: u32,
}

impl Weather {
    /// 200 ms and up to 50 more, each way.
    #[must_use]
    pub fn far() -> Self {
        Self {
            delay: Duration::from_millis(200),
            jitter: Duration::from_millis(50),
            ..Self::default()
        }
    }

    /// Of 1,460 bytes each, 5 % are sent again after 200 ms, 0.1 % end the connection.
    #[must_use]
    pub fn lossy() -> Self {
        Self {
            lost: 500,
            stall: Duration::from_millis(200),
            reset: 10,
            ..Self::default()
        }
    }

    fn chunk(&self) -> usize {
        if self.lost > 0 || self.reset > 0 {
            SEGMENT
        } else {
            CHUNK
        }
    }
}

#[derive(Debug, Default)]
struct Rules {
    held: BTreeSet<(Party, Party)>,
    weather: BTreeMap<(Party, Party), Weather>,
}

/// A node behind its proxies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Behind {
    pub(crate) node: u64,
    /// What is advertised.
    pub(crate) front: SocketAddr,
    /// Where the node listens.
    pub(crate) back: SocketAddr,
}

/// Counts what passed; a nemesis that touched nothing proves nothing.
#[derive(Debug, Default)]
pub struct Tally {
    pub connections: AtomicU64,
    pub bytes: AtomicU64,
    pub stalls: AtomicU64,
    pub resets: AtomicU64,
    /// Connections of nodes.
    pub of_nodes: AtomicU64,
}

#[derive(Debug)]
struct Shared {
    rules: watch::Sender<Rules>,
    /// Processes of the nodes that run, to tell who dials.
    pids: Mutex<BTreeMap<u64, u32>>,
    /// Nodes with a listener.
    up: watch::Sender<BTreeSet<u64>>,
    tally: Tally,
    dice: AtomicU64,
    /// Source addresses by which targets can tell dialers apart; none on loopback.
    by_address: Option<fn(IpAddr) -> Party>,
    source: Option<fn(Party) -> IpAddr>,
}

/// All proxies of one cluster; they end when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Links {
    shared: Arc<Shared>,
    proxies: Arc<Mutex<Vec<Proxy>>>,
}

#[derive(Debug)]
struct Proxy(JoinHandle<()>);

impl Drop for Proxy {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Links {
    #[must_use]
    pub fn on_loopback(seed: u64) -> Self {
        Self::new(seed, None, None)
    }

    pub(crate) fn between_namespaces(
        seed: u64,
        party: fn(IpAddr) -> Party,
        source: fn(Party) -> IpAddr,
    ) -> Self {
        Self::new(seed, Some(party), Some(source))
    }

    fn new(
        seed: u64,
        by_address: Option<fn(IpAddr) -> Party>,
        source: Option<fn(Party) -> IpAddr>,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                rules: watch::Sender::new(Rules::default()),
                pids: Mutex::default(),
                up: watch::Sender::new(BTreeSet::new()),
                tally: Tally::default(),
                dice: AtomicU64::new(seed),
                by_address,
                source,
            }),
            proxies: Arc::default(),
        }
    }

    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.shared.tally
    }

    /// Bytes on these ways wait from now on.
    pub fn hold(&self, ways: impl IntoIterator<Item = (Party, Party)>) {
        self.shared
            .rules
            .send_modify(|rules| rules.held.extend(ways));
    }

    /// Both ways of each pair.
    pub fn part(&self, pairs: impl IntoIterator<Item = (Party, Party)>) {
        self.hold(
            pairs
                .into_iter()
                .flat_map(|(one, other)| [(one, other), (other, one)]),
        );
    }

    pub fn set_weather(&self, ways: impl IntoIterator<Item = (Party, Party)>, weather: Weather) {
        self.shared.rules.send_modify(|rules| {
            rules
                .weather
                .extend(ways.into_iter().map(|way| (way, weather)));
        });
    }

    /// Nothing is held any more.
    pub fn release(&self) {
        self.shared.rules.send_modify(|rules| rules.held.clear());
    }

    pub fn clear_weather(&self) {
        self.shared.rules.send_modify(|rules| rules.weather.clear());
    }

    /// Puts a proxy in front of a listener of a node.
    pub(crate) fn put_in_front(&self, behind: Behind) {
        let proxy = tokio::spawn(serve(Arc::clone(&self.shared), behind));
        let mut proxies = self.proxies.lock().unwrap_or_else(PoisonError::into_inner);
        proxies.push(Proxy(proxy));
    }

    pub(crate) fn started(&self, node: u64, pid: u32) {
        self.shared.pids().insert(node, pid);
        self.shared.up.send_modify(|up| {
            up.insert(node);
        });
    }

    pub(crate) fn ended(&self, node: u64) {
        self.shared.pids().remove(&node);
        self.shared.up.send_modify(|up| {
            up.remove(&node);
        });
    }
}

impl Shared {
    fn pids(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, u32>> {
        self.pids.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next of 10,000 sides.
    fn roll(&self) -> u32 {
        // SplitMix64.
        let mut z = self
            .dice
            .fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed)
            .wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % 10_000) as u32
    }

    fn weather(&self, way: (Party, Party)) -> Weather {
        self.rules
            .borrow()
            .weather
            .get(&way)
            .copied()
            .unwrap_or_default()
    }

    async fn until_open(&self, way: (Party, Party)) {
        let mut rules = self.rules.subscribe();
        // Its sender lives in self.
        let _open = rules.wait_for(|rules| !rules.held.contains(&way)).await;
    }

    async fn until_up(&self, node: u64, wanted: bool) {
        let mut up = self.up.subscribe();
        // Its sender lives in self.
        let _is = up.wait_for(|up| up.contains(&node) == wanted).await;
    }

    fn who(&self, dialer: SocketAddr, front: SocketAddr) -> Party {
        if let Some(by_address) = self.by_address {
            return by_address(dialer.ip());
        }
        let pids = self.pids().clone();
        socket_of(dialer, front)
            .and_then(|socket| {
                let mut nodes = pids.into_iter();
                nodes.find(|(_, pid)| has_open(*pid, &socket))
            })
            .map_or(Party::Outside, |(node, _)| Party::Node(node))
    }
}

/// As it stands in `/proc/net/tcp`.
fn hex(address: SocketAddr) -> Option<String> {
    match address {
        SocketAddr::V4(address) => {
            let ip = u32::from_le_bytes(address.ip().octets());
            Some(format!("{ip:08X}:{:04X}", address.port()))
        }
        SocketAddr::V6(_) => None,
    }
}

/// What the open file of the socket that dialed is called.
fn socket_of(dialer: SocketAddr, front: SocketAddr) -> Option<String> {
    let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
    socket_in(&table, &hex(dialer)?, &hex(front)?)
}

fn socket_in(table: &str, local: &str, remote: &str) -> Option<String> {
    table.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        if words.next()? != local || words.next()? != remote {
            return None;
        }
        let inode = words.nth(6)?;
        (inode != "0").then(|| format!("socket:[{inode}]"))
    })
}

fn has_open(pid: u32, socket: &str) -> bool {
    // A process that is gone has nothing open.
    let Ok(files) = std::fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    files
        .flatten()
        .any(|file| std::fs::read_link(file.path()).is_ok_and(|is| is == Path::new(socket)))
}

async fn listen(front: SocketAddr) -> io::Result<TcpListener> {
    let mut tries = 0;
    loop {
        match TcpListener::bind(front).await {
            Ok(listener) => return Ok(listener),
            Err(why) if tries >= MAX_LISTEN_TRIES => return Err(why),
            Err(_) => tries += 1,
        }
        sleep(LISTEN_AGAIN).await;
    }
}

async fn serve(shared: Arc<Shared>, behind: Behind) {
    loop {
        shared.until_up(behind.node, true).await;
        let listener = match listen(behind.front).await {
            Ok(listener) => listener,
            Err(why) => {
                tracing::error!(%why, front = %behind.front, "the proxy of node {} cannot listen", behind.node);
                return;
            }
        };
        let accept = async {
            loop {
                // A connection that broke before it was looked at.
                let Ok((dialed, dialer)) = listener.accept().await else {
                    continue;
                };
                let shared = Arc::clone(&shared);
                tokio::spawn(async move { shared.connection(dialed, dialer, behind).await });
            }
        };
        tokio::select! {
            () = accept => {}
            () = shared.until_up(behind.node, false) => {}
        }
    }
}

/// What is on its way.
enum Chunk {
    Bytes(Vec<u8>),
    End,
    Reset,
}

impl Shared {
    async fn connection(self: Arc<Self>, dialed: TcpStream, dialer: SocketAddr, behind: Behind) {
        let from = self.who(dialer, behind.front);
        let to = Party::Node(behind.node);
        self.tally.connections.fetch_add(1, Ordering::Relaxed);
        if from != Party::Outside {
            self.tally.of_nodes.fetch_add(1, Ordering::Relaxed);
        }
        self.until_open((from, to)).await;
        let connected = match self.connect(from, behind.back).await {
            Ok(connected) => connected,
            Err(_refused) => {
                reset(&dialed);
                return;
            }
        };
        // Small messages must not wait for others; without it they only come later.
        for stream in [&dialed, &connected] {
            if let Err(why) = stream.set_nodelay(true) {
                tracing::debug!(%why, "a proxied connection keeps Nagle's algorithm");
            }
        }
        let (dialed_in, dialed_out) = dialed.into_split();
        let (connected_in, connected_out) = connected.into_split();
        let up = self.carry((from, to), dialed_in, connected_out);
        let down = self.carry((to, from), connected_in, dialed_out);
        // A reset ends both ways; an end only its own.
        tokio::pin!(up, down);
        let first = tokio::select! {
            ended = &mut up => ended.map(|kept| (kept, true)),
            ended = &mut down => ended.map(|kept| (kept, false)),
        };
        // The half that ended is kept until the other has: what is dropped is closed.
        if let Some((_half, was_up)) = first {
            let _other = if was_up { down.await } else { up.await };
        }
    }

    async fn connect(&self, from: Party, back: SocketAddr) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        if let Some(source) = self.source {
            socket.bind(SocketAddr::new(source(from), 0))?;
        }
        socket.connect(back).await
    }

    /// Carries bytes until they end; None when the connection was reset, which drops both ways.
    async fn carry(
        &self,
        way: (Party, Party),
        mut from: OwnedReadHalf,
        mut to: OwnedWriteHalf,
    ) -> Option<OwnedWriteHalf> {
        let (chunks, mut waiting) = mpsc::channel::<(Instant, Chunk)>(CHUNKS_ON_THE_WAY);
        let read = async move {
            let mut last = Instant::now();
            loop {
                let mut bytes = vec![0; self.weather(way).chunk()];
                let mut chunk = match from.read(&mut bytes).await {
                    Ok(0) => Chunk::End,
                    Ok(count) => {
                        bytes.truncate(count);
                        Chunk::Bytes(bytes)
                    }
                    Err(_) => Chunk::Reset,
                };
                let weather = self.weather(way);
                let mut due = Instant::now()
                    + weather.delay
                    + weather.jitter.mul_f64(f64::from(self.roll()) / 10_000.0);
                if weather.lost > 0 && self.roll() < weather.lost {
                    self.tally.stalls.fetch_add(1, Ordering::Relaxed);
                    due += weather.stall;
                }
                if weather.reset > 0 && self.roll() < weather.reset {
                    self.tally.resets.fetch_add(1, Ordering::Relaxed);
                    chunk = Chunk::Reset;
                }
                last = last.max(due);
                let is_last = !matches!(chunk, Chunk::Bytes(_));
                if chunks.send((last, chunk)).await.is_err() {
                    return from;
                }
                if is_last {
                    // The half is kept: dropping it would tell the sender that nobody listens.
                    return from;
                }
            }
        };
        let write = async move {
            while let Some((due, chunk)) = waiting.recv().await {
                if due > Instant::now() {
                    sleep_until(due).await;
                }
                self.until_open(way).await;
                let done = match chunk {
                    Chunk::Bytes(bytes) => {
                        self.tally
                            .bytes
                            .fetch_add(bytes.len() as u64, Ordering::Relaxed);
                        to.write_all(&bytes).await
                    }
                    Chunk::End => {
                        to.shutdown().await.ok()?;
                        return Some(to);
                    }
                    Chunk::Reset => Err(io::ErrorKind::ConnectionReset.into()),
                };
                if done.is_err() {
                    reset(to.as_ref());
                    return None;
                }
            }
            Some(to)
        };
        tokio::pin!(read);
        tokio::pin!(write);
        tokio::select! {
            from = &mut read => {
                let to = write.await;
                // A reset resets the sender as well.
                if to.is_none() {
                    reset(from.as_ref());
                }
                to
            }
            to = &mut write => to,
        }
    }
}

/// Closing it tells the other end at once that nothing of this is valid any more.
fn reset(stream: &TcpStream) {
    // Already closed is as good.
    let _closed = stream.set_zero_linger();
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn echo(back: TcpListener) {
        loop {
            let (mut stream, _) = back.accept().await.unwrap();
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                // The test ends the connection.
                let _ended = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    }

    async fn front_of_echo(links: &Links) -> SocketAddr {
        let back = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let front = free.local_addr().unwrap();
        drop(free);
        let behind = Behind {
            node: 1,
            front,
            back: back.local_addr().unwrap(),
        };
        tokio::spawn(echo(back));
        links.put_in_front(behind);
        front
    }

    async fn dial(front: SocketAddr) -> TcpStream {
        for _ in 0..200 {
            if let Ok(stream) = TcpStream::connect(front).await {
                return stream;
            }
            sleep(LISTEN_AGAIN).await;
        }
        panic!("the proxy does not listen");
    }

    async fn say(stream: &mut TcpStream, word: &[u8]) -> io::Result<Vec<u8>> {
        stream.write_all(word).await?;
        let mut heard = vec![0; word.len()];
        stream.read_exact(&mut heard).await?;
        Ok(heard)
    }

    const SOON: Duration = Duration::from_millis(150);
    const ME: (Party, Party) = (Party::Outside, Party::Node(1));
    const BACK: (Party, Party) = (Party::Node(1), Party::Outside);

    #[tokio::test]
    async fn held_bytes_wait_on_connections_that_exist_and_come_when_released() {
        let links = Links::on_loopback(1);
        let front = front_of_echo(&links).await;
        links.started(1, std::process::id());
        links.ended(1);
        // This process is no node's.
        links.started(1, 1);
        let mut stream = dial(front).await;
        assert_eq!(say(&mut stream, b"one").await.unwrap(), b"one");
        for way in [ME, BACK] {
            links.hold([way]);
            stream.write_all(b"two").await.unwrap();
            let mut heard = [0; 3];
            let none = tokio::time::timeout(SOON, stream.read_exact(&mut heard)).await;
            assert!(none.is_err(), "bytes passed on {way:?}");
            links.release();
            stream.read_exact(&mut heard).await.unwrap();
            assert_eq!(&heard, b"two");
        }
    }

    #[tokio::test]
    async fn the_end_of_a_connection_is_held_as_its_bytes_are() {
        let links = Links::on_loopback(1);
        let front = front_of_echo(&links).await;
        links.started(1, 1);
        let mut stream = dial(front).await;
        assert_eq!(say(&mut stream, b"one").await.unwrap(), b"one");
        links.hold([ME]);
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        let none = tokio::time::timeout(SOON, stream.read_to_end(&mut rest)).await;
        assert!(none.is_err(), "the end passed");
        links.release();
        stream.read_to_end(&mut rest).await.unwrap();
        assert!(rest.is_empty());
    }

    #[tokio::test]
    async fn weather_delays_and_resets() {
        let links = Links::on_loopback(1);
        let front = front_of_echo(&links).await;
        links.started(1, 1);
        let mut stream = dial(front).await;
        let far = Weather {
            delay: SOON,
            ..Weather::default()
        };
        links.set_weather([ME], far);
        let before = Instant::now();
        assert_eq!(say(&mut stream, b"one").await.unwrap(), b"one");
        // What was being read when the weather changed comes with it as well: weather is looked at after reading.
        assert!(before.elapsed() >= SOON);
        links.set_weather(
            [ME],
            Weather {
                reset: 10_000,
                ..Weather::default()
            },
        );
        assert!(say(&mut stream, b"two").await.is_err());
        assert_eq!(links.tally().resets.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_node_that_was_killed_refuses() {
        let links = Links::on_loopback(1);
        let front = front_of_echo(&links).await;
        links.started(1, 1);
        drop(dial(front).await);
        links.ended(1);
        let refused = async {
            while TcpStream::connect(front).await.is_ok() {
                sleep(LISTEN_AGAIN).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), refused)
            .await
            .unwrap();
        links.started(1, 1);
        drop(dial(front).await);
    }

    #[tokio::test]
    async fn a_node_that_dials_is_told_by_its_process() {
        let links = Links::on_loopback(1);
        let front = front_of_echo(&links).await;
        links.started(1, 1);
        links.started(7, std::process::id());
        let mut stream = dial(front).await;
        assert_eq!(say(&mut stream, b"one").await.unwrap(), b"one");
        links.hold([(Party::Node(7), Party::Node(1))]);
        let held = tokio::time::timeout(SOON, say(&mut stream, b"two")).await;
        assert!(held.is_err(), "the dialer was not known");
    }

    #[test]
    fn a_socket_is_found_in_the_table_of_the_kernel() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
                     0: 0100007F:4E20 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0\n   \
                     1: 0100007F:9C40 0100007F:4E20 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0\n";
        let (dialer, front) = ("127.0.0.1:40000", "127.0.0.1:20000");
        let hex = |text: &str| hex(text.parse().unwrap()).unwrap();
        assert_eq!(
            socket_in(table, &hex(dialer), &hex(front)).unwrap(),
            "socket:[4712]"
        );
        assert_eq!(socket_in(table, &hex(front), &hex(dialer)), None);
    }
}
