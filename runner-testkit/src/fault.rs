//! What goes wrong, and when: [`Fault`], [`FaultRule`] and the [`FaultPlan`] they make.
//!
//! Pure: the plan says which call is hit; the connection does the damage.

use std::{fmt, time::Duration};

use crate::params::Params;

/// One thing that goes wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// 502 with an HTML page, as of a proxy in front of the server.
    BadGateway,
    /// 500 `Internal Server Error: restart`, as JSON.
    InternalError,
    /// 429 with this many seconds in `parameters.retry_after` and `Retry-After`.
    TooManyRequests(u32),
    /// 409, as if someone else polled.
    Conflict,
    /// 401, as of a revoked token.
    Unauthorized,
    /// 403 `Forbidden: bot was blocked by the user`.
    Forbidden,
    /// 404, as of a wrong address.
    NotFound,
    /// 302 to the server's own address.
    Redirect,
    /// 200 without a body.
    EmptyBody,
    /// 200 whose JSON ends early, although its length is as declared.
    TruncatedJson,
    /// 200 that declares half the length it has, so that the rest of it lies in the way of the next
    /// answer.
    WrongLength,
    /// A reset (RST) halfway through the body.
    Reset,
    /// An orderly close halfway through the body.
    Close,
    /// A close before a single byte of the answer, as of a pooled connection that was idle too long.
    CloseUnanswered,
    /// Never answers and never closes, as of a peer whose cable was cut.
    HalfOpen,
    /// Sends byte by byte, with this pause before each.
    Trickle(Duration),
    /// Waits so long; the answer is right.
    Delay(Duration),
    /// An answer that is right and has at least 4 MiB, by one more field beside `result`.
    Oversized,
}

impl Fault {
    /// The name of the fault in counters and in the control API, like `bad_gateway`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BadGateway => "bad_gateway",
            Self::InternalError => "internal_error",
            Self::TooManyRequests(_) => "too_many_requests",
            Self::Conflict => "conflict",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Redirect => "redirect",
            Self::EmptyBody => "empty_body",
            Self::TruncatedJson => "truncated_json",
            Self::WrongLength => "wrong_length",
            Self::Reset => "reset",
            Self::Close => "close",
            Self::CloseUnanswered => "close_unanswered",
            Self::HalfOpen => "half_open",
            Self::Trickle(_) => "trickle",
            Self::Delay(_) => "delay",
            Self::Oversized => "oversized",
        }
    }

    /// The fault of that [name](Self::name); `seconds` is for those that take a number or a span.
    #[must_use]
    pub fn named(name: &str, seconds: f64) -> Option<Self> {
        let span = Duration::try_from_secs_f64(seconds).ok()?;
        Some(match name {
            "bad_gateway" => Self::BadGateway,
            "internal_error" => Self::InternalError,
            "too_many_requests" => {
                Self::TooManyRequests(u32::try_from(span.as_secs()).unwrap_or(u32::MAX))
            }
            "conflict" => Self::Conflict,
            "unauthorized" => Self::Unauthorized,
            "forbidden" => Self::Forbidden,
            "not_found" => Self::NotFound,
            "redirect" => Self::Redirect,
            "empty_body" => Self::EmptyBody,
            "truncated_json" => Self::TruncatedJson,
            "wrong_length" => Self::WrongLength,
            "reset" => Self::Reset,
            "close" => Self::Close,
            "close_unanswered" => Self::CloseUnanswered,
            "half_open" => Self::HalfOpen,
            "trickle" => Self::Trickle(span),
            "delay" => Self::Delay(span),
            "oversized" => Self::Oversized,
            _ => return None,
        })
    }

    /// Whether the answer arrives whole and right in spite of the fault.
    pub(crate) fn is_harmless(self) -> bool {
        matches!(self, Self::Trickle(_) | Self::Delay(_) | Self::Oversized)
    }
}

/// Whether a call that is hit has an effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// The server never sees the call: no offset is confirmed, no message is sent.
    #[default]
    Before,
    /// The call is carried out and recorded, and only its answer is lost: what makes duplicates.
    After,
}

/// A fault with the calls that it hits.
///
/// By default it hits every call of every method, before it is carried out.
#[derive(Clone, Debug)]
#[must_use = "a rule does nothing until it is part of a plan"]
pub struct FaultRule {
    fault: Fault,
    method: Option<String>,
    param: Option<(String, String)>,
    stage: Stage,
    skip: u64,
    times: Option<u64>,
    chance: f64,
}

impl FaultRule {
    /// A rule that hits every call.
    pub fn new(fault: Fault) -> Self {
        Self {
            fault,
            method: None,
            param: None,
            stage: Stage::Before,
            skip: 0,
            times: None,
            chance: 1.0,
        }
    }

    /// Hits only calls of this method, in any case of letters. Default: any method.
    pub fn method(mut self, method: impl Into<String>) -> Self {
        self.method = Some(method.into());
        self
    }

    /// Hits only calls that have this parameter with exactly this value, as it was sent: the reply to
    /// one chat, or one text. Default: any call. The last one set counts.
    ///
    /// ```
    /// # use runner_testkit::{Fault, FaultRule};
    /// let rule = FaultRule::new(Fault::Forbidden).method("sendMessage").param("chat_id", "42");
    /// ```
    pub fn param(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.param = Some((name.into(), value.into()));
        self
    }

    /// Whether the call is carried out. Default: it is not. Faults that leave the answer right
    /// ([`Trickle`](Fault::Trickle), [`Delay`](Fault::Delay), [`Oversized`](Fault::Oversized)) always
    /// let it be carried out; for a delay, this says whether it comes before or after.
    pub fn stage(mut self, stage: Stage) -> Self {
        self.stage = stage;
        self
    }

    /// Lets this many calls pass before the first hit. Default: none.
    pub fn skip(mut self, calls: u64) -> Self {
        self.skip = calls;
        self
    }

    /// Ends after this many hits. Default: never.
    pub fn times(mut self, hits: u64) -> Self {
        self.times = Some(hits);
        self
    }

    /// Hits a call with this probability, drawn from the seed of the plan. Default: 1.
    pub fn chance(mut self, chance: f64) -> Self {
        self.chance = chance;
        self
    }

    fn concerns(&self, method: &str, params: &Params) -> bool {
        let is_method = |wanted: &String| wanted.eq_ignore_ascii_case(method);
        let is_param = |(name, value): &(String, String)| params.get(name) == Some(value);
        self.method.as_ref().is_none_or(is_method) && self.param.as_ref().is_none_or(is_param)
    }
}

/// Which calls go wrong, and how.
///
/// The rules are tried in the order in which they were added, and the first that hits a call decides.
/// So rules with [`times`](FaultRule::times) make a sequence, and rules with
/// [`chance`](FaultRule::chance) a random mix, the same one for the same seed and order of calls.
///
/// ```
/// use runner_testkit::{Fault, FaultPlan, FaultRule, Stage};
///
/// let plan = FaultPlan::new(7)
///     .once(Fault::BadGateway)
///     .rule(FaultRule::new(Fault::TooManyRequests(2)).method("sendMessage").times(3))
///     .rule(FaultRule::new(Fault::Reset).method("getUpdates").stage(Stage::After).chance(0.1));
/// ```
pub struct FaultPlan {
    rules: Vec<Rule>,
    random: fastrand::Rng,
    counts: Vec<(&'static str, u64)>,
}

struct Rule {
    rule: FaultRule,
    /// Calls that came as far as this rule and that it could have hit.
    seen: u64,
    hits: u64,
}

impl FaultPlan {
    /// A plan under which nothing goes wrong. The seed is for rules with a chance.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            rules: Vec::new(),
            random: fastrand::Rng::with_seed(seed),
            counts: Vec::new(),
        }
    }

    /// Adds a rule.
    #[must_use]
    pub fn rule(mut self, rule: FaultRule) -> Self {
        self.add(rule);
        self
    }

    /// Adds a fault that hits one getUpdates, before it is carried out.
    #[must_use]
    pub fn once(self, fault: Fault) -> Self {
        self.rule(FaultRule::new(fault).method("getUpdates").times(1))
    }

    pub(crate) fn add(&mut self, rule: FaultRule) {
        self.rules.push(Rule {
            rule,
            seen: 0,
            hits: 0,
        });
    }

    /// Drops all rules; the counters stay.
    pub(crate) fn clear(&mut self) {
        self.rules.clear();
    }

    /// Takes over the rules and the seed of another plan; the counters stay.
    pub(crate) fn replace(&mut self, plan: Self) {
        self.rules = plan.rules;
        self.random = plan.random;
    }

    /// How often each kind of fault has hit, by its name.
    pub(crate) fn counts(&self) -> &[(&'static str, u64)] {
        &self.counts
    }

    /// The fault that hits this call.
    pub(crate) fn next(&mut self, method: &str, params: &Params) -> Option<(Fault, Stage)> {
        for Rule { rule, seen, hits } in &mut self.rules {
            let is_over = rule.times.is_some_and(|times| *hits >= times);
            if is_over || !rule.concerns(method, params) {
                continue;
            }
            *seen += 1;
            // The chance is drawn only where it decides, so that adding a certain rule to a plan does
            // not change what the random ones do.
            if *seen <= rule.skip || (rule.chance < 1.0 && self.random.f64() >= rule.chance) {
                continue;
            }
            *hits += 1;
            let name = rule.fault.name();
            match self.counts.iter_mut().find(|(known, _)| *known == name) {
                Some((_, count)) => *count += 1,
                None => self.counts.push((name, 1)),
            }
            return Some((rule.fault, rule.stage));
        }
        None
    }
}

impl fmt::Debug for FaultPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules: Vec<_> = self
            .rules
            .iter()
            .map(|Rule { rule, hits, .. }| (rule, hits))
            .collect();
        f.debug_struct("FaultPlan")
            .field("rules", &rules)
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_with_a_count_make_a_sequence() {
        let mut plan = FaultPlan::new(1)
            .rule(FaultRule::new(Fault::Reset).skip(1).times(2))
            .rule(FaultRule::new(Fault::Close).stage(Stage::After).times(1));
        let hits: Vec<_> = (0..6)
            .map(|_| plan.next("getMe", &Params::default()))
            .collect();
        assert_eq!(
            hits,
            [
                Some((Fault::Close, Stage::After)),
                Some((Fault::Reset, Stage::Before)),
                Some((Fault::Reset, Stage::Before)),
                None,
                None,
                None,
            ]
        );
        assert_eq!(plan.counts(), [("close", 1), ("reset", 2)]);
    }

    #[test]
    fn a_rule_of_a_method_leaves_the_others_alone() {
        let mut plan = FaultPlan::new(1).once(Fault::BadGateway);
        assert_eq!(plan.next("sendMessage", &Params::default()), None);
        assert_eq!(
            plan.next("GETUPDATES", &Params::default()),
            Some((Fault::BadGateway, Stage::Before))
        );
        assert_eq!(plan.next("getUpdates", &Params::default()), None);
    }

    #[test]
    fn a_rule_of_a_parameter_leaves_other_values_alone() {
        let mut plan = FaultPlan::new(1).rule(FaultRule::new(Fault::Reset).param("text", "7"));
        let mut hit = |text: &[u8]| {
            let mut params = Params::default();
            params.add_urlencoded(text);
            plan.next("sendMessage", &params).is_some()
        };
        assert!(!hit(b"chat_id=7"));
        assert!(!hit(b"chat_id=7&text=77"));
        assert!(hit(b"chat_id=1&text=7"));
    }

    #[test]
    fn chances_follow_the_seed() {
        let hits = |seed| -> Vec<bool> {
            let mut plan = FaultPlan::new(seed).rule(FaultRule::new(Fault::Reset).chance(0.3));
            (0..1000)
                .map(|_| plan.next("m", &Params::default()).is_some())
                .collect()
        };
        assert_eq!(hits(5), hits(5));
        assert_ne!(hits(5), hits(6));
        let count = hits(5).iter().filter(|hit| **hit).count();
        assert!((230..370).contains(&count), "{count}");
    }

    #[test]
    fn every_fault_is_found_by_its_name() {
        for fault in [
            Fault::BadGateway,
            Fault::InternalError,
            Fault::TooManyRequests(3),
            Fault::Conflict,
            Fault::Unauthorized,
            Fault::Forbidden,
            Fault::NotFound,
            Fault::Redirect,
            Fault::EmptyBody,
            Fault::TruncatedJson,
            Fault::WrongLength,
            Fault::Reset,
            Fault::Close,
            Fault::CloseUnanswered,
            Fault::HalfOpen,
            Fault::Trickle(Duration::from_secs(3)),
            Fault::Delay(Duration::from_secs(3)),
            Fault::Oversized,
        ] {
            assert_eq!(Fault::named(fault.name(), 3.0), Some(fault));
        }
        assert_eq!(Fault::named("delay", -1.0), None);
        assert_eq!(Fault::named("flood", 1.0), None);
    }
}
