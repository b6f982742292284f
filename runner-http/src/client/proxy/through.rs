//! Tests of both clients through proxies that do what a test says.

use std::{
    env::VarError,
    error::Error,
    io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{
    FutureExt,
    future::{Either, join_all, select},
};

use super::{Environment, Proxy, ProxyFailure, Route};
use crate::{
    client::{
        ClientOptions, HttpClient, HttpError, HttpErrorKind, HttpRequest, HyperClient, Lane,
        UreqClient, dns::Dns,
    },
    testing::{
        park_on,
        peer::{Connection, Crowd, Peer},
    },
};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
const CONNECTED: &[u8] = b"HTTP/1.1 200 Connection established\r\nVia: a\r\n\r\n";
const SECRET: &str = "passwordThatMustNotBeSeen";

/// A name that no resolver knows, by RFC 6761.
const HOST: &str = "bot.invalid";

fn request(lane: Lane) -> HttpRequest {
    let mut request = HttpRequest::new(format!("http://{HOST}:8081/bot1:x/getMe"), "{}");
    request.lane = lane;
    // Longer than a test takes on a busy machine.
    request.limits.connect = Duration::from_secs(60);
    request
}

fn options(scheme: &str) -> ClientOptions {
    let proxy = Proxy::parse(&format!("{scheme}://user:{SECRET}@proxy.test:1"));
    ClientOptions::default().proxy(proxy.unwrap())
}

/// Knows the proxy only. Lists what it was asked for.
fn dns(proxy: SocketAddr) -> (Dns, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let list = Arc::clone(&asked);
    let dns = Dns::new(move |host, port| {
        list.lock().unwrap().push(format!("{host}:{port}"));
        match host {
            "proxy.test" => Ok(vec![proxy]),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    });
    (dns, asked)
}

/// The proxy is the server as well.
fn serve(connection: &mut Connection<'_>) -> io::Result<()> {
    while let Some(request) = connection.read_request()? {
        assert!(request.head.starts_with("POST /bot1:x/getMe HTTP/1.1\r\n"));
        assert!(!request.head.contains("roxy"), "meant for the proxy");
        connection.write(OK.as_bytes())?;
    }
    Ok(())
}

fn http_proxy() -> Peer {
    Peer::start(|connection| {
        let Some(request) = connection.read_request()? else {
            return Ok(());
        };
        let line = format!("CONNECT {HOST}:8081 HTTP/1.1\r\n");
        assert!(request.head.starts_with(&line), "{}", request.head);
        assert!(request.head.contains("\r\nProxy-Authorization: Basic "));
        connection.write(CONNECTED)?;
        serve(connection)
    })
}

fn socks_proxy() -> Peer {
    Peer::start(|connection| {
        let Some(greeting) = connection.read_bytes(4)? else {
            return Ok(());
        };
        assert_eq!(greeting, [5, 2, 0, 2]);
        connection.write(&[5, 2])?;
        let login = connection.read_bytes(3 + 4 + SECRET.len())?.unwrap();
        assert!(login.ends_with(SECRET.as_bytes()));
        connection.write(&[1, 0])?;
        let asked = connection.read_bytes(7 + HOST.len())?.unwrap();
        assert_eq!(asked[..5], [5, 1, 0, 3, 11]);
        assert_eq!(asked[5..16], *HOST.as_bytes());
        assert_eq!(asked[16..], 8081_u16.to_be_bytes());
        connection.write(&[5, 0, 0, 3, 1, b'x', 0, 80])?;
        serve(connection)
    })
}

type Make<C> = fn(ClientOptions, Dns) -> C;

async fn the_proxy_resolves_the_name_and_connections_are_kept<C: HttpClient>(make: Make<C>) {
    for (scheme, proxy) in [("http", http_proxy()), ("socks5", socks_proxy())] {
        let (dns, asked) = dns(proxy.address());
        let client = make(options(scheme), dns);
        for lane in [Lane::Call, Lane::Poll] {
            for _ in 0..20 {
                let response = client.send(request(lane)).await.unwrap();
                assert_eq!((response.status, &response.body[..]), (200, &b"{}"[..]));
            }
        }
        assert_eq!(proxy.accepted(), 2);
        assert_eq!(*asked.lock().unwrap(), ["proxy.test:1"]);
    }
}

/// Everything that the error says. It must not contain the credentials.
fn shown(error: &HttpError) -> String {
    let mut text = format!("{error:?}");
    let mut next: Option<&dyn Error> = Some(error);
    while let Some(error) = next {
        text += &format!(" | {error}");
        next = error.source();
    }
    assert!(!text.contains(SECRET) && !text.contains("Basic"), "{text}");
    text
}

async fn a_proxy_that_refuses_or_fails_is_reported<C: HttpClient>(make: Make<C>) {
    for (scheme, answer, expected) in [
        ("http", &b"HTTP/1.1 407 x\r\n\r\n"[..], "refused the user"),
        ("http", b"HTTP/1.1 403 Filtered\r\n\r\n<html>", "status 403"),
        ("http", b"\x05\xff", "socks5://"),
        ("http", b"", "proxy closed"),
        ("http", b"HTTP/1.1 200 OK\r\nVia: a\r\n", "proxy closed"),
        ("socks5", b"", "proxy closed"),
        ("socks5", &[5], "proxy closed"),
        ("socks5", &[5, 0xff], "refused the user"),
        ("socks5", &[5, 2, 1, 1], "refused the user"),
        ("socks5", &[5, 2, 1, 0, 5, 2, 0, 1], "rules"),
        ("socks5", &[5, 2, 1, 0, 5, 5, 0, 1], "server refused"),
        ("socks5", &[5, 2, 1, 0, 5, 0, 0, 1, 0], "proxy closed"),
        ("socks5", b"HTTP/1.1 400 x\r\n\r\n", "http://"),
    ] {
        let proxy = Peer::start(move |connection| {
            connection.wait_for_bytes()?;
            connection.write(answer)?;
            connection.close_write()?;
            connection.wait_for_close();
            Ok(())
        });
        let client = make(options(scheme), dns(proxy.address()).0);
        for lane in [Lane::Call, Lane::Poll] {
            let error = client.send(request(lane)).await.unwrap_err();
            assert_eq!(error.kind(), HttpErrorKind::Connect);
            assert!(!error.may_have_been_sent());
            let text = shown(&error);
            assert!(text.contains(expected), "{text}");
        }
        assert!(!format!("{client:?} {client:#?}").contains(SECRET));
    }
}

async fn a_name_that_socks_cannot_carry_is_reported<C: HttpClient>(make: Make<C>) {
    let proxy = Peer::start(|connection| {
        connection.read_bytes(4)?;
        connection.write(&[5, 0])?;
        connection.wait_for_close();
        Ok(())
    });
    let client = make(options("socks5"), dns(proxy.address()).0);
    let mut request = request(Lane::Call);
    request.url = format!("http://{}/bot1:x/getMe", "x".repeat(256));
    let error = client.send(request).await.unwrap_err();
    assert!(shown(&error).contains("255"), "{error:?}");
}

async fn a_proxy_that_hangs_costs_the_limit_of_connecting<C: HttpClient>(make: Make<C>) {
    for (scheme, answer) in [
        ("http", &b""[..]),
        ("http", b"HTTP/1.1 200 OK\r\nVia: a\r\n"),
        ("socks5", &[5, 2, 1]),
    ] {
        let proxy = Peer::start(move |connection| {
            connection.write(answer)?;
            connection.wait_for_close();
            Ok(())
        });
        let client = make(options(scheme), dns(proxy.address()).0);
        let mut request = request(Lane::Call);
        request.limits.connect = Duration::from_millis(200);
        let error = client.send(request).await.unwrap_err();
        assert_eq!(error.kind(), HttpErrorKind::ConnectTimeout);
        assert!(shown(&error).contains("proxy"), "{error:?}");
        proxy.closed().await;
    }
    let Some(crowd) = Crowd::gather() else { return };
    let client = make(options("http"), dns(crowd.address()).0);
    let mut request = request(Lane::Call);
    request.limits.connect = Duration::from_millis(200);
    let error = client.send(request).await.unwrap_err();
    assert_eq!(error.kind(), HttpErrorKind::ConnectTimeout);
    assert!(shown(&error).contains("proxy"), "{error:?}");
}

async fn an_answer_that_trickles_costs_no_more_than_the_limit<C: HttpClient>(make: Make<C>) {
    let proxy = Peer::start(|connection| {
        connection.write(b"HTTP/1.1 200 OK\r\nVia: ")?;
        // Long after the limit.
        for _ in 0..500 {
            connection.write(b"a")?;
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    });
    let client = make(options("http"), dns(proxy.address()).0);
    let mut request = request(Lane::Call);
    request.limits.connect = Duration::from_millis(200);
    let error = client.send(request).await.unwrap_err();
    assert_eq!(error.kind(), HttpErrorKind::ConnectTimeout);
    shown(&error);
}

async fn a_cancel_ends_a_handshake<C: HttpClient>(make: Make<C>) {
    let proxy = Peer::silent();
    let client = make(options("http"), dns(proxy.address()).0);
    for lane in [Lane::Call, Lane::Poll] {
        let sent = client.send(request(lane)).boxed();
        match select(sent, proxy.requested().boxed()).await {
            Either::Left(_) => panic!("nothing was answered"),
            Either::Right((_, sent)) => drop(sent),
        }
        proxy.closed().await;
    }
}

async fn a_proxy_that_is_not_there_is_reported<C: HttpClient>(make: Make<C>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let client = make(options("http"), dns(address).0);
    let error = client.send(request(Lane::Call)).await.unwrap_err();
    assert_eq!(error.kind(), HttpErrorKind::Connect);
    assert!(shown(&error).contains("cannot connect to the proxy"));

    let unknown = Dns::new(|_, _| Err(io::Error::new(io::ErrorKind::NotFound, "no such name")));
    let client = make(options("socks5"), unknown);
    let error = client.send(request(Lane::Call)).await.unwrap_err();
    assert_eq!(error.kind(), HttpErrorKind::Connect);
    let text = shown(&error);
    assert!(
        text.contains("to the proxy") && text.contains("no such name"),
        "{text}"
    );
}

async fn the_environment_decides_for_each_server<C: HttpClient>(make: Make<C>) {
    let proxy = Peer::start(|connection| {
        connection.read_request()?;
        connection.write(CONNECTED)?;
        serve(connection)
    });
    let direct = Peer::answering(OK);
    let environment = Environment::read(|name| match name {
        "http_proxy" => Ok("http://proxy.test:1".to_owned()),
        "NO_PROXY" => Ok("127.0.0.1".to_owned()),
        _ => Err(VarError::NotPresent),
    });
    let options = ClientOptions {
        route: Route::Environment(Arc::new(environment.unwrap())),
        ..ClientOptions::default()
    };
    let client = make(options, dns(proxy.address()).0);
    for _ in 0..3 {
        client.send(request(Lane::Call)).await.unwrap();
        let request = HttpRequest::new(direct.url("/bot1:x/getMe"), "{}");
        client.send(request).await.unwrap();
    }
    assert_eq!((proxy.accepted(), proxy.requests()), (1, 4));
    assert_eq!((direct.accepted(), direct.requests()), (1, 3));
}

async fn a_burst_goes_through<C: HttpClient>(make: Make<C>) {
    let proxy = http_proxy();
    let client = make(options("http"), dns(proxy.address()).0);
    let answers = join_all((0..100).map(|_| client.send(request(Lane::Call))));
    assert!(answers.await.iter().all(Result::is_ok));
}

#[test]
fn that_descriptors_ran_out_is_seen_behind_the_proxy() {
    let error = io::Error::from_raw_os_error(24);
    let error = ProxyFailure::Unreachable(Some(error)).into_error();
    assert!(error.is_out_of_descriptors());
    let error = ProxyFailure::Unreachable(None).into_error();
    assert!(!error.is_out_of_descriptors());
}

macro_rules! both {
    ($($test:ident)*) => {
        mod ureq {
            $(#[test]
            fn $test() {
                super::park_on(Box::pin(super::$test(super::UreqClient::with_dns)));
            })*
        }

        mod hyper {
            $(#[test]
            fn $test() {
                super::park_on(Box::pin(super::$test(super::HyperClient::with_dns)));
            })*
        }
    };
}

both! {
    the_proxy_resolves_the_name_and_connections_are_kept
    a_proxy_that_refuses_or_fails_is_reported
    a_name_that_socks_cannot_carry_is_reported
    a_proxy_that_hangs_costs_the_limit_of_connecting
    an_answer_that_trickles_costs_no_more_than_the_limit
    a_cancel_ends_a_handshake
    a_proxy_that_is_not_there_is_reported
    the_environment_decides_for_each_server
    a_burst_goes_through
}
