//! The addresses of servers, looked up as rarely as possible: [`Dns`].
//!
//! There is no portable way to look a name up that does not block, so a look-up has a thread, and a
//! resolver that hangs keeps it for a minute. So each name is looked up once at a time, an answer is used
//! for a while, and the last good one stands in while the resolver does not answer, as RFC 8767
//! describes. Of several addresses, the one that worked comes first.

use std::{
    collections::HashMap,
    fmt, io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// What a look-up found.
pub(super) type Answer = Result<Vec<SocketAddr>, Arc<io::Error>>;

type Resolve = dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// The look-ups of a client. A clone shares them.
#[derive(Clone)]
pub(super) struct Dns {
    shared: Arc<Shared>,
}

/// What is known when a look-up is asked for.
pub(super) enum Lookup {
    /// The addresses, in the order in which they should be tried.
    Known(Vec<SocketAddr>),
    /// The answer will come. The last good one may be used after [`PATIENCE`].
    Pending {
        /// The last good one.
        fallback: Option<Vec<SocketAddr>>,
    },
}

impl Lookup {
    /// How long to wait for the answer, if one is pending.
    pub(super) fn patience(&self, limit: Duration) -> Option<Duration> {
        match self {
            Self::Known(_) => None,
            Self::Pending { fallback: Some(_) } => Some(limit.min(PATIENCE)),
            Self::Pending { fallback: None } => Some(limit),
        }
    }

    /// What to connect to; `None` if no answer came in time.
    pub(super) fn finish(self, answer: Option<Answer>) -> Option<io::Result<Vec<SocketAddr>>> {
        match (self, answer) {
            (Self::Known(addresses), _) | (Self::Pending { .. }, Some(Ok(addresses))) => {
                Some(Ok(addresses))
            }
            (
                Self::Pending {
                    fallback: Some(last),
                },
                _,
            ) => Some(Ok(last)),
            (Self::Pending { .. }, Some(Err(error))) => Some(Err(match error.raw_os_error() {
                Some(code) => io::Error::from_raw_os_error(code),
                None => io::Error::new(error.kind(), error),
            })),
            (Self::Pending { .. }, None) => None,
        }
    }
}

impl Dns {
    /// Asks the system.
    pub(super) fn system() -> Self {
        Self::new(|host, port| Ok((host, port).to_socket_addrs()?.collect()))
    }

    /// Asks a function, which may block.
    pub(super) fn new(
        resolve: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                resolve: Box::new(resolve),
                names: Mutex::default(),
            }),
        }
    }

    /// Looks a name up. If the answer is pending, `reply` gets it, on another thread.
    pub(super) fn look_up(
        &self,
        host: &str,
        port: u16,
        reply: impl FnOnce(Answer) + Send + 'static,
    ) -> Lookup {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Lookup::Known(vec![SocketAddr::new(address, port)]);
        }
        let key = (host.to_owned(), port);
        let (fallback, starts) = {
            let mut names = self.shared.lock();
            let name = names.entry(key.clone()).or_default();
            match name.begin(Instant::now()) {
                Begin::Use(addresses) => return Lookup::Known(addresses),
                Begin::Wait { fallback, starts } => {
                    name.waiting.push(Box::new(reply));
                    (fallback, starts)
                }
            }
        };
        if starts {
            let shared = Arc::clone(&self.shared);
            let of_thread = key.clone();
            let thread = thread::Builder::new().name("runner-http-dns".to_owned());
            let started = thread.spawn(move || {
                let answer = (shared.resolve)(&of_thread.0, of_thread.1);
                shared.complete(&of_thread, answer);
            });
            if let Err(error) = started {
                self.shared.complete(&key, Err(error));
            }
        }
        Lookup::Pending { fallback }
    }

    /// A connection to this address was made. It is tried first from now on.
    pub(super) fn worked(&self, host: &str, port: u16, address: SocketAddr) {
        if let Some(name) = self.shared.lock().get_mut(&(host.to_owned(), port)) {
            name.worked = Some(address);
        }
    }

    /// No address could be connected to. The next look-up does not rely on the answer that is known.
    pub(super) fn failed(&self, host: &str, port: u16) {
        if let Some(name) = self.shared.lock().get_mut(&(host.to_owned(), port)) {
            name.is_suspect = true;
        }
    }
}

impl fmt::Debug for Dns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dns").finish_non_exhaustive()
    }
}

struct Shared {
    resolve: Box<Resolve>,
    names: Mutex<HashMap<(String, u16), Name>>,
}

impl Shared {
    fn complete(&self, key: &(String, u16), answer: io::Result<Vec<SocketAddr>>) {
        let (waiting, answer) = {
            let mut names = self.lock();
            let name = names.entry(key.clone()).or_default();
            let answer = name.complete(answer, Instant::now());
            (std::mem::take(&mut name.waiting), answer)
        };
        for reply in waiting {
            reply(answer.clone());
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(String, u16), Name>> {
        // What it guards is whole at any time.
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One name and port.
#[derive(Default)]
struct Name {
    /// The last good answer, and when it came.
    known: Option<(Vec<SocketAddr>, Instant)>,
    /// Connecting to what is known failed.
    is_suspect: bool,
    /// The address that was connected to last.
    worked: Option<SocketAddr>,
    /// When the last look-up failed, if that was after the good answer.
    failed: Option<Instant>,
    /// Since when a look-up runs.
    running: Option<Instant>,
    waiting: Vec<Box<dyn FnOnce(Answer) + Send>>,
}

enum Begin {
    Use(Vec<SocketAddr>),
    Wait {
        fallback: Option<Vec<SocketAddr>>,
        starts: bool,
    },
}

impl Name {
    fn begin(&mut self, now: Instant) -> Begin {
        let since = |then: Instant| now.saturating_duration_since(then);
        let known = self.known.as_ref().filter(|(_, at)| since(*at) < STALE);
        if let Some((addresses, at)) = known {
            let is_fresh = since(*at) < FRESH && !self.is_suspect;
            let is_down = self.failed.is_some_and(|at| since(at) < RECHECK)
                || self.running.is_some_and(|at| since(at) >= PATIENCE);
            if is_fresh || is_down {
                return Begin::Use(order(addresses.clone(), self.worked));
            }
        }
        let fallback = known.map(|(addresses, _)| order(addresses.clone(), self.worked));
        let starts = self.running.is_none();
        self.running.get_or_insert(now);
        Begin::Wait { fallback, starts }
    }

    fn complete(&mut self, answer: io::Result<Vec<SocketAddr>>, now: Instant) -> Answer {
        self.running = None;
        match answer {
            Ok(addresses) if !addresses.is_empty() => {
                self.known = Some((addresses.clone(), now));
                self.is_suspect = false;
                self.failed = None;
                Ok(order(addresses, self.worked))
            }
            Ok(_) => {
                self.failed = Some(now);
                Err(Arc::new(io::ErrorKind::NotFound.into()))
            }
            Err(error) => {
                self.failed = Some(now);
                Err(Arc::new(error))
            }
        }
    }
}

/// The address that worked comes first. Behind it, families take turns, beginning with the one that
/// worked, or else with that of the first address, as RFC 8305 describes.
fn order(addresses: Vec<SocketAddr>, worked: Option<SocketAddr>) -> Vec<SocketAddr> {
    let known = worked.filter(|worked| addresses.contains(worked));
    let Some(first) = worked.or_else(|| addresses.first().copied()) else {
        return addresses;
    };
    let rest = addresses
        .into_iter()
        .filter(|address| Some(*address) != known);
    let (mut same, mut other): (Vec<_>, Vec<_>) =
        rest.partition(|address| address.is_ipv4() == first.is_ipv4());
    same.reverse();
    other.reverse();
    let mut ordered = Vec::from_iter(known);
    let mut is_same = known.is_none();
    while !(same.is_empty() && other.is_empty()) {
        let turn = if is_same { &mut same } else { &mut other };
        ordered.extend(turn.pop());
        is_same = !is_same;
    }
    ordered
}

/// How long an address that does not answer keeps the next one from being tried, as RFC 8305
/// recommends.
pub(super) const STAGGER: Duration = Duration::from_millis(250);

/// How long an answer is used without asking again. The names of the Bot API are kept for minutes by
/// resolvers.
const FRESH: Duration = Duration::from_secs(30);

/// How long the last good answer may stand in for one that does not come: RFC 8767 recommends one to
/// three days.
const STALE: Duration = Duration::from_secs(24 * 3600);

/// How long to wait for an answer if the last good one can stand in, as RFC 8767 recommends.
const PATIENCE: Duration = Duration::from_millis(1800);

/// How long after a failed look-up the last good answer is used without asking again, as RFC 8767
/// recommends.
const RECHECK: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn used(name: &mut Name, now: Instant) -> Option<Vec<SocketAddr>> {
        match name.begin(now) {
            Begin::Use(addresses) => Some(addresses),
            Begin::Wait { .. } => None,
        }
    }

    fn fails() -> io::Result<Vec<SocketAddr>> {
        Err(io::ErrorKind::TimedOut.into())
    }

    #[test]
    fn an_answer_is_used_for_a_while() {
        let one = vec![address("127.0.0.1:80")];
        let mut name = Name::default();
        let now = Instant::now();
        let starts = |begin| match begin {
            Begin::Wait { fallback, starts } => (fallback, starts),
            Begin::Use(_) => panic!("nothing is known"),
        };
        assert_eq!(starts(name.begin(now)), (None, true));
        assert_eq!(starts(name.begin(now)), (None, false), "one at a time");
        assert_eq!(name.complete(Ok(one.clone()), now).unwrap(), one);
        assert_eq!(used(&mut name, now + FRESH - SECOND), Some(one.clone()));
        assert_eq!(starts(name.begin(now + FRESH)), (Some(one.clone()), true));
        // It hangs.
        assert_eq!(used(&mut name, now + FRESH + PATIENCE), Some(one));
    }

    #[test]
    fn the_last_good_answer_stands_in_while_the_resolver_fails() {
        let one = vec![address("127.0.0.1:80")];
        let mut name = Name::default();
        let now = Instant::now();
        name.complete(Ok(one.clone()), now).unwrap();
        let later = now + FRESH;
        assert_eq!(used(&mut name, later), None);
        name.complete(fails(), later).unwrap_err();
        assert_eq!(used(&mut name, later), Some(one.clone()));
        assert_eq!(used(&mut name, later + RECHECK), None, "it is asked again");
        name.complete(fails(), now + STALE).unwrap_err();
        let Begin::Wait { fallback, .. } = name.begin(now + STALE) else {
            panic!("it is too old");
        };
        assert_eq!(fallback, None);
        // An empty answer is none.
        name.complete(Ok(Vec::new()), now).unwrap_err();
    }

    #[test]
    fn after_a_failed_connect_the_resolver_is_asked_again() {
        let one = vec![address("127.0.0.1:80")];
        let mut name = Name::default();
        let now = Instant::now();
        name.complete(Ok(one.clone()), now).unwrap();
        name.is_suspect = true;
        assert_eq!(used(&mut name, now), None);
        name.complete(Ok(one.clone()), now).unwrap();
        assert_eq!(used(&mut name, now), Some(one));
    }

    #[test]
    fn families_take_turns_behind_the_address_that_worked() {
        let all = [
            "[::1]:80",
            "[::2]:80",
            "[::3]:80",
            "127.0.0.1:80",
            "127.0.0.2:80",
        ];
        let addresses = all.map(address).to_vec();
        for (worked, expected) in [
            (None, [0, 3, 1, 4, 2]),
            (Some(all[4]), [4, 0, 3, 1, 2]),
            (Some(all[1]), [1, 3, 0, 4, 2]),
            // Its family still counts.
            (Some("127.0.0.9:80"), [3, 0, 4, 1, 2]),
        ] {
            let ordered = order(addresses.clone(), worked.map(address));
            assert_eq!(ordered, expected.map(|at| addresses[at]), "{worked:?}");
        }
        assert!(order(Vec::new(), None).is_empty());
    }

    #[test]
    fn many_look_ups_of_a_name_at_once_are_one() {
        let (go, gone) = mpsc::channel::<()>();
        let gone = Mutex::new(gone);
        let asked = Arc::new(Mutex::new(0));
        let dns = Dns::new({
            let asked = Arc::clone(&asked);
            move |_, port| {
                *asked.lock().unwrap() += 1;
                gone.lock().unwrap().recv().unwrap();
                Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))])
            }
        });
        let (sender, answers) = mpsc::channel();
        for _ in 0..100 {
            let sender = sender.clone();
            let lookup = dns.look_up("bot.test", 80, move |answer| {
                let _ = sender.send(answer.unwrap());
            });
            assert!(matches!(lookup, Lookup::Pending { fallback: None }));
        }
        go.send(()).unwrap();
        for _ in 0..100 {
            assert_eq!(answers.recv().unwrap(), [address("127.0.0.1:80")]);
        }
        let again = dns.look_up("bot.test", 80, |_| panic!("it is known"));
        assert!(matches!(again, Lookup::Known(_)));
        assert_eq!(*asked.lock().unwrap(), 1);
        let literal = dns.look_up("127.0.0.1", 80, |_| panic!("it is known"));
        assert!(matches!(literal, Lookup::Known(_)));
    }
}
