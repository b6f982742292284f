//! What a typed line means: [`Command`].

use runner_testkit::Fault;

pub(crate) const HELP: &str = "\
hello                   a message to the bot, from user 1000 in their private chat
/as USER [TEXT]         a message of another user; without a text: from now on
/in CHAT [TEXT]         the same user in another chat, a group if its id is negative
/edit TEXT              edits the last message to the bot
/callback DATA          presses a button under the last message of the bot
/fault NAME [TIMES]     the next call fails: 401, 404, 409, 429, 500, 502, reset, close, half_open, …
/fault off              nothing fails any more
/pending                how many updates the bot has not confirmed
/quit                   ends the server
//help                  a command to the bot that is one here: /help
Any other command, such as /start, goes to the bot.";

#[derive(Debug, PartialEq)]
pub(crate) enum Command<'a> {
    Nothing,
    Help,
    Quit,
    Pending,
    Say(&'a str),
    As(i64, Option<&'a str>),
    In(i64, Option<&'a str>),
    Edit(&'a str),
    Callback(&'a str),
    /// What goes wrong, and how often; `None` ends all of it.
    Fault(Option<(Fault, u64)>),
}

impl<'a> Command<'a> {
    /// # Errors
    ///
    /// What to type instead.
    pub(crate) fn parse(line: &'a str) -> Result<Self, String> {
        let line = line.trim();
        if line.is_empty() {
            return Ok(Self::Nothing);
        }
        if line.starts_with("//") {
            return Ok(Self::Say(&line[1..]));
        }
        let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim_start();
        match name {
            "/help" => Ok(Self::Help),
            "/quit" => Ok(Self::Quit),
            "/pending" => Ok(Self::Pending),
            "/as" => addressed(rest).map(|(user, text)| Self::As(user, text)),
            "/in" => addressed(rest).map(|(chat, text)| Self::In(chat, text)),
            "/edit" if !rest.is_empty() => Ok(Self::Edit(rest)),
            "/edit" => Err("/edit needs the new text".into()),
            "/callback" => Ok(Self::Callback(rest)),
            "/fault" => fault(rest).map(Self::Fault),
            _ => Ok(Self::Say(line)),
        }
    }
}

fn addressed(rest: &str) -> Result<(i64, Option<&str>), String> {
    let (id, text) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let number = id.parse().ok().filter(|number| *number != 0);
    let id = number.ok_or_else(|| format!("{id:?} is no id of a user or a chat, see /help"))?;
    let text = text.trim_start();
    Ok((id, (!text.is_empty()).then_some(text)))
}

fn fault(rest: &str) -> Result<Option<(Fault, u64)>, String> {
    let mut words = rest.split_whitespace();
    let name = words.next().unwrap_or_default();
    if name == "off" {
        return Ok(None);
    }
    let name = match name {
        "401" => "unauthorized",
        "403" => "forbidden",
        "404" => "not_found",
        "409" => "conflict",
        "429" => "too_many_requests",
        "500" => "internal_error",
        "502" => "bad_gateway",
        name => name,
    };
    let fault = Fault::named(name, 1.0).ok_or_else(|| format!("no fault {name:?}, see /help"))?;
    let times = match words.next() {
        None => 1,
        Some(times) => times
            .parse()
            .map_err(|_| format!("{times:?} is not how many calls are to fail"))?,
    };
    Ok(Some((fault, times)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_messages_unless_they_are_commands_of_this_program() {
        for (line, command) in [
            ("", Command::Nothing),
            ("  hello there ", Command::Say("hello there")),
            ("/start", Command::Say("/start")),
            ("/asp", Command::Say("/asp")),
            ("//help", Command::Say("/help")),
            ("/help", Command::Help),
            ("/quit", Command::Quit),
            ("/pending", Command::Pending),
            ("/as 7 hello  you", Command::As(7, Some("hello  you"))),
            ("/as 7 ", Command::As(7, None)),
            ("/in -100 hi", Command::In(-100, Some("hi"))),
            ("/edit better", Command::Edit("better")),
            ("/callback", Command::Callback("")),
            ("/callback yes no", Command::Callback("yes no")),
            ("/fault 502", Command::Fault(Some((Fault::BadGateway, 1)))),
            (
                "/fault 429 3",
                Command::Fault(Some((Fault::TooManyRequests(1), 3))),
            ),
            ("/fault reset", Command::Fault(Some((Fault::Reset, 1)))),
            ("/fault off", Command::Fault(None)),
        ] {
            assert_eq!(Command::parse(line), Ok(command), "{line}");
        }
    }

    #[test]
    fn a_mistake_says_what_is_wrong() {
        for (line, reason) in [
            ("/as you", "\"you\" is no id"),
            ("/in 0 x", "\"0\" is no id"),
            ("/edit", "the new text"),
            ("/fault", "no fault \"\""),
            ("/fault 200", "no fault \"200\""),
            ("/fault 502 often", "\"often\" is not how many"),
        ] {
            let error = Command::parse(line).unwrap_err();
            assert!(error.contains(reason), "{line}: {error}");
        }
    }
}
