//! What the bot calls, as text.

use std::fmt::Write;

use runner_testkit::Call;
use serde_json::Value;

/// A message as one reads it, with its buttons; anything else by its name and parameters.
pub(crate) fn call(call: &Call) -> String {
    let mut line = match (
        call.is("sendMessage"),
        call.params.get("chat_id"),
        call.text(),
    ) {
        (true, Some(chat), Some(text)) => format!("bot to {chat}: {text}"),
        _ => {
            let mut line = format!("bot calls {}", call.method);
            for (name, value) in call.params.iter() {
                write!(line, " {name}={value}").expect("memory takes all");
            }
            return line;
        }
    };
    let markup = call.params.get("reply_markup").unwrap_or_default();
    for button in buttons(markup) {
        write!(line, "\n  {button}").expect("memory takes all");
    }
    line
}

fn buttons(markup: &str) -> Vec<String> {
    let markup: Value = serde_json::from_str(markup).unwrap_or_default();
    let rows = ["inline_keyboard", "keyboard"].map(|name| markup[name].as_array());
    let buttons = rows.into_iter().flatten().flatten();
    let buttons = buttons.filter_map(Value::as_array).flatten();
    buttons
        .map(|button| {
            let text = button["text"].as_str().or(button.as_str());
            let text = text.unwrap_or_default();
            match button["callback_data"].as_str() {
                Some(data) => format!("[{text}] /callback {data}"),
                None => format!("[{text}]"),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buttons_say_what_to_type() {
        let markup = r#"{"inline_keyboard":[[{"text":"Yes","callback_data":"y"}],[{"text":"Site","url":"x"}]]}"#;
        assert_eq!(buttons(markup), ["[Yes] /callback y", "[Site]"]);
        assert_eq!(
            buttons(r#"{"keyboard":[["A",{"text":"B"}]]}"#),
            ["[A]", "[B]"]
        );
        assert!(buttons("").is_empty());
        assert!(buttons(r#"{"remove_keyboard":true}"#).is_empty());
    }
}
