//! The framing of HTTP, the encodings of parameters, paths and tokens, over real sockets.

mod common;

use std::io::Write;

use common::{Client, SOON};
use flate2::{
    Compression,
    write::{GzEncoder, ZlibEncoder},
};
use runner_testkit::LocalServer;

const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";
const JSON: &str = "content-type: Application/JSON; charset=utf-8\r\n";

#[test]
fn an_answer_has_the_headers_of_the_real_server() {
    let server = LocalServer::start().unwrap();
    let mut client = Client::new(&server);
    let answer = client.get("getMe");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("connection"), Some("keep-alive"));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("date"), None);
    assert_eq!(answer.header("server"), None);
    assert_eq!(answer.json()["result"]["id"], server.bot_id());
}

#[test]
fn parameters_come_in_four_encodings() {
    let server = LocalServer::start().unwrap();
    let mut client = Client::new(&server);
    let multipart = concat!(
        "--Bound\r\nContent-Disposition: form-data; name=\"chat_id\"\r\n\r\n7\r\n",
        "--Bound\r\nContent-Disposition: form-data; name=\"text\"\r\n\r\nh\u{e9} & you\r\n--Bound--\r\n",
    );
    let answers = [
        client.get("sendMessage?chat_id=7&text=h%C3%A9+%26+you"),
        client.post("sendMessage", FORM, "chat_id=7&text=h%C3%A9%20%26%20you"),
        client.post(
            "sendMessage",
            JSON,
            r#"{"chat_id":7,"text":"h\u00e9 & you"}"#,
        ),
        client.post(
            "sendMessage",
            "Content-Type: multipart/form-data; boundary=Bound\r\n",
            multipart,
        ),
    ];
    for answer in answers {
        assert_eq!(answer.json()["result"]["text"], "h\u{e9} & you");
        assert_eq!(answer.json()["result"]["chat"]["id"], 7);
        assert!(answer.body.is_ascii(), "text is escaped");
    }
    assert_eq!(server.calls_of("SENDMESSAGE").len(), 4);
}

#[test]
fn the_url_wins_over_the_body_and_a_get_may_have_one() {
    let server = LocalServer::start().unwrap();
    let mut client = Client::new(&server);
    let answer = client.post(
        "sendMessage?text=url&chat_id=1",
        FORM,
        "text=body&chat_id=2&disable_notification=true",
    );
    assert_eq!(answer.json()["result"]["text"], "url");
    let call = &server.calls()[0];
    assert_eq!(call.chat_id(), Some(1));
    assert_eq!(call.params.get("disable_notification"), Some("true"));
    assert_eq!(call.params.iter().count(), 5);

    client.send(format!(
        "GET /bot{}/sendMessage HTTP/1.1\r\n{JSON}Content-Length: 25\r\n\r\n{{\"chat_id\":3,\"text\":\"get\"}}",
        server.token()
    ));
    assert_eq!(client.answer().json()["result"]["text"], "get");
}

#[test]
fn malformed_json_and_unknown_types_are_no_error() {
    let server = LocalServer::start().unwrap();
    let mut client = Client::new(&server);
    let answer = client.post("sendMessage", JSON, r#"{"chat_id":7,"text":oops}"#);
    assert_eq!(answer.description(), "Bad Request: message text is empty");
    let answer = client.post("anything", "Content-Type: text/plain\r\n", "chat_id=7");
    assert_eq!(answer.status, 200);
    let call = server.calls().pop().unwrap();
    assert_eq!(call.params.iter().count(), 0);
    assert_eq!(call.params.files()[0].len, 9);
}

#[test]
fn bodies_may_be_compressed_and_chunked() {
    let server = LocalServer::start().unwrap();
    let mut client = Client::new(&server);
    let body = br#"{"chat_id":7,"text":"packed"}"#;
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(body).unwrap();
    let gzip = gzip.finish().unwrap();
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
    zlib.write_all(body).unwrap();
    let zlib = zlib.finish().unwrap();

    let headers = format!("{JSON}Content-Encoding: gzip\r\n");
    let answer = client.post("sendMessage", &headers, &gzip);
    assert_eq!(answer.json()["result"]["text"], "packed");
    let headers = format!("{JSON}Content-Encoding: deflate\r\n");
    let answer = client.post("sendMessage", &headers, zlib);
    assert_eq!(answer.json()["result"]["text"], "packed");

    client.send(format!(
        "POST /bot{}/sendMessage HTTP/1.1\r\n{JSON}Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n",
        server.token()
    ));
    for part in gzip.chunks(7) {
        client.send(format!("{:x};note=1\r\n", part.len()));
        client.send(part);
        client.send("\r\n");
    }
    client.send("0\r\nTrailer: x\r\n\r\n");
    assert_eq!(client.answer().json()["result"]["text"], "packed");

    let headers = format!("{JSON}Content-Encoding: gzip\r\n");
    assert_eq!(client.post("sendMessage", &headers, "no gzip").status, 400);
    client.assert_closed();
}

#[test]
fn what_cannot_be_read_is_answered_without_a_body_and_closed() {
    let server = LocalServer::start().unwrap();
    let long = "x".repeat(257 << 10);
    let big = format!("Content-Length: {}", (1 << 20) + 1);
    for (request, status) in [
        ("HEAD / HTTP/1.1\r\n\r\n".to_owned(), 501),
        ("PUT / HTTP/1.1\r\n\r\n".to_owned(), 501),
        ("GET / HTTP/3\r\n\r\n".to_owned(), 505),
        (
            "GET / HTTP/1.1\r\nTransfer-Encoding: br\r\n\r\n".to_owned(),
            501,
        ),
        (
            "GET / HTTP/1.1\r\nContent-Encoding: br\r\n\r\n".to_owned(),
            415,
        ),
        (format!("GET / HTTP/1.1\r\nX: {long}"), 431),
        (format!("POST / HTTP/1.1\r\n{FORM}{big}\r\n\r\n"), 413),
        (format!("POST / HTTP/1.1\r\n{JSON}{big}\r\n\r\n"), 413),
    ] {
        let mut client = Client::new(&server);
        client.send(&request);
        let answer = client.answer();
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("content-length"), Some("0"));
        client.assert_closed();
    }
    assert!(server.wait_until(|state| state.connections.open == 0, SOON));
}

#[test]
fn a_connection_is_kept_whatever_the_client_says() {
    let server = LocalServer::start().unwrap();
    let mut client = Client::new(&server);
    client.send(format!(
        "GET /bot{}/getMe HTTP/1.0\r\nConnection: close\r\n\r\n",
        server.token()
    ));
    assert_eq!(client.answer().status, 200);
    // Pipelined requests are answered one after the other.
    client.ask("sendMessage?chat_id=1&text=a");
    client.ask("sendMessage?chat_id=1&text=b");
    assert_eq!(client.answer().json()["result"]["text"], "a");
    assert_eq!(client.answer().json()["result"]["text"], "b");
    assert_eq!(server.connections().opened, 1);
    assert!(server.calls().iter().all(|call| call.connection == 1));

    drop(client);
    assert!(server.wait_until(|state| state.connections.open == 0, SOON));
}

#[test]
fn a_request_may_arrive_in_pieces() {
    let server = LocalServer::start().unwrap();
    let mut client = Client::new(&server);
    let request = format!(
        "POST /bot{}/sendMessage HTTP/1.1\r\n{FORM}Content-Length: 16\r\n\r\nchat_id=1&text=a",
        server.token()
    );
    for byte in request.bytes() {
        client.send([byte]);
    }
    assert_eq!(client.answer().json()["result"]["text"], "a");
}

#[test]
fn paths_and_tokens_are_checked_in_order() {
    let server = LocalServer::start().unwrap();
    let mut client = Client::new(&server);
    let secret = "a".repeat(24);
    for (path, status, description) in [
        ("/", 404, "Not Found"),
        ("/Bot1:a/getMe", 404, "Not Found"),
        ("/bot1:a", 404, "Not Found"),
        (
            "http://x/bot1:a/getMe",
            404,
            "Not Found: absolute URI is specified in the Request-Line",
        ),
        (
            "/bot01:a/getMe",
            401,
            "Unauthorized: invalid token specified",
        ),
        (
            "/botabc/getMe",
            401,
            "Unauthorized: invalid token specified",
        ),
        (
            &format!("/bot1:{}/getMe", "a".repeat(79)),
            401,
            "Unauthorized: invalid token specified",
        ),
        (
            "/botx:a/getMe",
            421,
            "Misdirected Request: unallowed token specified",
        ),
        (
            "/bot-1:a/getMe",
            401,
            "Unauthorized: invalid token specified",
        ),
        (
            "/bot18014398509481984:a/getMe",
            401,
            "Unauthorized: invalid token specified",
        ),
        ("/bot1:short/getMe", 401, "Unauthorized"),
        (&format!("/bot1:{secret}+/getMe"), 401, "Unauthorized"),
        (&format!("/bot1:{secret}/getMe"), 401, "Unauthorized"),
    ] {
        let answer = client.get_path(path);
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.description(), description, "{path}");
    }
    assert_eq!(server.connections().opened, 1, "none of them closes");
}

#[test]
fn methods_are_found_in_any_case_in_the_test_path_and_in_a_parameter() {
    let server = LocalServer::start().unwrap();
    let mut client = Client::new(&server);
    let token = server.token();
    let encoded = token.replace(':', "%3A");
    for path in [
        format!("/bot{token}/GETME"),
        format!("/bot{token}/test/getme"),
        format!("/bot{encoded}/getMe"),
        format!("/bot{token}/?method=getMe"),
    ] {
        let answer = client.get_path(&path);
        assert_eq!(answer.json()["result"]["is_bot"], true, "{path}");
    }
    let is_test: Vec<bool> = server.calls().iter().map(|call| call.is_test).collect();
    assert_eq!(is_test, [false, true, false, false]);
}

#[test]
fn other_methods_are_recorded_or_unknown() {
    let server = LocalServer::start().unwrap();
    let mut client = Client::new(&server);
    let answer = client.get("answerCallbackQuery?callback_query_id=5");
    assert_eq!(answer.json()["result"], true);
    let call = server
        .wait_for_call(|call| call.is("answerCallbackQuery"), SOON)
        .unwrap();
    assert_eq!(call.params.get("callback_query_id"), Some("5"));
    server.set_result("getChat", &serde_json::json!({"title": "\u{436}"}));
    let answer = client.get("getchat?chat_id=1");
    assert_eq!(answer.json()["result"]["title"], "\u{436}");
    assert!(answer.body.is_ascii());

    let server = LocalServer::builder().known_methods_only().start().unwrap();
    let mut client = Client::new(&server);
    let answer = client.get("answerCallbackQuery");
    assert_eq!(answer.description(), "Not Found: method not found");
    assert_eq!(client.get("getMe").status, 200);
}

#[test]
fn a_message_that_cannot_be_sent_says_why() {
    let server = LocalServer::start().unwrap();
    let mut client = Client::new(&server);
    for (query, description) in [
        ("text=a", "Bad Request: chat_id is empty"),
        ("chat_id=nobody&text=a", "Bad Request: chat not found"),
        ("chat_id=1", "Bad Request: message text is empty"),
    ] {
        let answer = client.get(&format!("sendMessage?{query}"));
        assert_eq!(answer.status, 400);
        assert_eq!(answer.description(), description);
    }
    let answer = client.get("sendMessage?chat_id=@news&text=a");
    assert_eq!(answer.json()["result"]["chat"]["type"], "channel");
}

#[test]
fn a_token_must_be_shaped_like_one_and_is_not_shown() {
    let builder = || LocalServer::builder().first_update_id(5);
    assert!(builder().token("secret").start().is_err());
    let token = "42:abcdefghijklmnopqrstuvwx";
    let builder = builder().token(token);
    assert!(!format!("{builder:?}").contains("abcdefgh"));
    let server = builder.start().unwrap();
    assert!(!format!("{server:?}").contains("abcdefgh"));
    assert_eq!((server.token(), server.bot_id()), (token, 42));
    assert_eq!(server.push_message(1, 1, "a"), Some(5));
    assert_eq!(Client::new(&server).get("getMe").status, 200);
}
