//! frankenstein's client and types, and this runner: a client that blocks, on any runtime.
//!
//! ```sh
//! cargo run -p adapters --example frankenstein
//! ```
//!
//! A blocking call cannot be dropped, so each runs on a thread of the `blocking` pool, and dropping
//! the future of a poll shuts down the agent that polls. Updates are fetched as JSON and decoded one
//! by one, each in its own task: an update that frankenstein's types do not fit costs no other one.
//! Expect what becomes of each failure, and then two chats that are answered in order.

use std::{error::Error as StdError, sync::Arc, time::Duration};

use adapters::{contract, server, show, stop_when_answered};
use blocking::unblock;
use frankenstein::{
    Error, TelegramApi,
    client_ureq::Bot as Client,
    methods::{DeleteWebhookParams, SendMessageParams},
    response::MethodResponse,
    updates::{Update, UpdateContent},
};
use futures::executor::block_on;
use runner::{Bot, BoxError, Conflict, Delivery, GetUpdates, Key, SupplyError, UpdatesRequest};
use runner_testkit::LocalServer;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Polls with frankenstein's client.
struct Polling {
    url: String,
    /// Of the polls alone: cutting one must not cut what handlers send. `None` after a cut.
    client: Option<Client>,
}

impl Polling {
    fn new(url: String) -> Self {
        Self { url, client: None }
    }

    async fn call<T, P>(&mut self, method: &'static str, params: P) -> Result<T, SupplyError>
    where
        T: serde::de::DeserializeOwned + Send + 'static,
        P: Serialize + std::fmt::Debug + Send + 'static,
    {
        let client = self.client.take();
        let client = client.unwrap_or_else(|| Client::new_url(&self.url));
        let mut cut = Cut(Some(client.request_agent.clone()));
        let call = {
            let client = client.clone();
            move || client.request(method, Some(params))
        };
        let answer: Result<MethodResponse<T>, Error> = unblock(call).await;
        cut.0 = None;
        self.client = Some(client);
        answer.map(|answer| answer.result).map_err(classify)
    }
}

/// Ends the call that is under way when its future is dropped.
struct Cut(Option<ureq::Agent>);

impl Drop for Cut {
    fn drop(&mut self) {
        if let Some(agent) = self.0.take() {
            agent.shutdown();
        }
    }
}

/// `GetUpdatesParams` takes the kinds as an enum; the runner knows them by name.
#[derive(Debug, Serialize)]
struct Params {
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<i64>,
    limit: u8,
    timeout: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed_updates: Option<Vec<String>>,
}

impl GetUpdates for Polling {
    type Raw = Value;
    type Update = Update;
    type Error = SupplyError;

    async fn get_updates(&mut self, request: &UpdatesRequest) -> Result<Vec<Value>, SupplyError> {
        let params = Params {
            offset: request.offset,
            limit: request.limit,
            timeout: request.timeout.as_secs(),
            allowed_updates: request.allowed_updates.clone(),
        };
        self.call("getUpdates", params).await
    }

    async fn delete_webhook(&mut self, drop_pending_updates: bool) -> Result<(), SupplyError> {
        let params = DeleteWebhookParams::builder().drop_pending_updates(drop_pending_updates);
        let _true: bool = self.call("deleteWebhook", params.build()).await?;
        Ok(())
    }

    fn update_id(raw: &Value) -> i64 {
        raw["update_id"].as_i64().unwrap_or_default()
    }

    fn default_key(raw: &Value) -> Option<Key> {
        let chat = |body: &Value| {
            let chat = body["chat"]["id"].as_i64();
            chat.or(body["message"]["chat"]["id"].as_i64())
        };
        raw.as_object()?.values().find_map(chat).map(Key::chat)
    }

    fn decode(raw: Delivery<Value>) -> Result<Delivery<Update>, BoxError> {
        let update = Update::deserialize(&*raw)?;
        Ok(raw.with(update))
    }
}

/// What the runner is to do about a failure.
fn classify(error: Error) -> SupplyError {
    let Error::Api(answer) = &error else {
        // The network, or an answer that is none of the Bot API: it will pass.
        return SupplyError::transient(error);
    };
    match answer.error_code {
        409 => {
            let text = &answer.description;
            let is_webhook = text.contains("setWebhook") || text.contains("webhook is active");
            let kind = match is_webhook {
                true => Conflict::Webhook,
                false => Conflict::Poller,
            };
            SupplyError::conflict(kind, error)
        }
        429 => {
            let seconds = answer
                .parameters
                .and_then(|parameters| parameters.retry_after);
            let delay = Duration::from_secs(seconds.unwrap_or(5).max(1).into());
            SupplyError::retry_after(delay, error)
        }
        400..=499 => SupplyError::fatal(error),
        _ => SupplyError::transient(error),
    }
}

async fn echo(client: Client, update: Delivery<Update>) -> Result<(), Error> {
    let UpdateContent::Message(message) = &update.content else {
        return Ok(());
    };
    let Some(text) = &message.text else {
        return Ok(());
    };
    let params = SendMessageParams::builder().chat_id(message.chat.id);
    let params = params.text(text).build();
    unblock(move || client.send_message(&params)).await?;
    Ok(())
}

fn main() -> Result<(), Box<dyn StdError>> {
    let url = |server: &LocalServer| format!("{}/bot{}", server.url(), server.token());
    block_on(contract(|server| Polling::new(url(server))));

    let server = server();
    let bot = Bot::for_each_with(
        Polling::new(url(&server)),
        Client::new_url(url(&server)),
        echo,
    );
    let watched = Arc::clone(&server);
    let report = runner::smol::run_with(bot, move |handle| stop_when_answered(&watched, handle))?;
    show(&server, &report);
    Ok(())
}
