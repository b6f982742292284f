//! What is an answer, and what arrives of it.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};

use super::{JSON, LANES, Lab, PATH, answer, call, cases, limited, ok, to};
use crate::{
    client::{HttpClient, HttpErrorKind},
    testing::peer::Peer,
};

cases![
    every_status_is_an_answer,
    keeps_retry_after,
    follows_no_redirect,
    an_empty_body,
    a_large_body,
    a_chunked_body,
    a_body_that_ends_with_the_connection,
    truncated_json_is_a_whole_body,
    decodes_gzip,
    decodes_gzip_whatever_its_name,
    an_empty_body_marked_as_gzip,
    refuses_broken_gzip,
    refuses_a_body_that_is_too_large,
    refuses_a_gzip_bomb,
];

async fn every_status_is_an_answer<C: HttpClient>(lab: &Lab<'_, C>) {
    let client = lab.client();
    for (status, body) in [
        (400, r#"{"ok":false,"error_code":400}"#),
        (401, r#"{"ok":false,"error_code":401}"#),
        (404, r#"{"ok":false,"error_code":404}"#),
        (409, r#"{"ok":false,"error_code":409}"#),
        (500, r#"{"ok":false,"error_code":500}"#),
        (502, "<html><h1>502 Bad Gateway</h1></html>"),
        (504, "<html></html>"),
    ] {
        let peer = Peer::answering(answer(&format!("{status} As It Is"), "", body));
        for lane in LANES {
            let response = lab.answer(&client, to(peer.url(PATH), lane)).await;
            assert_eq!(response.status, status);
            assert_eq!(&response.body[..], body.as_bytes());
        }
        assert_eq!(peer.accepted(), 2, "a status closed a connection");
    }
}

async fn keeps_retry_after<C: HttpClient>(lab: &Lab<'_, C>) {
    let body = r#"{"ok":false,"error_code":429,"parameters":{"retry_after":7}}"#;
    let peer = Peer::answering(answer("429 Too Many Requests", "Retry-After: 7\r\n", body));
    let response = lab.answer(&lab.client(), call(&peer)).await;
    assert_eq!(response.status, 429);
    assert_eq!(response.retry_after.as_deref(), Some("7"));
    assert_eq!(&response.body[..], body.as_bytes());
}

async fn follows_no_redirect<C: HttpClient>(lab: &Lab<'_, C>) {
    let target = Peer::answering(ok(JSON));
    let client = lab.client();
    for status in [301, 302, 303, 307, 308] {
        for body in ["", "<html>elsewhere</html>"] {
            let location = format!("Location: {}\r\n", target.url(PATH));
            let peer = Peer::answering(answer(&format!("{status} Elsewhere"), &location, body));
            let response = lab.answer(&client, call(&peer)).await;
            assert_eq!(response.status, status);
            assert_eq!(&response.body[..], body.as_bytes());
        }
    }
    assert_eq!(target.accepted(), 0, "a redirect was followed");
}

async fn an_empty_body<C: HttpClient>(lab: &Lab<'_, C>) {
    let client = lab.client();
    for answer in [ok(""), b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()] {
        let peer = Peer::answering(answer);
        for _ in 0..2 {
            let response = lab.answer(&client, call(&peer)).await;
            assert!(response.body.is_empty());
        }
        assert_eq!(peer.accepted(), 1);
    }
}

async fn a_large_body<C: HttpClient>(lab: &Lab<'_, C>) {
    let body: Vec<u8> = (0..4_u32 << 20).map(|i| (i % 251) as u8).collect();
    let peer = Peer::answering(ok(&body));
    let client = lab.client();
    for lane in LANES {
        let response = lab.answer(&client, to(peer.url(PATH), lane)).await;
        assert!(response.body == body, "the body is another");
    }
}

async fn a_chunked_body<C: HttpClient>(lab: &Lab<'_, C>) {
    let peer = Peer::answering(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n{\"ok\":\r\n5\r\ntrue}\r\n0\r\n\r\n",
    );
    let client = lab.client();
    for _ in 0..2 {
        let response = lab.answer(&client, call(&peer)).await;
        assert_eq!(&response.body[..], br#"{"ok":true}"#);
    }
    assert_eq!(peer.accepted(), 1);
}

async fn a_body_that_ends_with_the_connection<C: HttpClient>(lab: &Lab<'_, C>) {
    let peer = Peer::start(|connection| {
        connection.read_request()?;
        connection.write(format!("HTTP/1.1 200 OK\r\n\r\n{JSON}").as_bytes())
    });
    let response = lab.answer(&lab.client(), call(&peer)).await;
    assert_eq!(&response.body[..], JSON.as_bytes());
}

async fn truncated_json_is_a_whole_body<C: HttpClient>(lab: &Lab<'_, C>) {
    let peer = Peer::answering(ok(r#"{"ok":true,"result":[{"upd"#));
    let response = lab.answer(&lab.client(), call(&peer)).await;
    assert_eq!(&response.body[..], br#"{"ok":true,"result":[{"upd"#);
}

async fn decodes_gzip<C: HttpClient>(lab: &Lab<'_, C>) {
    let peer = Peer::answering(gzipped(&gzip(JSON.as_bytes())));
    let client = lab.client();
    for _ in 0..2 {
        let response = lab.answer(&client, call(&peer)).await;
        assert_eq!(&response.body[..], JSON.as_bytes());
    }
    assert_eq!(peer.accepted(), 1);
}

async fn decodes_gzip_whatever_its_name<C: HttpClient>(lab: &Lab<'_, C>) {
    let client = lab.client();
    for name in ["GZIP", "x-gzip", " gzip ", "identity, Gzip"] {
        let header = format!("Content-Encoding: {name}\r\n");
        let peer = Peer::answering(answer("200 OK", &header, gzip(JSON.as_bytes())));
        let response = lab.answer(&client, call(&peer)).await;
        assert_eq!(&response.body[..], JSON.as_bytes(), "{name}");
    }
    for name in ["identity", "IDENTITY", ""] {
        let header = format!("Content-Encoding: {name}\r\n");
        let peer = Peer::answering(answer("200 OK", &header, JSON));
        let response = lab.answer(&client, call(&peer)).await;
        assert_eq!(&response.body[..], JSON.as_bytes(), "{name}");
    }
}

/// As proxies mark the pages of others.
async fn an_empty_body_marked_as_gzip<C: HttpClient>(lab: &Lab<'_, C>) {
    let client = lab.client();
    for status in ["429 Too Many Requests", "502 Bad Gateway"] {
        let peer = Peer::answering(answer(
            status,
            "Content-Encoding: gzip\r\nRetry-After: 7\r\n",
            "",
        ));
        for lane in LANES {
            let response = lab.answer(&client, to(peer.url(PATH), lane)).await;
            assert!(status.starts_with(&response.status.to_string()));
            assert_eq!(response.retry_after.as_deref(), Some("7"));
            assert!(response.body.is_empty());
        }
    }
}

async fn refuses_broken_gzip<C: HttpClient>(lab: &Lab<'_, C>) {
    let client = lab.client();
    let whole = gzip(JSON.as_bytes());
    for body in [b"no gzip at all".as_slice(), &whole[..whole.len() - 9]] {
        let peer = Peer::answering(gzipped(body));
        lab.failure(&client, call(&peer), &[HttpErrorKind::Malformed])
            .await;
    }
}

async fn refuses_a_body_that_is_too_large<C: HttpClient>(lab: &Lab<'_, C>) {
    let client = lab.client();
    let body = [b' '; 1000];
    let mut chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n".to_vec();
    chunked.extend_from_slice(&body);
    chunked.extend_from_slice(b"\r\n0\r\n\r\n");
    for answer in [ok(body), chunked] {
        let peer = Peer::answering(answer);
        let exact = limited(call(&peer), |limits| limits.max_body = 1000);
        assert_eq!(lab.answer(&client, exact).await.body.len(), 1000);
        let less = limited(call(&peer), |limits| limits.max_body = 999);
        lab.failure(&client, less, &[HttpErrorKind::TooLarge]).await;
    }
}

async fn refuses_a_gzip_bomb<C: HttpClient>(lab: &Lab<'_, C>) {
    let bomb = gzip(&vec![0; 4 << 20]);
    assert!(bomb.len() < 16 << 10);
    let peer = Peer::answering(gzipped(&bomb));
    let request = limited(call(&peer), |limits| limits.max_body = 16 << 10);
    lab.failure(&lab.client(), request, &[HttpErrorKind::TooLarge])
        .await;
}

fn gzipped(body: &[u8]) -> Vec<u8> {
    answer("200 OK", "Content-Encoding: gzip\r\n", body)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder
        .write_all(bytes)
        .and_then(|()| encoder.finish())
        .expect("writing to memory")
}
