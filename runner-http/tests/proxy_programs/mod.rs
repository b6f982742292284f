//! Real proxies, as the packages of a distribution install them, on ports that the system chose.

use std::{
    env, fs,
    io::{self, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use runner_http::Proxy;

pub(crate) const USER: &str = "somebody";
pub(crate) const PASSWORD: &str = "aPassw0rd";

/// A proxy that runs, and ends when it is dropped.
pub(crate) struct Program {
    child: Child,
    scheme: &'static str,
    port: u16,
    config: Option<PathBuf>,
}

impl Program {
    /// An HTTP proxy that demands [`USER`] and [`PASSWORD`]. `None` where it is not installed.
    pub(crate) fn tinyproxy() -> Option<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);

        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tinyproxy-{}-{number}.conf", std::process::id());
        let config = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        let mut program = Self::start("tinyproxy", "http", |port| {
            let text = format!(
                "Port {port}\nListen 127.0.0.1\nAllow 127.0.0.1\nMaxClients 1000\nTimeout 600\n\
                 LogLevel Critical\nBasicAuth {USER} {PASSWORD}\n"
            );
            fs::write(&config, text).unwrap();
            let mut command = Command::new("tinyproxy");
            command.arg("-d").arg("-c").arg(&config);
            command
        });
        match &mut program {
            Some(program) => program.config = Some(config),
            None => drop(fs::remove_file(config)),
        }
        program
    }

    /// A SOCKS5 proxy that demands the same.
    pub(crate) fn microsocks() -> Option<Self> {
        Self::start("microsocks", "socks5", |port| {
            let mut command = Command::new("microsocks");
            command.args(["-i", "127.0.0.1", "-u", USER, "-P", PASSWORD, "-p"]);
            command.arg(port.to_string());
            command
        })
    }

    fn start(name: &str, scheme: &'static str, command: impl Fn(u16) -> Command) -> Option<Self> {
        // Neither program can be asked which port it was given, so a free one may be taken by another
        // process before it starts: then it ends, and another port is tried.
        for _ in 0..10 {
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let port = free.local_addr().unwrap().port();
            drop(free);
            let mut command = command(port);
            command.stdin(Stdio::null()).stdout(Stdio::null());
            let child = match command.stderr(Stdio::null()).spawn() {
                Ok(child) => child,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    missing(name);
                    return None;
                }
                Err(error) => panic!("{name} does not start: {error}"),
            };
            let mut program = Self {
                child,
                scheme,
                port,
                config: None,
            };
            if program.is_ready() {
                return Some(program);
            }
        }
        panic!("{name} ends as soon as it is started");
    }

    /// Waits until it accepts connections. False if it has ended.
    fn is_ready(&mut self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.child.try_wait().unwrap().is_none() {
            if TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok() {
                return self.child.try_wait().unwrap().is_none();
            }
            assert!(Instant::now() < deadline, "{} never listens", self.scheme);
            thread::sleep(Duration::from_millis(5));
        }
        false
    }

    /// With the right credentials.
    pub(crate) fn proxy(&self) -> Proxy {
        self.proxy_of(USER, PASSWORD)
    }

    pub(crate) fn proxy_of(&self, user: &str, password: &str) -> Proxy {
        let (scheme, port) = (self.scheme, self.port);
        Proxy::parse(&format!("{scheme}://{user}:{password}@127.0.0.1:{port}")).unwrap()
    }

    /// Without credentials.
    #[allow(dead_code, reason = "not every test that includes this file needs it")]
    pub(crate) fn anonymous(&self) -> Proxy {
        Proxy::parse(&format!("{}://127.0.0.1:{}", self.scheme, self.port)).unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(config) = &self.config {
            let _ = fs::remove_file(config);
        }
    }
}

/// Says that a part of a test does not run, past the test runner, which shows only what fails.
fn missing(name: &str) {
    assert!(
        env::var_os("RUNNER_REQUIRE_PROXIES").is_none(),
        "{name} is not installed, and RUNNER_REQUIRE_PROXIES is set: run .ci/install"
    );
    let test = thread::current().name().unwrap_or_default().to_owned();
    let _ = writeln!(
        io::stderr(),
        "NOT RUN: {test}: {name} is not installed; .ci/install installs it"
    );
}
