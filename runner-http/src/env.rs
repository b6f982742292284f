//! What the environment says about a bot: its token, and where its server is.

use std::{
    env::{self, VarError},
    error::Error,
    fmt,
};

use crate::{BaseUrlError, Token, TokenError, base_url};

/// The variable that names another server than `https://api.telegram.org`.
pub(crate) const BASE_URL: &str = "BOT_API_URL";

/// The token in `variable`, and the base URL if one is set.
pub(crate) fn read(variable: &str) -> Result<(Token, Option<String>), EnvError> {
    let token = Token::from_env(variable).map_err(EnvError::Token)?;
    let base = base_url(env::var(BASE_URL)).map_err(EnvError::BaseUrl)?;
    Ok((token, base))
}

/// An empty value is none: that is how many tools leave a variable out.
fn base_url(value: Result<String, VarError>) -> Result<Option<String>, BaseUrlError> {
    match value {
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(BaseUrlError::Characters),
        Ok(url) if url.trim().is_empty() => Ok(None),
        Ok(url) => base_url::check(url.trim()).map(Some),
    }
}

/// Why the environment does not say which bot this is, or where its server is.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum EnvError {
    /// The token is missing, or cannot be one.
    Token(TokenError),
    /// `BOT_API_URL` is set, and is not the address of a server.
    BaseUrl(BaseUrlError),
}

impl fmt::Display for EnvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(error) => error.fmt(f),
            Self::BaseUrl(error) => write!(f, "{BASE_URL} is no address of a server: {error}"),
        }
    }
}

/// The text of the error: a `main` that returns it prints this.
impl fmt::Debug for EnvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error for EnvError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_that_is_not_set_is_no_mistake() {
        for value in [
            Err(VarError::NotPresent),
            Ok(String::new()),
            Ok(" \n".into()),
        ] {
            assert_eq!(base_url(value), Ok(None));
        }
        let set = base_url(Ok(" http://127.0.0.1:8081/\n".into()));
        assert_eq!(set, Ok(Some("http://127.0.0.1:8081".into())));
    }

    #[test]
    fn a_wrong_base_url_is_told_with_its_variable() {
        let error = base_url(Ok("localhost:8081".into())).unwrap_err();
        let text = EnvError::BaseUrl(error).to_string();
        assert!(
            text.starts_with("BOT_API_URL") && text.contains("https://"),
            "{text}"
        );
        // Pasted with the full stop of the sentence.
        let error = base_url(Ok("http://127.0.0.1:8081.".into())).unwrap_err();
        let text = EnvError::BaseUrl(error).to_string();
        assert!(text.starts_with("BOT_API_URL"), "{text}");
        // The token would be sent in the clear.
        let error = base_url(Ok("http://api.telegram.org".into()));
        assert_eq!(error, Err(BaseUrlError::Plain));
        let error = base_url(Err(VarError::NotUnicode("x".into())));
        assert_eq!(error, Err(BaseUrlError::Characters));
    }
}
