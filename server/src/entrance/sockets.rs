//! How many sockets there may be, in all and from one address, and who gives way when there are
//! too many.
//!
//! A socket *waits* from when it was accepted until it is upgraded to WebSocket, and is *connected*
//! from then on. The two have limits of their own, which together leave the relay the descriptors
//! that it needs itself. Who waits for longest gives way to newcomers, first those who have said
//! nothing: who is honest is upgraded within a moment. Who is connected gives way to nobody;
//! newcomers are told that there is no room.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::config::Config;

/// Most sockets that wait; an idle one takes some 10 KiB.
const WAITING_SOCKETS_MAX: usize = 4096;

/// Descriptors that one worker of the workshop takes: three pipes, one more while it starts, and
/// what the runtime watches it with.
const WORKER_DESCRIPTORS: usize = 12;

/// Descriptors that are left for what the relay opens later: its file again after a failure, and a
/// burst of sockets that were told to give way and have not done so yet.
const SPARE_DESCRIPTORS: usize = 64;

/// With fewer than so many there is nothing to serve.
const CONNECTIONS_MIN: usize = 16;

/// How long nobody is accepted while many wait and none gets on.
const CROWDED_PAUSE: Duration = Duration::from_millis(1);

/// After so many such pauses in which nobody got on there is none, until somebody is connected or the
/// crowd is gone.
const VAIN_PAUSES_MAX: u32 = 256;

/// The log has at most one line of each kind of refused connections in such a time.
const QUIET: Duration = Duration::from_secs(60);

/// How many sockets there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) connected: usize,
    pub(crate) connected_per_address: usize,
    pub(crate) waiting: usize,
    waiting_per_address: usize,
}

impl Limits {
    /// What the configuration asks for, as far as the process may open files.
    pub(crate) fn new(config: &Config) -> Result<Self, TooFew> {
        let descriptors = getrlimit(Resource::Nofile).current;
        let descriptors = descriptors.map_or(usize::MAX, |number| number as usize);
        Self::within(descriptors, open_descriptors(), config)
    }

    fn within(descriptors: usize, open: usize, config: &Config) -> Result<Self, TooFew> {
        let own = open + SPARE_DESCRIPTORS + config.workshop.workers * WORKER_DESCRIPTORS;
        let free = descriptors.saturating_sub(own);
        if free < 2 * CONNECTIONS_MIN {
            return Err(TooFew {
                descriptors,
                needed: own + 2 * CONNECTIONS_MIN,
            });
        }
        let waiting = WAITING_SOCKETS_MAX.min(free / 4);
        let connected = config.connections_max.min(free - waiting);
        let per_address = config.connections_per_address_max;
        Ok(Self {
            connected,
            connected_per_address: per_address.unwrap_or_else(|| connected.div_ceil(2)),
            waiting,
            waiting_per_address: waiting.div_ceil(2),
        })
    }
}

/// The process may not open as many files as a relay needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooFew {
    pub(crate) descriptors: usize,
    pub(crate) needed: usize,
}

/// How many descriptors the process has open; where the system does not tell, about as many as a
/// relay has when it starts.
fn open_descriptors() -> usize {
    const USUAL: usize = 32;
    std::fs::read_dir("/proc/self/fd").map_or(USUAL, Iterator::count)
}

/// From whom a socket comes: whoever has an IPv6 address mostly has all of its /64.
fn origin(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::from(address) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(network))
        }
        address @ IpAddr::V4(_) => address,
    }
}

/// All sockets of a relay.
#[derive(Debug)]
pub(crate) struct Sockets {
    limits: Limits,
    state: Mutex<State>,
    /// One that waited does not any more.
    one_got_on: Notify,
}

#[derive(Debug, Default)]
struct State {
    accepted: u64,
    connected: usize,
    connected_from: HashMap<IpAddr, usize>,
    waiting: usize,
    /// Those that wait, by when they came.
    waiting_from: HashMap<IpAddr, BTreeMap<u64, CancellationToken>>,
    /// When the log last said that somebody was refused for each reason, and how many were since.
    refusals: [(Option<Instant>, u64); 3],
    /// How many wait, and of whom, so that the one with most is found.
    most_waiting: BTreeSet<(usize, IpAddr)>,
    /// How many pauses were in vain, less those who were connected since.
    vain_pauses: u32,
}

impl State {
    fn add_waiting(&mut self, origin: IpAddr, number: u64, told: CancellationToken) {
        let waiting = self.waiting_from.entry(origin).or_default();
        self.most_waiting.remove(&(waiting.len(), origin));
        waiting.insert(number, told);
        self.most_waiting.insert((waiting.len(), origin));
        self.waiting += 1;
    }

    /// Takes one out of those that wait, unless it is not among them any more.
    fn remove_waiting(&mut self, origin: IpAddr, number: u64) -> Option<CancellationToken> {
        let waiting = self.waiting_from.get_mut(&origin)?;
        let before = waiting.len();
        let told = waiting.remove(&number)?;
        self.most_waiting.remove(&(before, origin));
        if waiting.is_empty() {
            self.waiting_from.remove(&origin);
        } else {
            self.most_waiting.insert((before - 1, origin));
        }
        self.waiting -= 1;
        Some(told)
    }

    /// Tells the one that waits for longest of an origin to give way; whether there is one.
    fn give_way(&mut self, origin: IpAddr) -> bool {
        let oldest = self.waiting_from.get(&origin).and_then(|waiting| {
            let (number, _) = waiting.first_key_value()?;
            Some(*number)
        });
        let told = oldest.and_then(|number| self.remove_waiting(origin, number));
        told.is_some_and(|told| {
            told.cancel();
            true
        })
    }
}

/// Why a socket cannot be connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// There are as many connections as may be.
    All,
    /// There are as many from this address.
    Address,
    /// It gave way while it waited to be upgraded.
    Waiting,
}

impl Sockets {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            state: Mutex::default(),
            one_got_on: Notify::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a socket that was accepted. If there are too many, the one gives way that waits for
    /// longest: of this address if it has its share already, else of the one that has most.
    pub(crate) fn enter(self: &Arc<Self>, from: IpAddr) -> Arc<PendingSocket> {
        let origin = origin(from);
        let (number, told) = self.wait(origin);
        Arc::new(PendingSocket {
            sockets: self.clone(),
            origin,
            number: AtomicU64::new(number),
            told,
        })
    }

    fn wait(&self, origin: IpAddr) -> (u64, CancellationToken) {
        let mut state = self.state();
        let number = state.accepted;
        state.accepted += 1;
        let told = CancellationToken::new();
        state.add_waiting(origin, number, told.clone());
        if state.waiting_from[&origin].len() > self.limits.waiting_per_address {
            state.give_way(origin);
        } else if state.waiting > self.limits.waiting {
            Self::most_gives_way(&mut state);
        }
        (number, told)
    }

    fn most_gives_way(state: &mut State) -> bool {
        let most = state.most_waiting.last().copied();
        most.is_some_and(|(_, origin)| state.give_way(origin))
    }

    /// Tells one that waits to give way, because the system has no room for more; whether there is
    /// one.
    pub(crate) fn make_room(&self) -> bool {
        Self::most_gives_way(&mut self.state())
    }

    /// Somebody was refused. `Some` when the log is to say so, with the number of those who were
    /// since it last did.
    fn refused(&self, why: Full, now: Instant) -> Option<u64> {
        let mut state = self.state();
        let (told_at, others) = &mut state.refusals[why as usize];
        if told_at.is_some_and(|at| now < at + QUIET) {
            *others += 1;
            return None;
        }
        *told_at = Some(now);
        Some(std::mem::take(others))
    }

    /// Tells the operator that somebody is refused, and what helps.
    pub(super) fn tell_refused(&self, socket: &PendingSocket, full: Full) {
        let Some(others) = self.refused(full, Instant::now()) else {
            return;
        };
        let address = socket.origin();
        let option = match full {
            Full::All => "--connections-max",
            Full::Address => "--connections-per-address-max",
            Full::Waiting => {
                let waiting_max = self.limits.waiting;
                warn!(
                    %address, others, waiting_max,
                    "sockets are ended before they became WebSockets, since more wait than may, or more \
                     than half of them from one address; clients try again by themselves. Fewer may \
                     wait than {WAITING_SOCKETS_MAX} if the process may not open more files (ulimit -n); \
                     a reverse proxy can let clients in more slowly"
                );
                return;
            }
        };
        warn!(%address, others, "connections are refused; see {option}");
    }

    /// If so many wait that the next one may make another give way, waits until one got on: who has
    /// said what they want is upgraded within a moment, and thousands may come back at once. Not for
    /// longer than [`CROWDED_PAUSE`], since those that are there may say nothing at all; and only so often
    /// in vain, since whoever opens sockets and says nothing would have all others wait in the system's
    /// queue.
    pub(crate) async fn let_some_get_on(&self) {
        let got_on = async {
            loop {
                let got_on = self.one_got_on.notified();
                if !self.is_crowded() {
                    return;
                }
                got_on.await;
            }
        };
        if !self.is_crowded() {
            self.state().vain_pauses = 0;
            return;
        }
        if self.state().vain_pauses >= VAIN_PAUSES_MAX {
            return tokio::task::yield_now().await;
        }
        if tokio::time::timeout(CROWDED_PAUSE, got_on).await.is_err() {
            self.state().vain_pauses += 1;
        }
    }

    fn is_crowded(&self) -> bool {
        let limits = &self.limits;
        self.state().waiting >= limits.waiting.min(limits.waiting_per_address)
    }
}

/// A socket that was accepted; counted until it is dropped.
#[derive(Debug)]
pub(crate) struct PendingSocket {
    sockets: Arc<Sockets>,
    origin: IpAddr,
    number: AtomicU64,
    told: CancellationToken,
}

impl PendingSocket {
    /// Where it comes from.
    pub(crate) fn origin(&self) -> IpAddr {
        self.origin
    }

    /// Ends when the socket, which has said nothing yet, must give way.
    pub(crate) async fn gives_way(&self) {
        self.told.cancelled().await;
    }

    /// The socket has begun to speak: it waits as one that has just come, also if it was told to
    /// give way in this moment. What is returned tells it to from here on.
    pub(crate) fn speaks(&self) -> CancellationToken {
        let number = self.number.load(Ordering::Relaxed);
        let before = self.sockets.state().remove_waiting(self.origin, number);
        drop(before);
        let (number, told) = self.sockets.wait(self.origin);
        self.number.store(number, Ordering::Relaxed);
        told
    }

    /// The socket is being upgraded. It waits no more, and is counted among the connections until
    /// the permit that is returned is dropped.
    pub(crate) fn connect(&self) -> Result<ConnectionPermit, Full> {
        let mut state = self.sockets.state();
        let limits = &self.sockets.limits;
        if state.connected >= limits.connected {
            return Err(Full::All);
        }
        let from = state.connected_from.get(&self.origin).copied();
        if from.unwrap_or(0) >= limits.connected_per_address {
            return Err(Full::Address);
        }
        // One that was just told to give way is as good as gone.
        let number = self.number.load(Ordering::Relaxed);
        if state.remove_waiting(self.origin, number).is_none() {
            return Err(Full::Waiting);
        }
        self.sockets.one_got_on.notify_one();
        state.vain_pauses = state.vain_pauses.saturating_sub(1);
        state.connected += 1;
        *state.connected_from.entry(self.origin).or_default() += 1;
        Ok(ConnectionPermit {
            sockets: self.sockets.clone(),
            origin: self.origin,
        })
    }
}

impl Drop for PendingSocket {
    fn drop(&mut self) {
        let number = self.number.load(Ordering::Relaxed);
        self.sockets.state().remove_waiting(self.origin, number);
        self.sockets.one_got_on.notify_one();
    }
}

/// Counts a connection for as long as it lives.
#[derive(Debug)]
pub(crate) struct ConnectionPermit {
    sockets: Arc<Sockets>,
    origin: IpAddr,
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut state = self.sockets.state();
        state.connected -= 1;
        if let Some(from) = state.connected_from.get_mut(&self.origin) {
            *from -= 1;
            if *from == 0 {
                state.connected_from.remove(&self.origin);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sockets(limits: [usize; 4]) -> Arc<Sockets> {
        let [
            connected,
            connected_per_address,
            waiting,
            waiting_per_address,
        ] = limits;
        Sockets::new(Limits {
            connected,
            connected_per_address,
            waiting,
            waiting_per_address,
        })
    }

    fn from(n: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, n])
    }

    fn gone(places: &[Arc<PendingSocket>]) -> Vec<bool> {
        let told = places.iter().map(|place| place.told.is_cancelled());
        told.collect()
    }

    #[test]
    fn the_oldest_of_who_has_most_gives_way() {
        let sockets = sockets([9, 9, 4, 3]);
        let mut places: Vec<_> = [1, 2, 2, 3].map(|n| sockets.enter(from(n))).into();
        assert_eq!(gone(&places), [false; 4]);
        places.push(sockets.enter(from(4)));
        assert_eq!(gone(&places), [false, true, false, false, false]);
        // Now all have one; newcomers of one address make room for each other.
        for _ in 0..10 {
            places.push(sockets.enter(from(5)));
        }
        let stay = places.iter().filter(|place| !place.told.is_cancelled());
        let stay: Vec<_> = stay.map(|place| place.origin).collect();
        assert_eq!(stay.len(), 4);
        drop(places);
        let state = sockets.state();
        assert_eq!((state.waiting, state.most_waiting.len()), (0, 0));
        assert!(state.waiting_from.is_empty());
    }

    #[test]
    fn one_address_takes_no_more_than_its_share() {
        let sockets = sockets([9, 9, 4, 2]);
        let honest = sockets.enter(from(1));
        let flood: Vec<_> = (0..100).map(|_| sockets.enter(from(2))).collect();
        assert!(!honest.told.is_cancelled());
        let stay: Vec<_> = (0..100).filter(|&n| !gone(&flood)[n]).collect();
        assert_eq!(stay, [98, 99]);
        assert!(honest.connect().is_ok());
        assert_eq!(
            flood[0].connect().unwrap_err(),
            Full::Waiting,
            "it gave way"
        );
    }

    #[test]
    fn who_speaks_stays_before_who_is_idle() {
        let sockets = sockets([9, 9, 4, 3]);
        let honest = sockets.enter(from(1));
        let idle: Vec<_> = (0..3).map(|_| sockets.enter(from(1))).collect();
        // It had to give way, but what it says was on its way already.
        assert!(honest.told.is_cancelled());
        let told = honest.speaks();
        drop(sockets.enter(from(1)));
        assert!(!told.is_cancelled());
        assert_eq!(gone(&idle), [true, true, false]);
        assert!(honest.connect().is_ok());
        drop((honest, idle));
        assert_eq!(sockets.state().waiting, 0);
    }

    #[test]
    fn connections_are_counted_in_all_and_by_address() {
        let sockets = sockets([3, 2, 9, 9]);
        let connect = |n| sockets.enter(from(n)).connect();
        let mut held = vec![connect(1).unwrap(), connect(1).unwrap()];
        assert_eq!(connect(1).unwrap_err(), Full::Address);
        held.push(connect(2).unwrap());
        assert_eq!(connect(3).unwrap_err(), Full::All);
        held.remove(0);
        drop(connect(1).unwrap());
        assert_eq!(sockets.state().connected, 2);
        held.clear();
        let state = sockets.state();
        assert_eq!((state.connected, state.waiting), (0, 0));
        assert!(state.connected_from.is_empty());
    }

    #[test]
    fn refusals_are_one_line_a_minute() {
        let (sockets, start) = (sockets([1, 1, 1, 1]), Instant::now());
        let after = |s| sockets.refused(Full::All, start + Duration::from_secs(s));
        assert_eq!(after(0), Some(0));
        assert_eq!(
            sockets.refused(Full::Waiting, start),
            Some(0),
            "another reason"
        );
        assert_eq!((after(1), after(59)), (None, None));
        assert_eq!(after(60), Some(2));
    }

    #[test]
    fn a_network_of_ipv6_is_one_origin() {
        let origin = |text: &str| origin(text.parse().unwrap()).to_string();
        assert_eq!(origin("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(origin("::ffff:10.0.0.7"), "10.0.0.7");
        assert_eq!(origin("10.0.0.7"), "10.0.0.7");
    }

    #[test]
    fn the_relay_keeps_the_descriptors_that_it_needs() {
        let mut config = Config::default();
        let within = |number, config: &Config| Limits::within(number, 24, config);
        let many = within(1_048_576, &config).unwrap();
        assert_eq!((many.connected, many.waiting), (100_000, 4096));
        assert_eq!(many.connected_per_address, 50_000);
        let few = within(1024, &config).unwrap();
        assert_eq!((few.connected, few.waiting), (693, 231));
        let few = TooFew {
            descriptors: 64,
            needed: 132,
        };
        assert_eq!(within(64, &config), Err(few));
        config.connections_per_address_max = Some(7);
        assert_eq!(within(1024, &config).unwrap().connected_per_address, 7);
    }
}
