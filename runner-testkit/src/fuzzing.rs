//! What must hold for any bytes: the bodies of the fuzz targets in `fuzz`, and of the tests below.

use std::{
    cell::{Cell, RefCell},
    io,
    time::Duration,
};

use serde_json::value::RawValue;

use crate::{
    http::{End, Reader, Stream},
    params::{MAX_FILES, Params, lenient_bool, lenient_i32},
};

/// The parameters, in the encoding that the first byte chooses.
pub fn params(data: &[u8]) {
    let Some((choice, data)) = data.split_first() else {
        return;
    };
    match choice % 4 {
        0 => urlencoded(data),
        1 => json(data),
        2 => multipart(data),
        _ => values(data),
    }
}

/// The requests of a connection, whatever pieces they arrive in.
pub fn request(data: &[u8]) {
    let Some((step, data)) = data.split_first() else {
        return;
    };
    let whole = requests(data, usize::MAX);
    // Steps of 5 and more end everywhere, too, and a read costs much more than its bytes.
    let pieces = requests(data, usize::from(*step).max(5));
    assert!(whole == pieces, "the pieces of a request change it");
}

/// What is written as the standard says is read as it was; anything else does no harm.
fn urlencoded(data: &[u8]) {
    let mut params = Params::default();
    params.add_urlencoded(data);
    assert!(params.len() <= 3 * data.len(), "at most U+FFFD for a byte");

    let pairs = pairs_of(data);
    let mut text = String::new();
    for (name, value) in &pairs {
        text.push_str(&percent_encode(name));
        text.push('=');
        text.push_str(&percent_encode(value));
        text.push('&');
    }
    let mut params = Params::default();
    params.add_urlencoded(text.as_bytes());
    assert_same(&params, &pairs);
}

/// An object that serde_json accepts has the same fields; of any other, a part of them is read.
fn json(data: &[u8]) {
    let mut params = Params::default();
    params.add_json(data);
    let Ok(Fields(fields)) = serde_json::from_slice(data) else {
        return;
    };
    let texts = |fields: &[(String, Box<RawValue>)]| {
        let text = |raw: &RawValue| match raw.get().starts_with('"') {
            true => serde_json::from_str(raw.get()).ok(),
            false => Some(raw.get().to_owned()),
        };
        let pairs = fields
            .iter()
            .map_while(|(name, raw)| Some((name.clone(), text(raw)?)));
        pairs.collect::<Vec<_>>()
    };
    assert_same(&params, &texts(&fields));
}

/// Parts that a client would write are read as they were; anything else does no harm.
fn multipart(data: &[u8]) {
    for boundary in ["B", "--", "\r\n", ""] {
        let mut params = Params::default();
        if params.add_multipart(data, boundary).is_ok() {
            assert!(params.files().len() <= MAX_FILES);
            assert!(params.len() <= 3 * data.len());
        }
    }

    // No name with what ends a name, no value with what could be the boundary.
    let pairs: Vec<_> = pairs_of(data)
        .into_iter()
        .map(|(name, value)| {
            let name = name.replace(['"', '\r', '\n'], "_");
            // Lines end in more ways than one, to the reader of a header.
            let name = name.replace(|c: char| c.is_control(), "_");
            (name, value.replace("--", "__"))
        })
        .collect();
    let mut body = String::new();
    for (name, value) in &pairs {
        let part = "--X\r\nContent-Disposition: form-data; name=\"";
        body.push_str(&format!("{part}{name}\"\r\n\r\n{value}\r\n"));
    }
    body.push_str("--X--\r\n");
    let mut params = Params::default();
    assert_eq!(params.add_multipart(body.as_bytes(), "X"), Ok(()));
    assert_same(&params, &pairs);
}

/// Numbers and truth values, against naive models.
fn values(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let digits = text.strip_prefix('-').unwrap_or(&text);
    let end = digits
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(digits.len());
    let modulo = digits[..end].chars().fold(0_i64, |value, digit| {
        (value * 10 + i64::from(digit.to_digit(10).expect("a digit"))) % (1 << 32)
    });
    let signed = if digits.len() < text.len() {
        -modulo
    } else {
        modulo
    };
    assert_eq!(i64::from(lenient_i32(&text)), i64::from(signed as i32));
    let is_true = matches!(text.to_ascii_lowercase().as_str(), "true" | "yes" | "1");
    assert_eq!(lenient_bool(&text), is_true);
}

/// Names and values out of any bytes.
fn pairs_of(data: &[u8]) -> Vec<(String, String)> {
    data.split(|byte| *byte == b'\n')
        .map(|line| {
            let line = String::from_utf8_lossy(line);
            let (name, value) = line.split_once(':').unwrap_or((&line, ""));
            (name.to_owned(), value.to_owned())
        })
        .collect()
}

fn assert_same(params: &Params, pairs: &[(String, String)]) {
    let found: Vec<_> = params.iter().collect();
    let expected: Vec<_> = pairs
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    assert_eq!(found, expected);
    for (name, _) in &expected {
        let first = expected.iter().find(|(other, _)| other == name);
        assert_eq!(params.get(name), first.map(|(_, value)| *value));
    }
}

fn percent_encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b' ' => "+".into(),
            byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

/// All requests of a connection, and why there is no other one.
fn requests(data: &[u8], step: usize) -> (Vec<crate::http::Request>, End) {
    let memory = Memory {
        rest: RefCell::new(data.to_vec().into()),
        step,
        timeout: Cell::default(),
    };
    let mut reader = Reader::new(&memory).expect("memory has no faults");
    let mut requests = Vec::new();
    loop {
        assert!(memory.timeout.get() > Duration::ZERO);
        match reader.next() {
            Ok(request) => requests.push(request),
            Err(end) => return (requests, end),
        }
    }
}

/// A connection that gives at most `step` bytes at once.
struct Memory {
    rest: RefCell<std::collections::VecDeque<u8>>,
    step: usize,
    timeout: Cell<Duration>,
}

impl Stream for Memory {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut rest = self.rest.borrow_mut();
        let count = buffer.len().min(self.step).min(rest.len());
        for (place, byte) in buffer.iter_mut().zip(rest.drain(..count)) {
            *place = byte;
        }
        Ok(count)
    }

    fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.timeout.set(timeout);
        Ok(())
    }
}

/// The fields of an object in their order, also if a name comes twice.
struct Fields(Vec<(String, Box<RawValue>)>);

impl<'de> serde::Deserialize<'de> for Fields {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Fields;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(Visitor)
    }
}

#[cfg(test)]
#[path = "../../fuzz/inputs.rs"]
mod inputs;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        inputs::{corpus, input},
        *,
    };

    #[test]
    fn the_corpus_holds() {
        corpus("params").iter().for_each(|input| params(input));
        corpus("request").iter().for_each(|input| request(input));
    }

    proptest! {
        #[test]
        fn any_parameters_hold(input in input("params")) {
            params(&input);
        }
    }

    proptest! {
        // An input may be many reads.
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn any_request_holds(input in input("request")) {
            request(&input);
        }
    }
}
