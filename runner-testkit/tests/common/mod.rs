//! A client for tests: it sends exactly the bytes it is given.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "every test file has a copy, and not every one uses all of it"
)]

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::Duration,
};

use runner_testkit::LocalServer;
use serde_json::Value;

/// How long a test waits for what should come at once.
pub const SOON: Duration = Duration::from_secs(20);

/// One connection to a server.
pub struct Client {
    pub stream: TcpStream,
    token: String,
    received: Vec<u8>,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// In lower case, as sent otherwise.
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    }

    pub fn description(&self) -> String {
        let json = self.json();
        assert_eq!(json["error_code"], self.status);
        json["description"].as_str().unwrap().to_owned()
    }

    /// The ids in an answer to getUpdates.
    pub fn ids(&self) -> Vec<i64> {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        let json = self.json();
        let updates = json["result"].as_array().unwrap();
        updates
            .iter()
            .map(|update| update["update_id"].as_i64().unwrap())
            .collect()
    }
}

impl Client {
    pub fn new(server: &LocalServer) -> Self {
        let stream = TcpStream::connect(server.address()).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        Self {
            stream,
            token: server.token().to_owned(),
            received: Vec::new(),
        }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// Sends a GET of a method with its query, like `getMe` or `getUpdates?timeout=1`.
    pub fn ask(&mut self, method: &str) {
        let request = format!(
            "GET /bot{}/{method} HTTP/1.1\r\nHost: x\r\n\r\n",
            self.token
        );
        self.send(request);
    }

    /// Sends a POST of a method; `headers` end with a line end each.
    pub fn post(&mut self, method: &str, headers: &str, body: impl AsRef<[u8]>) -> Answer {
        let body = body.as_ref();
        self.send(format!(
            "POST /bot{}/{method} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {}\r\n\r\n",
            self.token,
            body.len()
        ));
        self.send(body);
        self.answer()
    }

    pub fn get(&mut self, method: &str) -> Answer {
        self.ask(method);
        self.answer()
    }

    /// A GET of a whole path.
    pub fn get_path(&mut self, path: &str) -> Answer {
        self.send(format!("GET {path} HTTP/1.1\r\n\r\n"));
        self.answer()
    }

    /// Reads an answer that is whole.
    pub fn answer(&mut self) -> Answer {
        self.try_answer().expect("an answer")
    }

    /// Reads an answer; `None` if the connection ends in it.
    pub fn try_answer(&mut self) -> Option<Answer> {
        loop {
            let text = String::from_utf8_lossy(&self.received);
            if let Some(end) = text.find("\r\n\r\n") {
                let head = text[..end].to_lowercase();
                let status = head.split(' ').nth(1).unwrap().parse().unwrap();
                let length: usize = head
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: "))
                    .expect("a length")
                    .parse()
                    .unwrap();
                while self.received.len() < end + 4 + length {
                    self.receive()?;
                }
                let body = self.received[end + 4..end + 4 + length].to_vec();
                self.received.drain(..end + 4 + length);
                return Some(Answer { status, head, body });
            }
            self.receive()?;
        }
    }

    /// Reads until the connection ends; true if that was a reset. What came before is returned.
    pub fn rest(&mut self) -> (bool, Vec<u8>) {
        loop {
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk) {
                Ok(0) => return (false, std::mem::take(&mut self.received)),
                Ok(count) => self.received.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    return (true, std::mem::take(&mut self.received));
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Asserts that the server has closed the connection in order, having sent no more.
    pub fn assert_closed(&mut self) {
        assert_eq!(self.rest(), (false, Vec::new()));
    }

    fn receive(&mut self) -> Option<()> {
        let mut chunk = [0; 16 * 1024];
        let count = match self.stream.read(&mut chunk) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => 0,
            Err(error) => panic!("{error}"),
        };
        self.received.extend_from_slice(&chunk[..count]);
        (count > 0).then_some(())
    }
}
