//! teloxide-core's client and types, and this runner: an async client that needs tokio.
//!
//! ```sh
//! cargo run -p adapters --example teloxide_core
//! ```
//!
//! teloxide-core decodes whole answers and marks the updates that it cannot decode, so one type does
//! for both, and `decode` only looks for the mark. Its client gives up after 17 s unless it is told
//! otherwise, which is less than a long poll takes. Of a failure it keeps the text and not the code.
//! Expect what becomes of each failure, and then two chats that are answered in order.

use std::{error::Error, sync::Arc, time::Duration};

use adapters::{contract, server, show, stop_when_answered};
use runner::{Bot, BoxError, Conflict, Delivery, GetUpdates, Key, SupplyError, UpdatesRequest};
use runner_testkit::LocalServer;
use teloxide_core::{
    ApiError, Bot as Client, RequestError,
    net::default_reqwest_settings,
    payloads::{DeleteWebhookSetters, GetUpdatesSetters},
    requests::Requester,
    types::{AllowedUpdate, Update, UpdateKind},
};

/// Polls with teloxide-core's client.
struct Polling(Client);

impl GetUpdates for Polling {
    type Raw = Update;
    type Update = Update;
    type Error = SupplyError;

    async fn get_updates(&mut self, request: &UpdatesRequest) -> Result<Vec<Update>, SupplyError> {
        let mut call = self.0.get_updates().limit(request.limit);
        call = call.timeout(u32::try_from(request.timeout.as_secs()).unwrap_or(u32::MAX));
        if let Some(offset) = request.offset {
            call = call.offset(i32::try_from(offset).map_err(SupplyError::fatal)?);
        }
        if let Some(kinds) = &request.allowed_updates {
            let kinds = serde_json::to_value(kinds).and_then(serde_json::from_value);
            let kinds: Vec<AllowedUpdate> = kinds.map_err(SupplyError::fatal)?;
            call = call.allowed_updates(kinds);
        }
        call.await.map_err(classify)
    }

    async fn delete_webhook(&mut self, drop_pending_updates: bool) -> Result<(), SupplyError> {
        let call = self.0.delete_webhook();
        let call = call.drop_pending_updates(drop_pending_updates);
        call.await.map_err(classify)?;
        Ok(())
    }

    fn update_id(raw: &Update) -> i64 {
        raw.id.0.into()
    }

    fn default_key(raw: &Update) -> Option<Key> {
        raw.chat().map(|chat| Key::chat(chat.id.0))
    }

    fn decode(raw: Delivery<Update>) -> Result<Delivery<Update>, BoxError> {
        match raw.kind {
            UpdateKind::Error(_) => Err("teloxide-core cannot decode it".into()),
            _ => Ok(raw),
        }
    }
}

/// What the runner is to do about a failure.
fn classify(error: RequestError) -> SupplyError {
    let description = match &error {
        RequestError::RetryAfter(delay) => {
            let delay = delay.duration().max(Duration::from_secs(1));
            return SupplyError::retry_after(delay, error);
        }
        RequestError::Api(ApiError::InvalidToken) => return SupplyError::fatal(error),
        RequestError::Api(answer) => answer.to_string(),
        // The network, or an answer that is none of the Bot API: it will pass.
        _ => return SupplyError::transient(error),
    };
    let says = |text| description.contains(text);
    if says("setWebhook") || says("webhook is active") {
        SupplyError::conflict(Conflict::Webhook, error)
    } else if says("Conflict: ") {
        SupplyError::conflict(Conflict::Poller, error)
    } else if says("Too Many Requests") {
        SupplyError::retry_after(Duration::from_secs(5), error)
    } else if REFUSALS.into_iter().any(says) {
        SupplyError::fatal(error)
    } else {
        SupplyError::transient(error)
    }
}

/// How the text of an answer begins that another try does not change.
const REFUSALS: [&str; 5] = [
    "Bad Request",
    "Unauthorized",
    "Forbidden",
    "Not Found",
    "Logged out",
];

async fn echo(client: Client, update: Delivery<Update>) -> Result<(), RequestError> {
    if let UpdateKind::Message(message) = &update.kind
        && let Some(text) = message.text()
    {
        client.send_message(message.chat.id, text).await?;
    }
    Ok(())
}

fn client(server: &LocalServer) -> Client {
    // Longer than any poll: when one counts as dead is up to the runner.
    let settings = default_reqwest_settings().timeout(Duration::from_secs(100));
    let http = settings.build().expect("there is nothing that can fail");
    let url = server.url().parse().expect("it is a URL");
    Client::with_client(server.token(), http).set_api_url(url)
}

fn main() -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(contract(|server| Polling(client(server))));

    let server = server();
    let client = client(&server);
    let bot = Bot::for_each_with(Polling(client.clone()), client, echo);
    let watched = Arc::clone(&server);
    let report = runner::tokio::run_with(bot, move |handle| stop_when_answered(&watched, handle))?;
    show(&server, &report);
    Ok(())
}
