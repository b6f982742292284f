//! What one pass tells, against what two passes tell.

use proptest::{prelude::*, sample::select};

use super::*;
use crate::fuzzing::check_walk;

fn walk(text: &[u8]) -> Option<Walked> {
    super::walk(text, false)
}

#[test]
fn nothing_about_usual_updates_is_unusual() {
    let batch = include_str!("../../tests/wire/batch.json");
    let start = batch.find('[').unwrap() + 1;
    let mut rest = &batch[start..];
    let mut kinds = 0;
    while let Some(walked) = walk(rest.as_bytes()) {
        kinds += 1;
        check_walk(rest.as_bytes());
        rest = &rest[walked.end..];
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
    assert_eq!((kinds, rest), (7, "]}"));
}

#[test]
fn anything_unusual_is_left_to_others() {
    for content in [
        r#"{"date":7,"date":7}"#,
        r#"{"text":null,"text":"a"}"#,
        r#"{"text":"a","caption":"b"}"#,
        r#"{"text":"\ud83d"}"#,
        r#"{"text":"\ude00\ud83d"}"#,
        r#"{"t\u0065xt":"a"}"#,
        r#"{"id":7}"#,
        r#"{"date":-7}"#,
        r#"{"date":7.0}"#,
        r#"{"date":4294967296}"#,
        r#"{"message":[7]}"#,
        r#"{"message":{"message_id":7,"message_id":7}}"#,
        r#"{"message":{"message_id":7},"message_id":7}"#,
        r#"{"chat":{"id":-0}}"#,
        r#"{"chat":{"id":1e5}}"#,
        r#"{"chat":{"id":1000000000000000000}}"#,
        r#"{"chat":null}"#,
        r#"{"chat":{}}"#,
        r#"[7]"#,
        "{},\"message\":{}",
        "{},\"update_id\":-1",
    ] {
        let update = format!(r#"{{"update_id":5,"message":{content}}}"#);
        assert!(walk(update.as_bytes()).is_none(), "{update}");
    }
    let deep = |levels| {
        let (open, close) = ("[".repeat(levels), "]".repeat(levels));
        walk(format!(r#"{{"update_id":5,"message":{{"x":{open}{close}}}}}"#).as_bytes())
    };
    assert_eq!(deep(63).unwrap().levels, 65);
    assert!(deep(64).is_none() && deep(100_000).is_none());
}

#[test]
fn only_json_is_passed_over() {
    for (value, is_json) in [
        ("0", true),
        ("-0", true),
        ("-1.50e+07", true),
        ("1E5", true),
        ("1e999", true),
        ("9".repeat(400).as_str(), true),
        ("", false),
        ("-", false),
        ("01", false),
        ("-01", false),
        ("1.", false),
        (".5", false),
        ("1.e5", false),
        ("1e", false),
        ("1e+", false),
        ("+1", false),
        ("1-2", false),
        ("NaN", false),
        ("true", true),
        ("tru", false),
        ("truer", false),
        ("nul", false),
        ("[]", true),
        ("[1 , {\"a\" : [ ] } ,\r\n\t{}]", true),
        ("[,]", false),
        ("[1,]", false),
        ("[1 2]", false),
        ("[1}", false),
        ("{\"a\":1]", false),
        ("{\"a\":1,}", false),
        ("{\"a\" 1}", false),
        ("{\"a\"}", false),
        ("{a:1}", false),
        ("{1:1}", false),
        (r#"{"\ud83d":"\ud83d"}"#, true),
        (r#""\"\\\/\b\f\n\r\t\u00aF""#, true),
        (r#""\u00a""#, false),
        (r#""\u00ag""#, false),
        (r#""\U00ab""#, false),
        (r#""\x""#, false),
        (r#""\""#, false),
        ("\"\t\"", false),
        ("\"\x7f\"", true),
        ("\"a\0\"", false),
        ("\u{feff}1", false),
        ("1\u{a0}", false),
        ("1\x0b", false),
    ] {
        let update = format!(r#"{{"message":{{"x":{value}}},"update_id":5}}"#);
        let whole: Result<serde::de::IgnoredAny, _> = serde_json::from_str(&update);
        assert_eq!(whole.is_ok(), is_json, "{update}");
        let walked = walk(update.as_bytes());
        assert_eq!(walked.is_some(), is_json, "{update}");
        check_walk(update.as_bytes());
    }
}

/// White space, mostly none.
fn blank() -> impl Strategy<Value = &'static str> {
    prop_oneof![9 => Just(""), 1 => select(vec![" ", "\n", "\r\n\t"])]
}

fn text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        12 => select(vec!["a", "/go", " ", "sixteen bytes or", "\\n", "\\\"", "\\\\"]),
        8 => select(vec!["\\u0436", "\\ud83d\\ude00", "\\uD83D\\uDE00", "é", "😀"]),
        1 => select(vec!["\\ud83d", "\\ude00", "\\ud7ff", "\\ue000", "\\ud83d\\ud83d"]),
    ];
    prop::collection::vec(part, 0..6).prop_map(|parts| format!("\"{}\"", parts.concat()))
}

fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => any::<u32>().prop_map(|number| number.to_string()),
        2 => any::<i64>().prop_map(|number| number.to_string()),
        1 => "-?(0|[1-9][0-9]{0,2})(\\.[0-9]{1,2})?([eE][+-]?[0-9]{1,2})?",
    ]
}

fn name() -> impl Strategy<Value = String> {
    let names = vec![
        "id",
        "message_id",
        "message",
        "date",
        "text",
        "caption",
        "data",
        "query",
        "from",
        "user",
        "chat",
        "voter_chat",
        "user_chat_id",
        "x",
        "te\\u0078t",
        "\\ud83d",
    ];
    select(names).prop_map(|name| format!("\"{name}\""))
}

fn object(
    name: impl Strategy<Value = String>,
    value: impl Strategy<Value = String>,
) -> impl Strategy<Value = String> {
    let field = (blank(), name, blank(), blank(), value, blank())
        .prop_map(|(a, name, b, c, value, d)| format!("{a}{name}{b}:{c}{value}{d}"));
    prop::collection::vec(field, 0..5).prop_map(|fields| format!("{{{}}}", fields.join(",")))
}

fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        3 => text(),
        3 => number(),
        1 => select(vec!["null", "true", "false"]).prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        let array = prop::collection::vec((inner.clone(), blank()), 0..4);
        let array = array.prop_map(|values| {
            let values: Vec<_> = values.iter().map(|(a, b)| format!("{a}{b}")).collect();
            format!("[{}]", values.join(","))
        });
        prop_oneof![1 => array, 3 => object(name(), inner)]
    })
}

/// The values that are expected behind most names.
fn field() -> impl Strategy<Value = String> {
    let peer = number()
        .prop_map(|id| format!("{{\"id\":{id},\"x\":1}}"))
        .boxed();
    prop_oneof![
        2 => (
            select(vec!["id", "text", "caption", "data", "query"]),
            text()
        )
            .prop_map(|(name, value)| format!("\"{name}\":{value}")),
        2 => (select(vec!["date", "message_id", "user_chat_id"]), number())
            .prop_map(|(name, value)| format!("\"{name}\":{value}")),
        2 => (
            select(vec!["from", "user", "chat", "voter_chat"]),
            peer.clone()
        )
            .prop_map(|(name, value)| format!("\"{name}\":{value}")),
        2 => (number(), peer).prop_map(|(id, peer)| {
            format!("\"message\":{{\"message_id\":{id},\"chat\":{peer}}}")
        }),
        1 => (name(), value()).prop_map(|(name, value)| format!("{name}:{value}")),
        3 => value().prop_map(|value| format!("\"x\":{value}")),
    ]
}

fn update() -> impl Strategy<Value = String> {
    let kinds = vec![
        "message",
        "channel_post",
        "callback_query",
        "inline_query",
        "business_connection",
        "poll_answer",
        "subscription",
        "teleport_request",
    ];
    let content = prop_oneof![
        8 => prop::collection::vec(field(), 0..5)
            .prop_map(|fields| format!("{{{}}}", fields.join(","))),
        1 => value(),
    ];
    let id = prop_oneof![9 => (0..1_i64 << 52).prop_map(|id| id.to_string()), 1 => value()];
    (select(kinds), content, id, any::<bool>(), blank()).prop_map(
        |(kind, content, id, is_first, blank)| {
            let (id, kind) = (
                format!("\"update_id\":{id}"),
                format!("\"{kind}\":{content}"),
            );
            let (a, b) = if is_first { (id, kind) } else { (kind, id) };
            format!("{blank}{{{blank}{a},{b}}}{blank}")
        },
    )
}

proptest! {
    #[test]
    fn one_pass_agrees_with_two(update in update()) {
        check_walk(update.as_bytes());
    }

    #[test]
    fn one_pass_agrees_with_two_on_damage(
        update in update(),
        at in any::<prop::sample::Index>(),
        byte in prop_oneof![select(b"\"\\{}[],:0e-. \n\x7f\xc3\xa9".to_vec()), any::<u8>()],
        is_put in any::<bool>(),
    ) {
        let mut update = update.into_bytes();
        let at = at.index(update.len());
        if is_put {
            update.insert(at, byte);
        } else {
            update[at] = byte;
        }
        check_walk(&update);
        check_walk(&update[..at]);
    }
}
