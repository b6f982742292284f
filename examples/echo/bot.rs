//! The bot itself: all that a bot author writes.

use runner::{ApiError, Bot, BotApi, Delivery, Update, UpdateConsumer, UpdateKind};
use serde::Serialize;
use serde_json::Value;

/// Repeats every text, greets on `/start`, and takes note of pressed buttons.
pub(crate) fn echo(api: BotApi) -> Bot<BotApi, impl UpdateConsumer<Update>> {
    Bot::for_each_with(api.clone(), api, handle)
}

async fn handle(api: BotApi, update: Delivery<Update>) -> Result<(), ApiError> {
    match update.kind() {
        UpdateKind::Message => {
            let (Some(chat), Some(message), Some(text)) =
                (update.chat_id(), update.message_id(), update.text())
            else {
                return Ok(()); // a photo without words, say
            };
            match update.command() {
                Some(command) if command.name == "start" => {
                    reply(&api, chat, message, "Say something, and I say it again.").await
                }
                _ => reply(&api, chat, message, text).await,
            }
        }
        UpdateKind::CallbackQuery => match update.query_id() {
            Some(query) => api.answer_callback_query(query).await,
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

/// `BotApi::call` reaches any method with any parameters.
async fn reply(api: &BotApi, chat_id: i64, message_id: i64, text: &str) -> Result<(), ApiError> {
    #[derive(Serialize)]
    struct SendMessage<'a> {
        chat_id: i64,
        text: &'a str,
        reply_parameters: ReplyParameters,
    }
    #[derive(Serialize)]
    struct ReplyParameters {
        message_id: i64,
    }

    let params = SendMessage {
        chat_id,
        text,
        reply_parameters: ReplyParameters { message_id },
    };
    let _sent: Value = api.call("sendMessage", &params).await?;
    Ok(())
}
