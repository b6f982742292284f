//! The program `bot-api-local`, driven as a person or a script does, with a real bot on the other side.

mod program;

use std::{
    process::{Command, Stdio},
    thread,
};

use program::Program;
use runner::{ApiError, Bot, BotApi, Delivery, Incoming, RunnerHandle, Update, UpdateKind};
use serde_json::{Value, json};

fn with_api() -> (Program, BotApi) {
    let (program, url, token) = Program::with_environment();
    let api = BotApi::new(token).unwrap().base_url(url).unwrap();
    (program, api)
}

async fn reply(api: BotApi, update: Delivery<Update>) -> Result<(), ApiError> {
    let chat = update.chat_id().expect("all of them are from chats");
    let text = update.text().unwrap_or_default();
    match update.kind() {
        UpdateKind::CallbackQuery => {
            let query = update.query_id().expect("a query has an id");
            let data = update.json::<Value>().unwrap()["callback_query"]["data"].take();
            let text = format!("{} pressed", data.as_str().unwrap_or_default());
            let params = json!({"callback_query_id": query, "text": text});
            let _true: bool = api.call("answerCallbackQuery", &params).await?;
        }
        UpdateKind::EditedMessage => {
            api.send_message(chat, &format!("now {text}")).await?;
        }
        _ if text == "/help" => {
            let buttons = json!({"inline_keyboard": [[{"text": "Yes", "callback_data": "y"}]]});
            let params = json!({"chat_id": chat, "text": "Sure?", "reply_markup": buttons});
            let _sent: Value = api.call("sendMessage", &params).await?;
        }
        _ => {
            let user = update.user_id().unwrap_or_default();
            api.send_message(chat, &format!("{user}: {text}")).await?;
        }
    }
    Ok(())
}

/// Runs the bot until `script` is through with the program; returns it, and how many updates the bot
/// has handled.
fn with_bot(
    api: BotApi,
    mut program: Program,
    script: impl FnOnce(&mut Program) + Send + 'static,
) -> (Program, u64) {
    let bot = Bot::for_each_with(api.clone(), api, reply);
    let mut playing = None;
    let report = runner::smol::run_with(bot, |handle: RunnerHandle<Incoming>| {
        playing = Some(thread::spawn(move || {
            // When the script fails, too.
            let _stop = Stop(handle);
            script(&mut program);
            program
        }));
    });
    let played = playing.expect("the bot has started").join();
    let program = played.expect("the script does not fail");
    (program, report.unwrap().counters.finished)
}

struct Stop(RunnerHandle<Incoming>);

impl Drop for Stop {
    fn drop(&mut self) {
        drop(self.0.stop());
    }
}

#[test]
fn what_is_typed_reaches_the_bot_and_its_answers_are_shown() {
    let (mut program, api) = with_api();
    program.type_line("/help");
    program.line("/callback DATA");
    program.type_line("/edit nothing");
    program.line("no message to edit");
    program.type_line("/callback y");
    program.line("no message that could have a button");
    program.type_line("hello");
    program.type_line("/pending");
    program.line("1 unconfirmed, no bot waits for more");

    let (mut program, finished) = with_bot(api, program, |program| {
        program.line("A bot polls.");
        assert_eq!(program.line("bot"), "bot to 1000: 1000: hello");
        program.type_line("/edit good bye");
        assert_eq!(program.line("bot"), "bot to 1000: now good bye");
        program.type_line("/as 7 it is me");
        assert_eq!(program.line("bot"), "bot to 7: 7: it is me");
        program.type_line("/in -100 all of you");
        assert_eq!(program.line("bot"), "bot to -100: 1000: all of you");
        program.type_line("/as 8");
        program.type_line("//help");
        assert_eq!(program.line("bot"), "bot to 8: Sure?");
        assert_eq!(program.line("["), "  [Yes] /callback y");
        program.type_line("/callback y");
        let line = program.line("bot");
        assert!(line.starts_with("bot calls answerCallbackQuery"), "{line}");
        assert!(line.ends_with("text=y pressed"), "{line}");
    });
    assert_eq!(finished, 6);
    program.type_line("/quit");
    assert!(program.child.wait().unwrap().success());
}

#[test]
fn a_fault_hits_the_next_call() {
    let (mut program, api) = with_api();
    program.type_line("/fault 401");
    program.type_line("/pending");
    program.line("0 unconfirmed");
    let bot = Bot::for_each_with(api.clone(), api.clone(), reply);
    let error = runner::smol::run(bot).unwrap_err();
    assert!(format!("{error:?}").contains("401"), "{error:?}");

    program.type_line("/fault unauthorized 100");
    program.type_line("/fault off");
    program.type_line("/fault 200");
    program.line("no fault \"200\"");
    program.type_line("hello");
    let (_, finished) = with_bot(api, program, |program| {
        program.line("bot to 1000: 1000: hello");
    });
    assert_eq!(finished, 1);
}

#[test]
fn it_serves_on_when_its_input_has_ended() {
    let (mut program, api) = with_api();
    program.type_line("hello");
    drop(program.input.take());
    let (mut program, finished) = with_bot(api, program, |program| {
        program.line("bot to 1000: 1000: hello");
    });
    assert_eq!(finished, 1);
    assert!(program.child.try_wait().unwrap().is_none(), "it has ended");
}

#[test]
fn a_port_can_be_asked_for_once() {
    let first = Program::start(&[]);
    let line = first.line("http://127.0.0.1:");
    let (_, rest) = line.split_once("http://127.0.0.1:").unwrap();
    let port: String = rest.chars().take_while(char::is_ascii_digit).collect();

    let second = Command::new(env!("CARGO_BIN_EXE_bot-api-local"))
        .args(["--port", &port])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(!second.status.success());
    let errors = String::from_utf8(second.stderr).unwrap();
    assert!(errors.contains(&format!("port {port}")), "{errors}");
}

#[test]
fn a_wrong_option_is_told() {
    for args in [&["--prot", "1"][..], &["--port"], &["--port", "many"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_bot-api-local"))
            .args(args)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2));
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(
            errors.contains(args[0]) && errors.contains("usage"),
            "{errors}"
        );
    }
}
