//! A network of byte streams between hosts: what TCP makes of delay, loss and partitions, without sockets.
//!
//! As under TCP, bytes of one connection arrive in order or not at all. A lost segment is a delay, and what follows waits
//! for it; while a direction is cut nothing arrives and nothing fails, until somebody gives up; a machine that lost its
//! power says nothing, and resets old connections once it is back; a process that was killed resets them at once. Bytes
//! are never doubled: what arrives twice is sent twice, by clients and forges (see `clients`) and by nodes
//! ([`trireme_raft::World::repeats`]).

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{Notify, mpsc},
    time::{Instant, Sleep, sleep, sleep_until},
};
use trireme_raft::Pipe;

use super::{chance::Chance, trace::Trace};

/// Bytes on their way in one direction of a connection; more makes the writer wait.
const WINDOW_BYTES: usize = 1 << 20;
/// How long a lost segment is missing.
const RETRANSMIT_MS: (u64, u64) = (200, 900);
/// After a cut is over, until what was held back is sent again.
const RESUME_MS: (u64, u64) = (0, 300);

/// What the network is like at present.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weather {
    /// One way, in microseconds.
    pub(crate) delay_us: (u64, u64),
    /// One segment in so many is lost; 0 = none.
    pub(crate) loss: u64,
    /// One segment in so many is followed by a reset of its connection; 0 = none.
    pub(crate) resets: u64,
}

impl Weather {
    pub(crate) const FAIR: Self = Self {
        delay_us: (50, 1500),
        loss: 0,
        resets: 0,
    };
}

/// Clones are the same network.
#[derive(Debug, Clone)]
pub(crate) struct Network(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    chance: Chance,
    trace: Trace,
    weather: Weather,
    /// Directions in which nothing passes.
    cut: BTreeSet<(u64, u64)>,
    /// Hosts without power.
    dark: BTreeSet<u64>,
    listeners: BTreeMap<String, Listening>,
    connections: BTreeMap<u64, Connection>,
    next: u64,
    changed: Arc<Notify>,
}

#[derive(Debug)]
struct Listening {
    host: u64,
    incoming: mpsc::UnboundedSender<Pipe>,
}

#[derive(Debug)]
struct Connection {
    hosts: [u64; 2],
    /// From each side to the other.
    flows: [Flow; 2],
    gone: [bool; 2],
    reset: bool,
}

#[derive(Debug, Default)]
struct Flow {
    segments: VecDeque<(Instant, Bytes)>,
    bytes: usize,
    last_due: Option<Instant>,
    ended: Option<Instant>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Flow {
    fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()]
            .into_iter()
            .flatten()
        {
            waker.wake();
        }
    }
}

impl Inner {
    fn passes(&self, from: u64, to: u64) -> bool {
        passes(&self.cut, &self.dark, from, to)
    }

    fn delay(&self) -> Duration {
        let (least, most) = self.weather.delay_us;
        let delay = self
            .chance
            .between(Duration::from_micros(least), Duration::from_micros(most));
        if self.weather.loss > 0 && self.chance.one_in(self.weather.loss) {
            let (least, most) = RETRANSMIT_MS;
            return delay + self.chance.millis(least, most);
        }
        delay
    }

    fn wake_all(&mut self) {
        for connection in self.connections.values_mut() {
            connection.flows.iter_mut().for_each(Flow::wake);
        }
        self.changed.notify_waiters();
    }

    fn reset_those(&mut self, of: impl Fn(&Connection) -> bool) {
        for connection in self.connections.values_mut() {
            if of(connection) {
                connection.reset = true;
            }
        }
        self.wake_all();
    }
}

fn passes(cut: &BTreeSet<(u64, u64)>, dark: &BTreeSet<u64>, from: u64, to: u64) -> bool {
    !cut.contains(&(from, to)) && !dark.contains(&from) && !dark.contains(&to)
}

fn refused() -> io::Error {
    io::ErrorKind::ConnectionRefused.into()
}

fn reset() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

impl Network {
    pub(crate) fn new(chance: Chance, trace: Trace) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            chance,
            trace,
            weather: Weather::FAIR,
            cut: BTreeSet::new(),
            dark: BTreeSet::new(),
            listeners: BTreeMap::new(),
            connections: BTreeMap::new(),
            next: 1,
            changed: Arc::default(),
        })))
    }

    fn held(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_weather(&self, weather: Weather) {
        self.held().weather = weather;
    }

    /// Nothing passes in these directions any more, everything in all others.
    pub(crate) fn set_cut(&self, cut: BTreeSet<(u64, u64)>) {
        let mut inner = self.held();
        let healed: BTreeSet<(u64, u64)> = inner.cut.difference(&cut).copied().collect();
        inner.cut = cut;
        let (chance, now) = (inner.chance.clone(), Instant::now());
        for connection in inner.connections.values_mut() {
            let [a, b] = connection.hosts;
            for (direction, flow) in [(a, b), (b, a)].into_iter().zip(&mut connection.flows) {
                if !healed.contains(&direction) || flow.segments.is_empty() {
                    continue;
                }
                let resumes = now + chance.millis(RESUME_MS.0, RESUME_MS.1);
                for (due, _) in &mut flow.segments {
                    *due = (*due).max(resumes);
                }
                flow.last_due = flow.last_due.max(Some(resumes));
            }
        }
        inner.wake_all();
    }

    /// The machine is cut off without a word; its connections die once it is back.
    pub(crate) fn darken(&self, host: u64) {
        let mut inner = self.held();
        inner.dark.insert(host);
        inner
            .listeners
            .retain(|_, listening| listening.host != host);
        inner.wake_all();
    }

    /// The process is gone; its system resets what it had.
    pub(crate) fn kill(&self, host: u64) {
        let mut inner = self.held();
        inner
            .listeners
            .retain(|_, listening| listening.host != host);
        inner.reset_those(|connection| connection.hosts.contains(&host));
    }

    /// The machine is (again) on the network; what it had before it does not know any more.
    pub(crate) fn light(&self, host: u64) {
        let mut inner = self.held();
        inner.dark.remove(&host);
        inner.reset_those(|connection| connection.hosts.contains(&host));
    }

    pub(crate) fn listen(&self, host: u64, address: &str) -> mpsc::UnboundedReceiver<Pipe> {
        let (incoming, arriving) = mpsc::unbounded_channel();
        let mut inner = self.held();
        let listening = Listening { host, incoming };
        inner.listeners.insert(address.to_owned(), listening);
        arriving
    }

    /// A connection from `host`, whose address is nobody's concern.
    pub(crate) async fn connect(&self, host: u64, address: &str) -> io::Result<Pipe> {
        loop {
            let (changed, there_and_back) = {
                let inner = self.held();
                let changed = Arc::clone(&inner.changed);
                match inner.listeners.get(address) {
                    Some(listening)
                        if !inner.passes(host, listening.host)
                            || !inner.passes(listening.host, host) =>
                    {
                        (changed, None)
                    }
                    Some(_) => (changed, Some(inner.delay() + inner.delay())),
                    // A dark machine does not even refuse.
                    None if inner.dark.iter().any(|dark| is_at(address, *dark)) => (changed, None),
                    None => (changed, Some(inner.delay() + inner.delay())),
                }
            };
            let Some(there_and_back) = there_and_back else {
                changed.notified().await;
                continue;
            };
            sleep(there_and_back).await;
            let mut inner = self.held();
            let Some(listening) = inner.listeners.get(address) else {
                return Err(refused());
            };
            let (other, incoming) = (listening.host, listening.incoming.clone());
            if !inner.passes(host, other) || !inner.passes(other, host) {
                continue;
            }
            let id = inner.next;
            inner.next += 1;
            inner.connections.insert(
                id,
                Connection {
                    hosts: [host, other],
                    flows: [Flow::default(), Flow::default()],
                    gone: [false, false],
                    reset: false,
                },
            );
            let trace = inner.trace.clone();
            drop(inner);
            trace.line(host, format_args!("connects to {address} as {id}"));
            let [here, there] = [0, 1].map(|side| End {
                network: self.clone(),
                id,
                side,
                timer: None,
            });
            if incoming.send(Pipe::new(there)).is_err() {
                return Err(refused());
            }
            return Ok(Pipe::new(here));
        }
    }
}

/// Addresses are `host:port`, where the host is its number.
fn is_at(address: &str, host: u64) -> bool {
    address.split(':').next() == Some(host.to_string().as_str())
}

/// One end of a connection.
#[derive(Debug)]
struct End {
    network: Network,
    id: u64,
    side: usize,
    timer: Option<Pin<Box<Sleep>>>,
}

impl AsyncRead for End {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let network = self.network.clone();
            let mut guard = network.held();
            let inner = &mut *guard;
            let Some(connection) = inner.connections.get_mut(&self.id) else {
                return Poll::Ready(Err(reset()));
            };
            let other = 1 - self.side;
            let (from, to) = (connection.hosts[other], connection.hosts[self.side]);
            let flow = &mut connection.flows[other];
            flow.reader = Some(cx.waker().clone());
            if !passes(&inner.cut, &inner.dark, from, to) {
                return Poll::Pending;
            }
            if connection.reset {
                return Poll::Ready(Err(reset()));
            }
            let now = Instant::now();
            let due = flow.segments.front().map(|(due, _)| *due).or(flow.ended);
            match due {
                None => return Poll::Pending,
                Some(due) if due > now => {
                    drop(guard);
                    let mut timer = Box::pin(sleep_until(due));
                    if timer.as_mut().poll(cx).is_ready() {
                        continue;
                    }
                    self.timer = Some(timer);
                    return Poll::Pending;
                }
                Some(_) => {}
            }
            let Some((_, segment)) = flow.segments.front_mut() else {
                return Poll::Ready(Ok(()));
            };
            let count = segment.len().min(buffer.remaining());
            let taken = segment.split_to(count);
            if !segment.has_remaining() {
                flow.segments.pop_front();
            }
            flow.bytes -= count;
            if let Some(writer) = flow.writer.take() {
                writer.wake();
            }
            let trace = inner.trace.clone();
            drop(guard);
            buffer.put_slice(&taken);
            let sum = crc32fast::hash(&taken);
            trace.line(
                to,
                format_args!("reads {count} bytes {sum:08x} of {from} on {}", self.id),
            );
            return Poll::Ready(Ok(()));
        }
    }
}

impl AsyncWrite for End {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut guard = self.network.held();
        let inner = &mut *guard;
        let delay = inner.delay();
        let resets = inner.weather.resets;
        let resets = resets > 0 && inner.chance.one_in(resets);
        let Some(connection) = inner.connections.get_mut(&self.id) else {
            return Poll::Ready(Err(reset()));
        };
        let other = 1 - self.side;
        let (there, here) = (connection.hosts[other], connection.hosts[self.side]);
        // Whether the other side is gone is known once its word for it has come.
        let left = connection.gone[other]
            && connection.flows[other]
                .ended
                .is_none_or(|at| at <= Instant::now());
        if (connection.reset || left) && passes(&inner.cut, &inner.dark, there, here) {
            return Poll::Ready(Err(reset()));
        }
        if resets {
            connection.reset = true;
            connection.flows.iter_mut().for_each(Flow::wake);
            return Poll::Ready(Err(reset()));
        }
        let flow = &mut connection.flows[self.side];
        if flow.bytes >= WINDOW_BYTES {
            flow.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = bytes.len().min(WINDOW_BYTES - flow.bytes);
        let due = flow.last_due.max(Some(Instant::now() + delay));
        flow.last_due = due;
        flow.bytes += count;
        if let Some(due) = due {
            let segment = Bytes::copy_from_slice(&bytes[..count]);
            flow.segments.push_back((due, segment));
        }
        if let Some(reader) = flow.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.end();
        Poll::Ready(Ok(()))
    }
}

impl End {
    fn end(&self) {
        let mut inner = self.network.held();
        let delay = inner.delay();
        if let Some(connection) = inner.connections.get_mut(&self.id) {
            let flow = &mut connection.flows[self.side];
            if flow.ended.is_none() {
                flow.ended = flow.last_due.max(Some(Instant::now() + delay));
            }
            if let Some(reader) = flow.reader.take() {
                reader.wake();
            }
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.end();
        let mut inner = self.network.held();
        if let Some(connection) = inner.connections.get_mut(&self.id) {
            connection.gone[self.side] = true;
            if connection.gone == [true, true] {
                inner.connections.remove(&self.id);
            }
        }
    }
}
