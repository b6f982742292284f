//! What orders updates: typed, scoped keys.

use std::{fmt, sync::Arc};

/// Something that two updates may share, and must then be handled one after the other.
///
/// A key is a scope and a value: chat 5 is not user 5. Scopes are plain names, so that
/// [`Key::new("order", 17)`](Self::new) needs no declaration.
///
/// ```
/// use runner_core::{Key, Value};
///
/// assert_ne!(Key::chat(5), Key::user(5));
/// assert_eq!(Key::new("order", "A-17").to_string(), "order A-17");
/// assert_eq!(Key::chat(5).value(), &Value::Number(5));
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Key {
    scope: &'static str,
    value: Value,
}

impl Key {
    /// A key in a scope of your own.
    pub fn new(scope: &'static str, value: impl Into<Value>) -> Self {
        Self {
            scope,
            value: value.into(),
        }
    }

    /// The key of a chat.
    #[must_use]
    pub const fn chat(id: i64) -> Self {
        Self {
            scope: "chat",
            value: Value::Number(id),
        }
    }

    /// The key of a user.
    #[must_use]
    pub const fn user(id: i64) -> Self {
        Self {
            scope: "user",
            value: Value::Number(id),
        }
    }

    /// What kind of thing the value names.
    #[must_use]
    pub const fn scope(&self) -> &'static str {
        self.scope
    }

    /// What is named within the scope.
    #[must_use]
    pub const fn value(&self) -> &Value {
        &self.value
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Value::Number(number) => write!(f, "{} {number}", self.scope),
            Value::Text(text) => write!(f, "{} {text}", self.scope),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

/// The value of a [`Key`] within its scope.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Value {
    /// A number, such as an id.
    Number(i64),
    /// A text, such as a name.
    Text(Arc<str>),
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<i32> for Value {
    fn from(number: i32) -> Self {
        Self::Number(number.into())
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}
