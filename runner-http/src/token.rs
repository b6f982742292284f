//! The bot token: checked once, never shown.

use std::{env, error::Error, fmt, sync::Arc};

/// The secret by which the Bot API knows the bot, as `@BotFather` gave it out.
///
/// Its shape is checked, so that a pasted chat id or a truncated token fails at start, with a text
/// that helps, and not as a 404. `Debug` shows the bot's id, never the secret. A clone is cheap.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Arc<str>);

impl Token {
    /// Checks the shape of `token`.
    ///
    /// # Errors
    ///
    /// [`TokenError`] if no Bot API server would accept it. Whether it is the token of an existing
    /// bot only the server can tell.
    pub fn new(token: &str) -> Result<Self, TokenError> {
        // The rules are those of the open-source server, so nothing that it accepts is refused.
        if token.is_empty() {
            return Err(TokenError::Empty);
        }
        if token.starts_with(QUOTES) || token.ends_with(QUOTES) {
            return Err(TokenError::Quotes);
        }
        if token.chars().any(char::is_whitespace) {
            return Err(TokenError::Whitespace);
        }
        if token.len() > MAX_LEN {
            return Err(TokenError::TooLong);
        }
        let (id, secret) = token.split_once(':').ok_or(TokenError::NoColon)?;
        let is_number = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number || id.starts_with('0') {
            return Err(TokenError::BotId);
        }
        if !id.parse::<u64>().is_ok_and(|id| id < MAX_BOT_ID) {
            return Err(TokenError::BotId);
        }
        let is_base64url = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if secret.len() < MIN_SECRET || !secret.bytes().all(is_base64url) {
            return Err(TokenError::Secret);
        }
        Ok(Self(token.into()))
    }

    /// Reads the token from an environment variable; white space around it is cut off.
    ///
    /// # Errors
    ///
    /// [`TokenError`] if the variable is not set or does not hold a token.
    pub fn from_env(variable: &str) -> Result<Self, TokenError> {
        match env::var(variable) {
            Ok(token) => Self::new(token.trim()),
            Err(_) => Err(TokenError::NotSet {
                variable: variable.into(),
            }),
        }
    }

    /// The bot's user id: the public part of the token.
    #[must_use]
    pub fn bot_id(&self) -> &str {
        self.parts().0
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// Replaces the secret in a text that came from outside: an error page may quote the URL.
    pub(crate) fn redact(&self, text: String) -> String {
        let secret = self.parts().1;
        if text.contains(secret) {
            text.replace(secret, "<secret>")
        } else {
            text
        }
    }

    fn parts(&self) -> (&str, &str) {
        self.0.split_once(':').expect("checked by `new`")
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}:…)", self.bot_id())
    }
}

/// Why a text is not a bot token. It never contains the text.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenError {
    /// The environment variable is not set, or is not Unicode.
    NotSet {
        /// Its name.
        variable: String,
    },
    /// There is nothing.
    Empty,
    /// There are quotes around it.
    Quotes,
    /// There is white space around or in it.
    Whitespace,
    /// It is longer than any token.
    TooLong,
    /// It has no colon between the bot's id and the secret.
    NoColon,
    /// What is before the colon is not the id of a bot.
    BotId,
    /// What is after the colon is too short, or has characters that no token has.
    Secret,
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self {
            Self::NotSet { variable } => {
                return write!(
                    f,
                    "{variable} is not set: set it to the token that @BotFather gave you"
                );
            }
            Self::Empty => "is empty",
            Self::Quotes => {
                return f.write_str(
                    "the bot token is in quotes: leave them out; a shell removes them, `docker --env-file` and \
                     others keep them",
                );
            }
            Self::Whitespace => "contains white space",
            Self::TooLong => "is longer than 80 characters",
            Self::NoColon => "has no colon",
            Self::BotId => "does not begin with the id of a bot",
            Self::Secret => "has no valid secret after the colon; it may be cut off",
        };
        write!(
            f,
            "the bot token {what}: copy it again from @BotFather, it looks like 123456789:AbC…"
        )
    }
}

/// The text of the error: a `main` that returns it prints this, and whoever reads it needs to know
/// what to do.
impl fmt::Debug for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error for TokenError {}

const QUOTES: [char; 2] = ['"', '\''];

/// The longest token that the Bot API server looks at.
const MAX_LEN: usize = 80;

/// Ids of bots are below this.
const MAX_BOT_ID: u64 = 1 << 54;

/// The shortest secret that the Bot API server looks at.
const MIN_SECRET: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "AAabcdefghijklmnopqrstuv-_0123";

    #[test]
    fn accepts_what_the_server_accepts() {
        for id in ["1", "700100200", "18014398509481983"] {
            let token = Token::new(&format!("{id}:{SECRET}")).unwrap();
            assert_eq!(token.bot_id(), id);
        }
    }

    #[test]
    fn refuses_what_the_server_refuses() {
        let cases = [
            (String::new(), TokenError::Empty),
            (format!(" 1:{SECRET}"), TokenError::Whitespace),
            (format!("1:{SECRET}\n"), TokenError::Whitespace),
            (format!("1:{}", "a".repeat(79)), TokenError::TooLong),
            ("700100200".into(), TokenError::NoColon),
            (format!(":{SECRET}"), TokenError::BotId),
            (format!("0:{SECRET}"), TokenError::BotId),
            (format!("012:{SECRET}"), TokenError::BotId),
            (format!("+12:{SECRET}"), TokenError::BotId),
            (format!("\"12:{SECRET}\""), TokenError::Quotes),
            (format!("'12:{SECRET}'"), TokenError::Quotes),
            (format!("\"12:{SECRET}"), TokenError::Quotes),
            (format!("12:{SECRET}'"), TokenError::Quotes),
            (format!("bot12:{SECRET}"), TokenError::BotId),
            (format!("18014398509481984:{SECRET}"), TokenError::BotId),
            (
                format!("99999999999999999999999:{SECRET}"),
                TokenError::BotId,
            ),
            ("1:short".into(), TokenError::Secret),
            (format!("1:{SECRET}/x"), TokenError::Secret),
            (format!("1:{SECRET}:x"), TokenError::Secret),
            (format!("1:{SECRET}é"), TokenError::Secret),
        ];
        for (text, error) in cases {
            assert_eq!(Token::new(&text), Err(error), "{text}");
        }
    }

    #[test]
    fn errors_and_debug_do_not_show_the_secret() {
        let token = Token::new(&format!("42:{SECRET}")).unwrap();
        assert_eq!(format!("{token:?}"), "Token(42:…)");
        let error = Token::new(&format!("042:{SECRET}")).unwrap_err();
        assert!(!format!("{error} {error:?}").contains(SECRET));
        assert!(error.to_string().contains("@BotFather"));
    }

    #[test]
    fn a_quoted_url_is_redacted() {
        let token = Token::new(&format!("42:{SECRET}")).unwrap();
        let page = format!("/bot42%3A{SECRET}/getMe was not found");
        assert_eq!(token.redact(page), "/bot42%3A<secret>/getMe was not found");
    }

    #[test]
    fn a_variable_that_is_not_set_is_named() {
        let error = Token::from_env("RUNNER_HTTP_NO_SUCH_VARIABLE").unwrap_err();
        let text = "RUNNER_HTTP_NO_SUCH_VARIABLE is not set: set it to the token";
        assert!(error.to_string().starts_with(text), "{error}");
        // What a `main` that returns it prints.
        assert!(format!("{error:?}").starts_with(text), "{error:?}");
    }
}
