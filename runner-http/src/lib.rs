//! The Telegram Bot API over pluggable HTTP clients.
