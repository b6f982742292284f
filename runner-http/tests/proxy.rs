//! Both clients through real proxies, and what of the environment counts.

mod proxy_programs;

use std::{
    env,
    error::Error,
    io::{Read, Write},
    net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream},
    process::Command,
    sync::Arc,
    thread,
};

use async_io::block_on;
use proxy_programs::{PASSWORD, Program, USER};
use runner_http::{
    BotApi, ClientOptions, HttpClient, HttpError, HttpErrorKind, HttpRequest, HyperClient, Lane,
    Proxy, UreqClient,
};
use runner_testkit::LocalServer;
use rustls::{ServerConfig, ServerConnection, StreamOwned, crypto::ring, pki_types::PrivateKeyDer};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
const TOKEN: &str = "123456789:AAHproxyTokenThatMustNotBeSeen";

/// Answers every request over TLS, as `localhost`. Which address that is depends on the resolver of the
/// proxy, so it listens on both.
struct Server {
    port: u16,
    certificate: Vec<u8>,
}

impl Server {
    fn start() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let other = TcpListener::bind((Ipv6Addr::LOCALHOST, port));
        for listener in [Some(listener), other.ok()].into_iter().flatten() {
            let config = Arc::clone(&config);
            thread::spawn(move || {
                for stream in listener.incoming() {
                    let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
                    let stream = StreamOwned::new(connection, stream.unwrap());
                    thread::spawn(move || serve(stream));
                }
            });
        }
        Self {
            port,
            certificate: made.cert.der().to_vec(),
        }
    }

    fn request(&self, lane: Lane) -> HttpRequest {
        let url = format!("https://localhost:{}/bot{TOKEN}/getMe", self.port);
        let mut request = HttpRequest::new(url, "{}");
        request.lane = lane;
        request
    }

    /// Trusts it, and uses this proxy.
    fn through(&self, proxy: Proxy) -> ClientOptions {
        let options = ClientOptions::default().root_certificates([&self.certificate]);
        options.unwrap().proxy(proxy)
    }
}

fn serve(mut stream: StreamOwned<ServerConnection, TcpStream>) {
    let mut pending = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        pending.extend_from_slice(&buffer[..read]);
        // The body of every request here ends like this, and nothing else does.
        if pending.ends_with(b"\r\n\r\n{}") {
            pending.clear();
            if stream.write_all(OK).is_err() {
                return;
            }
        }
    }
}

/// Everything that the error says, without secrets.
fn shown(error: &HttpError) -> String {
    let mut text = format!("{error:?}");
    let mut next: Option<&dyn Error> = Some(error);
    while let Some(error) = next {
        text += &format!(" | {error}");
        next = error.source();
    }
    for secret in [TOKEN, USER, PASSWORD, "wrong"] {
        assert!(!text.contains(secret), "{text}");
    }
    text
}

async fn check<C: HttpClient>(program: &Program, make: fn(ClientOptions) -> C) {
    // TLS to a name that the proxy resolves.
    let server = Server::start();
    let client = make(server.through(program.proxy()));
    for lane in [Lane::Call, Lane::Poll] {
        for _ in 0..5 {
            let response = client.send(server.request(lane)).await.unwrap();
            assert_eq!((response.status, &response.body[..]), (200, &b"{}"[..]));
        }
    }

    for proxy in [
        program.proxy_of(USER, "wrong"),
        program.proxy_of("wrong", PASSWORD),
        program.anonymous(),
    ] {
        let client = make(server.through(proxy));
        let error = client.send(server.request(Lane::Call)).await.unwrap_err();
        assert_eq!(error.kind(), HttpErrorKind::Connect);
        let text = shown(&error);
        assert!(text.contains("password"), "{text}");
    }

    // A server that is not there.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}/bot{TOKEN}/x", listener.local_addr().unwrap());
    drop(listener);
    let error = client.send(HttpRequest::new(url, "{}")).await.unwrap_err();
    assert_eq!(error.kind(), HttpErrorKind::Connect);
    assert!(shown(&error).contains("proxy"), "{error:?}");

    // A Bot API server of one's own, without TLS.
    let server = LocalServer::start().unwrap();
    let options = ClientOptions::default().proxy(program.proxy());
    let api = BotApi::with_client(server.token(), make(options)).unwrap();
    let api = api.base_url(server.url()).unwrap();
    assert_eq!(api.get_me().await.unwrap().id, server.bot_id());
    api.send_message(5, "through a proxy").await.unwrap();
    assert_eq!(server.calls_of("sendMessage").len(), 1);
}

#[test]
fn ureq_through_tinyproxy() {
    if let Some(program) = Program::tinyproxy() {
        block_on(check(&program, UreqClient::with_options));
    }
}

#[test]
fn hyper_through_tinyproxy() {
    if let Some(program) = Program::tinyproxy() {
        block_on(check(&program, HyperClient::with_options));
    }
}

#[test]
fn ureq_through_microsocks() {
    if let Some(program) = Program::microsocks() {
        block_on(check(&program, UreqClient::with_options));
    }
}

#[test]
fn hyper_through_microsocks() {
    if let Some(program) = Program::microsocks() {
        block_on(check(&program, HyperClient::with_options));
    }
}

async fn environment_counts_when_asked_for<C: HttpClient>(make: fn(ClientOptions) -> C, url: &str) {
    let request = || HttpRequest::new(url, "{}");
    let direct = make(ClientOptions::default());
    assert_eq!(direct.send(request()).await.unwrap().status, 200);

    let options = ClientOptions::default().proxy_from_env().unwrap();
    let error = make(options).send(request()).await.unwrap_err();
    assert!(shown(&error).contains("cannot connect to the proxy"));

    // The last call counts.
    let proxy = Proxy::parse("http://127.0.0.1:1").unwrap();
    let options = ClientOptions::default().proxy_from_env().unwrap();
    let text = format!("{:?}", options.proxy(proxy.clone()));
    assert!(text.contains("port: 1,"), "{text}");
    let options = ClientOptions::default().proxy(proxy).proxy_from_env();
    let text = format!("{:?}", options.unwrap());
    assert!(!text.contains("port: 1,"), "{text}");
}

/// In a process of its own, because the environment belongs to all of it.
#[test]
fn the_environment_counts_only_when_it_is_asked_for() {
    const URL: &str = "RUNNER_HTTP_TEST_URL";
    const NAME: &str = "the_environment_counts_only_when_it_is_asked_for";
    const VARIABLES: [&str; 8] = [
        "https_proxy",
        "HTTPS_PROXY",
        "http_proxy",
        "HTTP_PROXY",
        "all_proxy",
        "ALL_PROXY",
        "no_proxy",
        "NO_PROXY",
    ];

    if let Ok(url) = env::var(URL) {
        if env::var_os("NO_PROXY").is_some() {
            // Everything is direct, for the same request.
            let options = ClientOptions::default().proxy_from_env().unwrap();
            let client = UreqClient::with_options(options);
            let response = block_on(client.send(HttpRequest::new(url, "{}")));
            assert_eq!(response.unwrap().status, 200);
        } else {
            block_on(environment_counts_when_asked_for(
                UreqClient::with_options,
                &url,
            ));
            block_on(environment_counts_when_asked_for(
                HyperClient::with_options,
                &url,
            ));
        }
        return;
    }
    let server = LocalServer::start().unwrap();
    let url = format!("{}/bot{}/getMe", server.url(), server.token());
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let proxy = format!("http://{USER}:secret@{}", closed.local_addr().unwrap());
    drop(closed);
    for variables in [
        &[("ALL_PROXY", proxy.as_str())][..],
        &[("http_proxy", &proxy)],
        &[("http_proxy", &proxy), ("NO_PROXY", "127.0.0.1,::1")],
    ] {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", NAME, "--nocapture"]);
        for variable in VARIABLES {
            command.env_remove(variable);
        }
        command.envs(variables.iter().copied()).env(URL, &url);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let said = said + &String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && said.contains("1 passed"),
            "{variables:?}: {said}"
        );
    }
}
