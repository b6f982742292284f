//! What kinds of update there are.

use std::fmt;

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// What an update is about: the name of its one field beside `update_id`.
        ///
        /// Source: <https://core.telegram.org/bots/api#update>.
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum UpdateKind {
            $($(#[$doc])* $variant,)*
            /// A kind that this version does not know, by its name on the wire (cut off at 64
            /// bytes). Empty if the update has no field beside `update_id`.
            Other(Box<str>),
        }

        impl UpdateKind {
            /// Every kind that this version knows: what to ask for if all are wanted, as
            /// `chat_member` and reactions are only sent to those who name them.
            pub const KNOWN: &[Self] = &[$(Self::$variant),*];

            /// The name on the wire, as `allowed_updates` takes it.
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $name,)*
                    Self::Other(name) => name,
                }
            }

            /// The kind of this name.
            #[must_use]
            pub fn from_name(name: &str) -> Self {
                Self::known(name.as_bytes()).unwrap_or_else(|| {
                    Self::Other(name[..name.floor_char_boundary(MAX_NAME)].into())
                })
            }

            /// The kind of this name, if this version knows it.
            pub(crate) fn known(name: &[u8]) -> Option<Self> {
                $(if name == $name.as_bytes() {
                    return Some(Self::$variant);
                })*
                None
            }
        }
    };
}

kinds! {
    /// A new message.
    Message = "message",
    /// A message was edited.
    EditedMessage = "edited_message",
    /// A new post in a channel.
    ChannelPost = "channel_post",
    /// A post in a channel was edited.
    EditedChannelPost = "edited_channel_post",
    /// A query was typed behind the bot's name.
    InlineQuery = "inline_query",
    /// A result of an inline query was sent.
    ChosenInlineResult = "chosen_inline_result",
    /// A button was pressed.
    CallbackQuery = "callback_query",
    /// A shipping address was entered.
    ShippingQuery = "shipping_query",
    /// A payment is about to be made.
    PreCheckoutQuery = "pre_checkout_query",
    /// The state of a poll changed.
    Poll = "poll",
    /// A vote in a poll that is not anonymous.
    PollAnswer = "poll_answer",
    /// The bot's own membership changed.
    MyChatMember = "my_chat_member",
    /// A member's status changed.
    ChatMember = "chat_member",
    /// Somebody asks to join a chat.
    ChatJoinRequest = "chat_join_request",
    /// A chat was boosted.
    ChatBoost = "chat_boost",
    /// A boost was taken back.
    RemovedChatBoost = "removed_chat_boost",
    /// A reaction to a message changed.
    MessageReaction = "message_reaction",
    /// The anonymous reactions to a message changed.
    MessageReactionCount = "message_reaction_count",
    /// The bot was connected to a business account, or disconnected.
    BusinessConnection = "business_connection",
    /// A new message in a connected business account.
    BusinessMessage = "business_message",
    /// A message in a connected business account was edited.
    EditedBusinessMessage = "edited_business_message",
    /// Messages in a connected business account were deleted.
    DeletedBusinessMessages = "deleted_business_messages",
    /// Paid media was bought.
    PurchasedPaidMedia = "purchased_paid_media",
    /// A managed bot was created, or its token or owner changed.
    ManagedBot = "managed_bot",
    /// A message from a chat that the bot is not in.
    GuestMessage = "guest_message",
    /// A subscription changed.
    Subscription = "subscription",
}

impl UpdateKind {
    /// Whether its content is decoded.
    ///
    /// What the newest kinds look like is not known for sure, so nothing of them is looked at.
    pub(crate) fn has_known_shape(&self) -> bool {
        !matches!(self, Self::Other(_) | Self::Subscription)
    }
}

impl fmt::Display for UpdateKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// For `FetchOptions::allowed_updates`.
impl From<UpdateKind> for String {
    fn from(kind: UpdateKind) -> Self {
        kind.as_str().to_owned()
    }
}

/// A hostile answer must not make every header large.
const MAX_NAME: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_kinds_agree() {
        for kind in UpdateKind::KNOWN {
            assert_eq!(&UpdateKind::from_name(kind.as_str()), kind);
        }
        assert_eq!(
            UpdateKind::from_name("teleport_request").as_str(),
            "teleport_request"
        );
    }

    #[test]
    fn a_long_name_is_cut_at_a_character() {
        let kind = UpdateKind::from_name(&"é".repeat(50));
        assert_eq!(kind.as_str(), "é".repeat(32));
        let kind = UpdateKind::from_name(&format!("x{}", "é".repeat(50)));
        assert_eq!(kind.as_str().len(), 63);
    }
}
