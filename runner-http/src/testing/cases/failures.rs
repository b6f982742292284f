//! When there is no answer, or half of one.

use std::{
    net::TcpListener,
    thread,
    time::{Duration, Instant},
};

use super::{JSON, LANES, Lab, PATH, SECRET, call, cases, limited, ok, poll, to};
use crate::{
    client::{HttpClient, HttpErrorKind, Lane},
    testing::peer::{Connection, Crowd, Peer},
};

cases![
    nobody_listens,
    a_connect_that_hangs,
    a_url_that_cannot_be_used,
    closed_before_the_answer,
    reset_before_the_answer,
    closed_in_the_head,
    closed_in_the_body,
    reset_in_the_body,
    closed_in_a_chunk,
    no_http,
    no_tls,
    no_handshake,
    no_answer,
    an_answer_that_trickles,
    a_body_that_stalls,
    a_body_that_trickles,
    works_again_after_every_failure,
];

async fn nobody_listens<C: HttpClient>(lab: &Lab<'_, C>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let address = listener.local_addr().expect("a bound socket has a name");
    drop(listener);
    let url = format!("http://{address}{PATH}");
    lab.failure(
        &lab.client(),
        to(url, Lane::Call),
        &[HttpErrorKind::Connect],
    )
    .await;
}

async fn a_connect_that_hangs<C: HttpClient>(lab: &Lab<'_, C>) {
    let Some(crowd) = Crowd::gather() else { return };
    for lane in LANES {
        let request = limited(to(crowd.url(PATH), lane), |limits| limits.connect = LIMIT);
        timed(lab, request, HttpErrorKind::ConnectTimeout).await;
    }
}

async fn a_url_that_cannot_be_used<C: HttpClient>(lab: &Lab<'_, C>) {
    let client = lab.client();
    for url in [
        String::new(),
        PATH.to_owned(),
        format!("ftp://127.0.0.1{PATH}"),
        format!("http://{PATH}"),
        format!("http://127.0.0.1:port{PATH}"),
        format!("http://127.0.0.1/{SECRET} with spaces"),
        format!("http://127.0.0.1/{SECRET}\r\nX-Injected: 1"),
    ] {
        lab.failure(&client, to(url, Lane::Call), &[HttpErrorKind::InvalidUrl])
            .await;
    }
}

async fn closed_before_the_answer<C: HttpClient>(lab: &Lab<'_, C>) {
    closed(lab, |connection| connection.read_request().map(drop)).await;
}

async fn reset_before_the_answer<C: HttpClient>(lab: &Lab<'_, C>) {
    closed(lab, |connection| connection.wait_for_bytes()).await;
}

async fn closed_in_the_head<C: HttpClient>(lab: &Lab<'_, C>) {
    closed(lab, |connection| {
        connection.read_request()?;
        connection.write(b"HTTP/1.1 200 OK\r\nContent-Le")
    })
    .await;
}

async fn closed_in_the_body<C: HttpClient>(lab: &Lab<'_, C>) {
    closed(lab, |connection| {
        connection.read_request()?;
        connection.write(&half())
    })
    .await;
}

async fn reset_in_the_body<C: HttpClient>(lab: &Lab<'_, C>) {
    closed(lab, |connection| {
        connection.wait_for_bytes()?;
        connection.write(&half())
    })
    .await;
}

async fn closed_in_a_chunk<C: HttpClient>(lab: &Lab<'_, C>) {
    for cut in ["8\r\n{\"ok\":t", "8\r\n{\"ok\":t1\r\n", ""] {
        closed(lab, move |connection| {
            connection.read_request()?;
            connection.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            connection.write(cut.as_bytes())
        })
        .await;
    }
}

async fn no_http<C: HttpClient>(lab: &Lab<'_, C>) {
    let client = lab.client();
    for answer in [
        "220 mail.example ESMTP ready\r\n\r\n",
        "HTTP/1.1 what\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno length\r\n",
    ] {
        let peer = Peer::answering(answer);
        lab.failure(&client, call(&peer), &[HttpErrorKind::Malformed])
            .await;
    }
}

async fn no_tls<C: HttpClient>(lab: &Lab<'_, C>) {
    let peer = Peer::start(|connection| {
        connection.wait_for_bytes()?;
        connection.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")?;
        connection.wait_for_close();
        Ok(())
    });
    let request = to(secure(&peer), Lane::Call);
    lab.failure(&lab.client(), request, &[HttpErrorKind::Tls])
        .await;
}

async fn no_handshake<C: HttpClient>(lab: &Lab<'_, C>) {
    let peer = Peer::silent();
    let request = limited(to(secure(&peer), Lane::Call), |limits| {
        limits.connect = LIMIT;
    });
    timed(lab, request, HttpErrorKind::ConnectTimeout).await;
}

async fn no_answer<C: HttpClient>(lab: &Lab<'_, C>) {
    // The same as a half-open connection: nothing comes, and nobody says so.
    let peer = Peer::silent();
    for lane in LANES {
        let request = limited(to(peer.url(PATH), lane), |limits| limits.answer = LIMIT);
        timed(lab, request, HttpErrorKind::AnswerTimeout).await;
    }
}

async fn an_answer_that_trickles<C: HttpClient>(lab: &Lab<'_, C>) {
    let peer = Peer::start(|connection| {
        connection.read_request()?;
        connection.write(b"HTTP/1.1 200 OK\r\nX-Long: ")?;
        trickle(connection)
    });
    let request = limited(poll(&peer), |limits| limits.answer = LIMIT);
    timed(lab, request, HttpErrorKind::AnswerTimeout).await;
}

async fn a_body_that_stalls<C: HttpClient>(lab: &Lab<'_, C>) {
    let peer = Peer::start(|connection| {
        connection.read_request()?;
        connection.write(&half())?;
        connection.wait_for_close();
        Ok(())
    });
    for lane in LANES {
        let request = limited(to(peer.url(PATH), lane), |limits| limits.body = LIMIT);
        timed(lab, request, HttpErrorKind::BodyTimeout).await;
    }
}

async fn a_body_that_trickles<C: HttpClient>(lab: &Lab<'_, C>) {
    let peer = Peer::start(|connection| {
        connection.read_request()?;
        connection.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")?;
        trickle(connection)
    });
    let request = limited(poll(&peer), |limits| limits.body = LIMIT);
    timed(lab, request, HttpErrorKind::BodyTimeout).await;
}

async fn works_again_after_every_failure<C: HttpClient>(lab: &Lab<'_, C>) {
    // Odd connections fail, each in its way; a good answer is in between.
    let peer = Peer::start(|connection| {
        connection.read_request()?;
        match connection.number {
            0 => Ok(()),
            2 => connection.write(b"HTTP/1.1 200 OK\r\n"),
            4 => connection.write(&half()),
            6 => connection.write(b"nonsense\r\n\r\n"),
            8 => {
                connection.wait_for_close();
                Ok(())
            }
            _ => {
                connection.write(&ok(JSON))?;
                Ok(())
            }
        }
    });
    let client = lab.client();
    for _ in 0..5 {
        let request = limited(call(&peer), |limits| limits.answer = LIMIT);
        let failed = lab.soon(client.send(request)).await;
        assert!(failed.is_err());
        lab.answer(&client, call(&peer)).await;
        // Both connections are gone, so that the next one is counted as expected.
        lab.soon(peer.closed()).await;
        lab.soon(peer.closed()).await;
    }
    assert_eq!(peer.accepted(), 10);
}

/// Both lanes must report the script as a close.
async fn closed<C: HttpClient>(
    lab: &Lab<'_, C>,
    script: impl Fn(&mut Connection<'_>) -> std::io::Result<()> + Send + Sync + 'static,
) {
    let peer = Peer::start(script);
    let client = lab.client();
    for lane in LANES {
        let request = to(peer.url(PATH), lane);
        lab.failure(&client, request, &[HttpErrorKind::Closed])
            .await;
    }
}

/// The request must fail after [`LIMIT`], and not much later.
async fn timed<C: HttpClient>(
    lab: &Lab<'_, C>,
    request: crate::client::HttpRequest,
    kind: HttpErrorKind,
) {
    let client = lab.client();
    let start = Instant::now();
    lab.failure(&client, request, &[kind]).await;
    let elapsed = start.elapsed();
    // Some clients round down to milliseconds, at every step.
    let least = LIMIT - Duration::from_millis(10);
    assert!(elapsed >= least, "{kind:?} after {elapsed:?}");
    assert!(elapsed < LIMIT + SLACK, "{kind:?} after {elapsed:?}");
}

/// One byte now and then, until the client closes the connection.
fn trickle(connection: &mut Connection<'_>) -> std::io::Result<()> {
    loop {
        connection.write(b"x")?;
        thread::sleep(LIMIT / 20);
    }
}

/// A head and half of what it promises.
fn half() -> Vec<u8> {
    let mut half = ok(JSON);
    half.truncate(half.len() - JSON.len() / 2);
    half
}

fn secure(peer: &Peer) -> String {
    peer.url(PATH).replacen("http:", "https:", 1)
}

const LIMIT: Duration = Duration::from_millis(200);

/// For a machine that is busy with other things.
const SLACK: Duration = Duration::from_secs(2);
