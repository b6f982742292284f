//! Who [`Traffic`](crate::Traffic) is between: chats and users as they appear in updates, made up from
//! their ids.

/// A chat, which follows from its id.
#[derive(Clone, Copy)]
pub(crate) struct Chat {
    pub(crate) id: i64,
}

impl Chat {
    /// One of the chats, counted from 0.
    pub(crate) fn number(number: u32) -> Self {
        let offset = i64::from(number) + 1;
        Self {
            id: match number % 20 {
                5 => CHANNELS - offset,
                9 => GROUPS - offset,
                2 | 7 | 11 | 14 | 18 => SUPERGROUPS - offset,
                _ => USERS + offset,
            },
        }
    }

    pub(crate) fn is_private(self) -> bool {
        self.id > 0
    }

    pub(crate) fn is_channel(self) -> bool {
        self.id < CHANNELS
    }

    pub(crate) fn json(self) -> String {
        let id = self.id;
        if self.is_private() {
            let (first, last) = names(id);
            format!(
                r#"{{"id":{id},"first_name":"{first}","last_name":"{last}","username":"user_{id}","type":"private"}}"#
            )
        } else if self.is_channel() {
            format!(
                r#"{{"id":{id},"title":"News {}","username":"news_{}","type":"channel"}}"#,
                CHANNELS - id,
                CHANNELS - id
            )
        } else if id < SUPERGROUPS {
            format!(
                r#"{{"id":{id},"title":"Комната {}","is_forum":false,"type":"supergroup"}}"#,
                SUPERGROUPS - id
            )
        } else {
            format!(
                r#"{{"id":{id},"title":"Room {}","type":"group","all_members_are_administrators":true}}"#,
                GROUPS - id
            )
        }
    }
}

/// A user, who follows from the id.
pub(crate) fn user_json(id: i64) -> String {
    let (first, last) = names(id);
    let language = ["en", "ru", "pt", "de"][(id % 4).unsigned_abs() as usize];
    let premium = if id % 5 == 0 {
        r#","is_premium":true"#
    } else {
        ""
    };
    format!(
        r#"{{"id":{id},"is_bot":false,"first_name":"{first}","last_name":"{last}","username":"user_{id}","language_code":"{language}"{premium}}}"#
    )
}

fn names(id: i64) -> (&'static str, &'static str) {
    let pick = |names: &[&'static str], step: i64| {
        let index = (id / step).unsigned_abs() as usize % names.len();
        names[index]
    };
    (pick(&FIRST_NAMES, 1), pick(&LAST_NAMES, 3))
}

/// The ids of users begin after this.
pub(crate) const USERS: i64 = 700_100_000;
const SUPERGROUPS: i64 = -1_001_900_000_000;
const GROUPS: i64 = -4_000_000;
const CHANNELS: i64 = -1_002_900_000_000;

/// The bot as a user.
pub(crate) const BOT: &str =
    r#"{"id":600700800,"is_bot":true,"first_name":"Local","username":"local_runner_bot"}"#;

const FIRST_NAMES: [&str; 8] = [
    "Mira",
    "Jonas",
    "Анна",
    "Yuki",
    "Omar",
    "Ленка",
    "Zoë",
    "Li",
];
const LAST_NAMES: [&str; 6] = ["Sample", "Иванова", "Okafor", "Núñez", "Sato", "Berg"];
