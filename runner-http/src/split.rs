//! From one answer to updates: each its own slice, with an id and a header.
//!
//! An update of any shape costs no other one.

use bytes::Bytes;
use serde::de::IgnoredAny;

use crate::{
    ApiError, HttpResponse, Incoming, LimitError, Limits, Token, envelope, error::Body,
    header::Scan, scan::Scanner, walk::walk,
};

/// Splits the answer to a `getUpdates` with this `offset` and `limit`.
///
/// Never more than `limit`: what is beyond is not confirmed, so the next answer has it again.
pub(crate) fn split(
    response: &HttpResponse,
    token: &Token,
    offset: Option<i64>,
    limit: usize,
    limits: &Limits,
) -> Result<Vec<Incoming>, ApiError> {
    let is_success = (200..300).contains(&response.status);
    let mut updates = match updates(&response.body, limit.min(MAX_UPDATES), limits) {
        Some(updates) if is_success => updates.map_err(ApiError::Limit)?,
        _ => return Err(not_updates(response, token)),
    };
    let Some(mut lowest) = lowest_id(&updates, offset) else {
        return match updates.first() {
            None => Ok(Vec::new()),
            Some(first) => Err(ApiError::Position {
                body: Body::bounded(first.raw()),
            }),
        };
    };
    for update in &mut updates {
        if update.is_id_assumed() {
            update.assume_id(lowest);
        }
        lowest = update.id().saturating_add(1);
    }
    Ok(updates)
}

/// The lowest id that the first update can have.
///
/// Ids ascend, so an update whose id cannot be read is at least one behind the one before it, and
/// the first is not before the offset. Passing by the lowest possible id never skips another
/// update: if it was a lower bound only, the same update comes again and is passed by once more, a
/// little higher. Without an offset, the first id that can be read tells.
fn lowest_id(updates: &[Incoming], offset: Option<i64>) -> Option<i64> {
    let known = updates.iter().position(|update| !update.is_id_assumed());
    let from_next = known.and_then(|index| {
        let before = i64::try_from(index).ok()?;
        Some((updates[index].id() - before).max(0))
    });
    let from_offset = offset.filter(|offset| *offset > 0);
    match (from_offset, from_next) {
        // After a jump of the ids downwards the offset is stale, and beyond what was received.
        (Some(offset), Some(next)) => Some(offset.min(next)),
        (offset, next) => offset.or(next),
    }
}

/// The updates of an answer; `None` if it has none.
fn updates(
    body: &Bytes,
    limit: usize,
    limits: &Limits,
) -> Option<Result<Vec<Incoming>, LimitError>> {
    // Servers escape what is not ASCII, and one look at all of it costs less than many.
    let is_utf8 = body.is_ascii();
    let mut json = Scanner::new(body);
    let mut ok = false;
    let most = limits.max_updates.max(1);
    let mut result = None;
    json.object(|json, name| match name {
        b"ok" => {
            ok = json.is_true()?;
            Some(())
        }
        b"result" => {
            let mut updates = Vec::with_capacity(limit.min(body.len() / USUAL));
            let mut count = 0_usize;
            json.array(|json| {
                count += 1;
                if updates.len() >= limit {
                    return json.skip();
                }
                updates.push(update(json, body, is_utf8, limits.max_depth)?);
                Some(())
            })?;
            result = Some(if count > most {
                Err(LimitError::Updates { max: most })
            } else {
                Ok(updates)
            });
            Some(())
        }
        _ => json.skip(),
    })?;
    result.filter(|_| ok && json.is_at_end())
}

/// Passes over one element of the array.
fn update(
    json: &mut Scanner<'_>,
    body: &Bytes,
    is_utf8: bool,
    max_depth: usize,
) -> Option<Incoming> {
    let start = json.mark()?;
    let raw = |text: &[u8]| {
        if body.len() <= MAX_SHARED {
            body.slice_ref(text)
        } else {
            Bytes::copy_from_slice(text)
        }
    };
    if let Some(walked) = walk(json.rest(), is_utf8) {
        json.advance(walked.end);
        return Some(Incoming::walked(walked, raw(json.since(start)), max_depth));
    }
    let mut scan = Scan::default();
    let levels = match scan.read(json) {
        Some(levels) => levels,
        None => {
            // Its brackets may still tell where it ends.
            json.rewind(start);
            json.skip()?;
            json.levels_since(start)
        }
    };
    let raw = raw(json.since(start));
    Some(Incoming::scanned(scan, raw, levels, max_depth))
}

fn not_updates(response: &HttpResponse, token: &Token) -> ApiError {
    match envelope::open::<IgnoredAny>(response, token) {
        Err(error) => error,
        Ok(_) => ApiError::Decode {
            body: Body::bounded(&response.body),
            source: "the result is not an array of updates".into(),
        },
    }
}

/// The largest batch the Bot API returns for one call.
///
/// Source: <https://core.telegram.org/bots/api#getupdates>, parameter `limit`.
const MAX_UPDATES: usize = 100;

/// Few updates have fewer bytes.
const USUAL: usize = 256;

/// Updates are slices of the answer unless it is larger than this: one slow handler would otherwise
/// keep megabytes alive, and five hundred of them gigabytes. A hundred messages of the usual size
/// are below it.
const MAX_SHARED: usize = 128 << 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::{UpdateKind, fuzzing::model, json_tree::Json};

    const BATCH: &str = include_str!("../tests/wire/batch.json");
    const JUMP: &str = include_str!("../tests/wire/jump.json");

    fn parse(body: &str, offset: Option<i64>, limit: usize) -> Result<Vec<Incoming>, ApiError> {
        split_bytes(body.as_bytes(), offset, limit)
    }

    fn split_bytes(
        body: &[u8],
        offset: Option<i64>,
        limit: usize,
    ) -> Result<Vec<Incoming>, ApiError> {
        let token = Token::new("1:AAabcdefghijklmnopqrstuvwxyz").unwrap();
        let response = HttpResponse::new(200, Bytes::copy_from_slice(body));
        split(&response, &token, offset, limit, &Limits::default())
    }

    fn answer(updates: &str) -> String {
        format!(r#"{{"ok":true,"result":[{updates}]}}"#)
    }

    fn ids(updates: &[Incoming]) -> Vec<i64> {
        updates.iter().map(Incoming::id).collect()
    }

    #[test]
    fn the_wire_samples_have_their_headers() {
        let updates = parse(BATCH, None, 100).unwrap();
        let mira = Some(700_100_200);
        let room = Some(-1_001_900_000_001);
        let teleport = UpdateKind::Other("teleport_request".into());
        let expected = [
            (512_004_417, UpdateKind::Message, mira, mira),
            (512_004_418, UpdateKind::EditedMessage, mira, mira),
            (512_004_419, UpdateKind::CallbackQuery, mira, mira),
            (512_004_420, UpdateKind::InlineQuery, None, mira),
            (512_004_421, UpdateKind::MyChatMember, room, mira),
            (512_004_424, UpdateKind::MessageReaction, room, mira),
            (512_004_425, teleport, None, None),
        ];
        assert_eq!(updates.len(), expected.len());
        for (update, (id, kind, chat, user)) in updates.iter().zip(expected) {
            assert_eq!(update.id(), id);
            assert!(!update.is_id_assumed());
            assert_eq!(update.kind(), &kind);
            assert_eq!((update.chat_id(), update.user_id()), (chat, user), "{kind}");
            assert!(update.raw().starts_with(b"{\"update_id\":"));
        }
        assert_eq!(
            ids(&parse(JUMP, Some(512_004_426), 100).unwrap()),
            [90_311_755]
        );
    }

    #[test]
    fn updates_are_slices_of_a_small_answer_and_copies_of_a_large_one() {
        let token = Token::new("1:AAabcdefghijklmnopqrstuvwxyz").unwrap();
        let within = |body: String| {
            let response = HttpResponse::new(200, body);
            let range = response.body.as_ptr_range();
            let updates = split(&response, &token, None, 100, &Limits::default()).unwrap();
            range.contains(&updates[0].raw().as_ptr())
        };
        assert!(within(BATCH.into()));
        let text = "x".repeat(MAX_SHARED);
        assert!(!within(answer(&format!(
            r#"{{"update_id":1,"message":{{"text":"{text}"}}}}"#
        ))));
    }

    #[test]
    fn no_more_than_the_limit_is_taken_and_the_rest_is_not_confirmed() {
        let updates: Vec<String> = (1..=500)
            .map(|id| format!(r#"{{"update_id":{id}}}"#))
            .collect();
        let body = answer(&updates.join(","));
        assert_eq!(ids(&parse(&body, None, 3).unwrap()), [1, 2, 3]);
        assert_eq!(parse(&body, None, 255).unwrap().len(), MAX_UPDATES);
    }

    #[test]
    fn an_update_nested_too_deep_costs_no_other_one() {
        let update = |id: i64, levels: usize| {
            let (open, close) = ("[".repeat(levels - 2), "]".repeat(levels - 2));
            format!(r#"{{"update_id":{id},"message":{{"chat":{{"id":8}},"x":{open}{close}}}}}"#)
        };
        let limits = Limits::default();
        let max = limits.max_depth;
        let deep = update(6, max + 1);
        let body = answer(&[update(5, max), deep.clone(), update(7, 3)].join(","));
        let updates = parse(&body, None, 100).unwrap();
        assert_eq!(ids(&updates), [5, 6, 7]);
        for one in &updates {
            let decoded = crate::Update::from_incoming(one).map(|_| ());
            let again = one.decode::<Value>().map(|_| ());
            assert_eq!(decoded.is_err(), one.id() == 6);
            assert_eq!(again.is_err(), one.id() == 6);
            for error in [decoded, again].into_iter().filter_map(Result::err) {
                let limit = std::error::Error::source(&error).unwrap();
                assert_eq!(limit.downcast_ref(), Some(&LimitError::Depth { max }));
            }
        }
        // It has its bytes and its keys all the same.
        assert_eq!(updates[1].raw().as_ref(), deep.as_bytes());
        assert_eq!(updates[1].chat_id(), Some(8));
        assert!(
            Incoming::from_json(deep)
                .unwrap()
                .decode::<Value>()
                .is_err()
        );
        // Nothing is deep enough to harm the stack.
        let updates = parse(&answer(&update(1, 4_000_000)), None, 100).unwrap();
        assert!(crate::Update::from_incoming(&updates[0]).is_err());
    }

    #[test]
    fn an_answer_with_far_too_many_updates_is_refused() {
        let token = Token::new("1:AAabcdefghijklmnopqrstuvwxyz").unwrap();
        let split = |count: usize, max: usize| {
            let response = HttpResponse::new(200, answer(&vec!["{}"; count].join(",")));
            let limits = Limits::default().max_updates(max);
            split(&response, &token, Some(1), 2, &limits).map(|updates| updates.len())
        };
        assert_eq!(split(7, 7).unwrap(), 2);
        for (count, max) in [(8, 7), (100_000, 7), (2, 1), (2, 0)] {
            let error = split(count, max).unwrap_err();
            let expected = LimitError::Updates { max: max.max(1) };
            assert!(matches!(error, ApiError::Limit(limit) if limit == expected));
        }
    }

    #[test]
    fn an_odd_update_costs_no_other_one() {
        let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
        let deep_update = format!(r#"{{"update_id":5,"message":{{"chat":{deep}}}}}"#);
        for odd in [
            r#"{"update_id":5}"#,
            r#"{"update_id":5,"message":null}"#,
            r#"{"update_id":5,"message":"text"}"#,
            r#"{"update_id":5,"message":[{"chat":{"id":1}}]}"#,
            r#"{"update_id":5,"message":{"chat":7,"from":[],"date":{}}}"#,
            r#"{"update_id":5,"message":{"chat":{"id":"7"},"from":{"id":1e300}}}"#,
            r#"{"update_id":5,"message":{"chat":{"id":99999999999999999999}}}"#,
            r#"{"update_id":5,"message":{"\ud83d":1,"text":"\ud83d"}}"#,
            r#"{"update_id":5,"message":{"text":"half a pair: \ud83d"}}"#,
            r#"{"update_id":5,"message":{"chat":true},"update_id":5}"#,
            &deep_update,
        ] {
            let body = answer(&format!(
                r#"{{"update_id":4,"message":{{"chat":{{"id":8}}}}}},{odd},{{"update_id":6}}"#
            ));
            let updates = parse(&body, None, 100).unwrap();
            assert_eq!(ids(&updates), [4, 5, 6], "{odd}");
            assert_eq!(updates[0].chat_id(), Some(8));
            assert_eq!(updates[1].chat_id(), None, "{odd}");
            assert_eq!(updates[1].raw().as_ref(), odd.as_bytes());
        }
    }

    #[test]
    fn an_update_that_is_not_valid_json_costs_no_other_one() {
        for odd in [
            &br#"{"update_id":5,"message":{"text":"\x"}}"#[..],
            br#"{"update_id":5,"message":{"text":NaN}}"#,
            br#"{"update_id":5,"message":{"text":01}}"#,
            br#"{"update_id":5,"message":{"chat" 7}}"#,
            br#"{"update_id":5,"message":{"chat":[1}}}"#,
            br#"{"update_id":5,"message":{"text":"a",}}"#,
            b"{\"update_id\":5,\"message\":{\"text\":\"a\nb\"}}",
            b"{\"update_id\":5,\"message\":{\"text\":\"\xff\xfe\"}}",
            b"{\"update_id\":5,\"\xff\":{}}",
        ] {
            let mut body = br#"{"ok":true,"result":[{"update_id":4},"#.to_vec();
            body.extend_from_slice(odd);
            body.extend_from_slice(br#",{"update_id":6}]}"#);
            let updates = split_bytes(&body, None, 100).unwrap();
            assert_eq!(ids(&updates), [4, 5, 6]);
            assert_eq!(updates[1].raw().as_ref(), odd);
            let refused = crate::Update::from_incoming(&updates[1]).is_err();
            assert!(refused, "{}", String::from_utf8_lossy(odd));
        }
    }

    #[test]
    fn escaped_names_are_understood() {
        let body = answer(r#"{"\u0075pdate_id":5,"m\u0065ssage":{"ch\u0061t":{"\u0069d":8}}}"#);
        let updates = parse(&body, None, 100).unwrap();
        assert_eq!(ids(&updates), [5]);
        assert_eq!(updates[0].kind(), &UpdateKind::Message);
        assert_eq!(updates[0].chat_id(), Some(8));
    }

    #[test]
    fn an_update_without_a_readable_id_gets_the_lowest_that_it_can_have() {
        for odd in [
            "{}",
            "null",
            "7",
            "[]",
            r#""text""#,
            r#"{"message":{}}"#,
            r#"{"update_id":null}"#,
            r#"{"update_id":"5"}"#,
            r#"{"update_id":5.5}"#,
            r#"{"update_id":{"id":5}}"#,
            // An offset of -4 would delete updates on the server, and the largest has no successor.
            r#"{"update_id":-5}"#,
            r#"{"update_id":9223372036854775807}"#,
        ] {
            for (body, offset, expected) in [
                (
                    format!(r#"{{"update_id":7}},{odd},{{"update_id":20}}"#),
                    None,
                    vec![7, 8, 20],
                ),
                (
                    format!(r#"{odd},{odd},{{"update_id":20}}"#),
                    None,
                    vec![18, 19, 20],
                ),
                (
                    format!(r#"{odd},{odd},{{"update_id":20}}"#),
                    Some(11),
                    vec![11, 12, 20],
                ),
                // The ids have jumped down.
                (
                    format!(r#"{odd},{odd},{{"update_id":20}}"#),
                    Some(5_000),
                    vec![18, 19, 20],
                ),
                (
                    format!(r#"{{"update_id":7}},{odd},{odd}"#),
                    Some(7),
                    vec![7, 8, 9],
                ),
                (format!("{odd},{odd}"), Some(11), vec![11, 12]),
            ] {
                let updates = parse(&answer(&body), offset, 100).unwrap();
                assert_eq!(ids(&updates), expected, "{body}");
                for update in &updates {
                    let is_odd = update.raw().as_ref() == odd.as_bytes();
                    assert_eq!(update.is_id_assumed(), is_odd, "{body}");
                }
            }
            // Nothing to go by: an error, and not a guess.
            for offset in [None, Some(0), Some(-1)] {
                let error = parse(&answer(odd), offset, 100).unwrap_err();
                assert!(
                    matches!(error, ApiError::Position { .. }),
                    "{odd}: {error:?}"
                );
            }
        }
    }

    #[test]
    fn what_is_no_array_of_updates_is_an_error() {
        for body in [
            "",
            "{",
            r#"{"ok":true}"#,
            r#"{"ok":true,"result":{}}"#,
            "[]",
            "\0",
        ] {
            assert!(parse(body, Some(1), 100).is_err(), "{body}");
        }
        assert!(parse(&BATCH[..BATCH.len() - 1], Some(1), 100).is_err());
        assert_eq!(
            parse(r#"{"ok":true,"result":[]}"#, None, 100)
                .unwrap()
                .len(),
            0
        );
    }

    /// JSON of any shape, with the names that the scan looks for.
    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 48, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::vec((name(), inner), 0..6)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    fn name() -> impl Strategy<Value = String> {
        prop_oneof![
            4 => prop::sample::select(vec![
                "id", "chat", "from", "user", "message", "voter_chat", "user_chat_id", "text",
            ])
            .prop_map(Into::into),
            1 => ".{0,8}",
        ]
    }

    fn update() -> impl Strategy<Value = Value> {
        let known: Vec<String> = UpdateKind::KNOWN.iter().map(ToString::to_string).collect();
        let kind = prop_oneof![4 => prop::sample::select(known), 1 => "[a-z_]{1,70}"];
        (1_i64..1 << 40, kind, json()).prop_map(|(id, kind, content)| {
            // The model looks at one field beside the id, whichever comes first.
            let kind = if kind == "update_id" {
                "x".into()
            } else {
                kind
            };
            serde_json::json!({"update_id": id, kind: content})
        })
    }

    proptest! {
        #[test]
        fn the_scan_agrees_with_a_whole_tree(
            updates in prop::collection::vec(update(), 0..8),
            is_pretty in any::<bool>(),
        ) {
            let envelope = serde_json::json!({"ok": true, "result": updates});
            let body = if is_pretty {
                serde_json::to_string_pretty(&envelope).unwrap()
            } else {
                envelope.to_string()
            };
            let split = parse(&body, None, 100).unwrap();
            prop_assert_eq!(split.len(), updates.len());
            for (incoming, update) in split.iter().zip(&updates) {
                let header = incoming.header();
                let found =
                    (Some(incoming.id()), header.kind.to_string(), header.chat, header.user);
                let tree: Json = serde_json::from_str(&update.to_string()).unwrap();
                prop_assert_eq!(found, model(tree.fields()));
                let raw: Value = serde_json::from_slice(incoming.raw()).unwrap();
                // Floats may differ in their last digit after a round trip.
                prop_assert_eq!(raw["update_id"].as_i64(), update["update_id"].as_i64());
                // Decoding may refuse it, and must not panic.
                let _ = crate::Update::from_incoming(incoming);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = split_bytes(&bytes, Some(1), 100);
            let mut inside = br#"{"ok":true,"result":["#.to_vec();
            inside.extend_from_slice(&bytes);
            inside.extend_from_slice(b"]}");
            let _ = split_bytes(&inside, None, 100);
            if let Ok(incoming) = Incoming::from_json(bytes) {
                let _ = crate::Update::from_incoming(&incoming);
            }
        }

        #[test]
        fn damaged_answers_never_panic(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut body = BATCH.as_bytes().to_vec();
            let at = at.index(body.len());
            body[at] = byte;
            if let Ok(updates) = split_bytes(&body, Some(512_004_417), 100) {
                for incoming in updates {
                    let _ = crate::Update::from_incoming(&incoming);
                }
            }
            let _ = split_bytes(&body[..at], Some(1), 100);
        }
    }
}
