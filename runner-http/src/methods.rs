//! The methods that almost every bot needs. Everything else is [`BotApi::call`].

use serde::{Deserialize, Serialize, de::IgnoredAny};

use crate::{ApiError, BotApi, HttpClient};

impl<C: HttpClient> BotApi<C> {
    /// Sends a text to a chat.
    ///
    /// # Errors
    ///
    /// [`ApiError`]; after [`ApiError::Http`] the text may have been sent.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the request; the text may have been sent.
    pub async fn send_message(
        &self,
        chat_id: i64,
        text: impl AsRef<str>,
    ) -> Result<SentMessage, ApiError> {
        #[derive(Serialize)]
        struct Params<'a> {
            chat_id: i64,
            text: &'a str,
        }

        let text = text.as_ref();
        self.call("sendMessage", &Params { chat_id, text }).await
    }

    /// The bot itself: the cheapest way to check the token.
    ///
    /// # Errors
    ///
    /// [`ApiError`].
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn get_me(&self) -> Result<User, ApiError> {
        self.call("getMe", &()).await
    }

    /// Tells the user's app that the button press was noticed, which ends its progress bar.
    ///
    /// # Errors
    ///
    /// [`ApiError`]; a 400 if the press is too old.
    ///
    /// # Cancel safety
    ///
    /// Safe: answering twice does no harm.
    pub async fn answer_callback_query(
        &self,
        callback_query_id: impl AsRef<str>,
    ) -> Result<(), ApiError> {
        #[derive(Serialize)]
        struct Params<'a> {
            callback_query_id: &'a str,
        }

        let callback_query_id = callback_query_id.as_ref();
        // What it returns says nothing.
        self.call::<IgnoredAny>("answerCallbackQuery", &Params { callback_query_id })
            .await?;
        Ok(())
    }
}

/// A user or a bot.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct User {
    /// The user's id.
    pub id: i64,
    /// Whether it is a bot. False if the server does not say.
    #[serde(default)]
    pub is_bot: bool,
    /// The first name. Empty if the server does not say.
    #[serde(default)]
    pub first_name: String,
    /// The name after the `@`.
    pub username: Option<String>,
}

/// What is known of a message that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct SentMessage {
    /// Its id within the chat.
    pub message_id: i64,
    /// When it was sent, as Unix time in seconds. Zero if the server does not say.
    #[serde(default)]
    pub date: i64,
}
