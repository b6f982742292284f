//! What the suite cannot check without certificates: the clients over TLS.

use std::{
    error::Error,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use futures::future::{Either, select};
use runner_http::{
    ClientOptions, HttpClient, HttpErrorKind, HttpRequest, HyperClient, Lane, UreqClient,
};
use rustls::{ServerConfig, ServerConnection, StreamOwned, crypto::ring, pki_types::PrivateKeyDer};

/// Answers every request whose path ends in `answer`, and no other.
struct Server {
    port: u16,
    /// The same in DER and in PEM.
    certificate: Vec<u8>,
    pem: String,
    accepted: Arc<AtomicUsize>,
    requests: async_channel::Receiver<()>,
    closes: async_channel::Receiver<Instant>,
}

impl Server {
    fn start() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = made.cert.der().to_vec();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let accepted = Arc::new(AtomicUsize::new(0));
        let (requested, requests) = async_channel::unbounded();
        let (closed, closes) = async_channel::unbounded();
        let count = Arc::clone(&accepted);
        thread::spawn(move || {
            for stream in listener.incoming() {
                count.fetch_add(1, Ordering::SeqCst);
                let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut stream = StreamOwned::new(connection, stream.unwrap());
                let (requested, closed) = (requested.clone(), closed.clone());
                thread::spawn(move || {
                    serve(&mut stream, &requested);
                    let _ = closed.try_send(Instant::now());
                });
            }
        });
        Self {
            port,
            certificate,
            pem: pem(made.cert.der()),
            accepted,
            requests,
            closes,
        }
    }

    fn request(&self, host: &str, path: &str, lane: Lane) -> HttpRequest {
        let url = format!("https://{host}:{}/bot{SECRET}/{path}", self.port);
        let mut request = HttpRequest::new(url, "{}");
        request.lane = lane;
        request
    }
}

fn serve(
    stream: &mut StreamOwned<ServerConnection, TcpStream>,
    requested: &async_channel::Sender<()>,
) {
    let mut pending = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        pending.extend_from_slice(&buffer[..read]);
        // The body of every request here ends like this, and nothing else does.
        if pending.ends_with(b"\r\n\r\n{}") {
            let _ = requested.try_send(());
            let is_answered = String::from_utf8_lossy(&pending).contains("/answer HTTP/1.1\r\n");
            pending.clear();
            if is_answered && stream.write_all(OK.as_bytes()).is_err() {
                return;
            }
        }
    }
}

async fn check<C: HttpClient>(trusting: impl Fn(Vec<u8>) -> C, other: C) {
    let server = Server::start();
    let client = trusting(server.certificate.clone());

    for lane in [Lane::Call, Lane::Poll] {
        for _ in 0..10 {
            let request = server.request("localhost", "answer", lane);
            let response = client.send(request).await.unwrap();
            assert_eq!((response.status, &response.body[..]), (200, &b"{}"[..]));
            server.requests.recv().await.unwrap();
        }
    }
    assert_eq!(server.accepted.load(Ordering::SeqCst), 2, "kept alive");

    let mut cancels = Vec::new();
    for round in 0..100 {
        let lane = if round % 2 == 0 {
            Lane::Call
        } else {
            Lane::Poll
        };
        let sent = Box::pin(client.send(server.request("localhost", "silence", lane)));
        match select(sent, pin!(server.requests.recv())).await {
            Either::Left(_) => panic!("answered in silence"),
            Either::Right((_, sent)) => {
                let now = Instant::now();
                drop(sent);
                let closed = server.closes.recv().await.unwrap();
                cancels.push(closed.saturating_duration_since(now));
            }
        }
    }
    cancels.sort_unstable();
    let (median, max) = (cancels[50], cancels[99]);
    println!("{client:?}: cancelled in {median:?}, at most {max:?}");
    assert!(max < Duration::from_secs(1), "closed after {max:?}");

    // Nobody vouches for the certificate, or it is for another name.
    for (client, host) in [(&other, "localhost"), (&client, "127.0.0.1")] {
        let request = server.request(host, "answer", Lane::Call);
        let error = client.send(request).await.unwrap_err();
        assert_eq!(error.kind(), HttpErrorKind::Tls);
        assert!(!format!("{error} {error:?} {error:#?}").contains(SECRET));
    }
    assert!(server.requests.is_empty(), "a token was sent to a stranger");
}

#[test]
fn ureq_client_over_tls() {
    let trusting = |certificate| UreqClient::with_options(trusting_options([certificate]));
    async_io::block_on(check(trusting, UreqClient::new()));
}

#[test]
fn hyper_client_over_tls() {
    let trusting = |certificate| HyperClient::with_options(trusting_options([certificate]));
    async_io::block_on(check(trusting, HyperClient::new()));
}

#[test]
fn hyper_client_over_tls_inside_tokio() {
    let trusting = |certificate| HyperClient::with_options(trusting_options([certificate]));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    runtime.block_on(check(trusting, HyperClient::new()));
}

fn pem(der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text: Vec<u8> = Vec::new();
    for bytes in der.chunks(3) {
        let group = [0, 1, 2].map(|at| usize::from(*bytes.get(at).unwrap_or(&0)));
        let bits = group[0] << 16 | group[1] << 8 | group[2];
        let digits = [18, 12, 6, 0].map(|shift| DIGITS[bits >> shift & 63]);
        text.extend(&digits[..=bytes.len()]);
        text.extend(&b"=="[..3 - bytes.len()]);
    }
    let lines: Vec<_> = text.chunks(64).map(String::from_utf8_lossy).collect();
    format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        lines.join("\n")
    )
}

fn trusting_options(files: impl IntoIterator<Item = impl AsRef<[u8]>>) -> ClientOptions {
    let options = ClientOptions::default().root_certificates(files);
    options.unwrap()
}

#[test]
fn certificates_are_taken_as_pem_too() {
    async_io::block_on(async {
        let (server, other) = (Server::start(), Server::start());
        let bundle = format!("# Of a company.\n{}\n{}", other.pem, server.pem);
        let options = trusting_options([bundle]);
        let request = || server.request("localhost", "answer", Lane::Call);
        let ureq = UreqClient::with_options(options.clone());
        assert_eq!(ureq.send(request()).await.unwrap().status, 200);
        let hyper = HyperClient::with_options(options);
        assert_eq!(hyper.send(request()).await.unwrap().status, 200);
    });
}

#[test]
fn what_is_no_certificate_is_refused_with_its_place() {
    let server = Server::start();
    let refused = |files: &[&[u8]]| {
        let error = ClientOptions::default()
            .root_certificates(files)
            .unwrap_err();
        assert!(error.source().is_some());
        error.to_string()
    };
    let good = &server.certificate[..];
    assert!(refused(&[good, b"nonsense"]).starts_with("root certificate 2 "));
    assert!(refused(&[&good[..100], good]).starts_with("root certificate 1 "));
    assert!(refused(&[b""]).starts_with("root certificate 1 "));
    assert!(
        refused(&[b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
            .contains("BEGIN CERTIFICATE")
    );
    let broken = server.pem.replace("MII", "MIA");
    assert!(
        refused(&[server.pem.as_bytes(), broken.as_bytes()]).starts_with("root certificate 2 ")
    );
    assert!(refused(&[]).starts_with("the list of root certificates "));
}

#[cfg(feature = "native-certs")]
#[test]
fn the_roots_of_the_system_are_read_or_missed() {
    // Which it is depends on the machine.
    match ClientOptions::default().system_roots() {
        Ok(options) => drop(UreqClient::with_options(options)),
        Err(error) => assert!(error.to_string().contains("system"), "{error}"),
    }
}

const SECRET: &str = "123456789:AAHconformanceTokenThatMustNotBeSeen";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
