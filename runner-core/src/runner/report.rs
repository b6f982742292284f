//! How a run ended: [`Report`] and [`RunError`].

use std::{error::Error, fmt, io, num::NonZeroU32, sync::Arc, time::Duration};

use crate::{
    Cause, Confirmation, Counters, Delivery, LatencySummary, SourceError, queue::Ticket,
    queue::Unfinished as Unsettled, trace::Chain,
};

/// What became of the updates of one run.
///
/// Cheap to clone: everyone who awaits the end of a run gets the same report. `Display` makes one
/// line of it, for a log.
///
/// ```
/// use runner_core::{Fate, Report};
///
/// /// What only this report has, to be kept for later.
/// fn keep<U: Clone>(report: &Report<U>) -> Vec<U> {
///     let lost = report.abandoned.iter().filter(|left| left.fate != Fate::Redelivered);
///     lost.map(|left| U::clone(&left.update)).collect()
/// }
/// # let _ = keep::<u8>;
/// ```
#[non_exhaustive]
pub struct Report<U> {
    /// What ended the run.
    pub end: EndReason,
    /// How the updates ended, in numbers.
    pub counters: Counters,
    /// Every update that was neither finished nor given up, oldest first.
    pub abandoned: Arc<[Abandoned<U>]>,
    /// Whether the upstream knows what was handled.
    pub confirmation: Confirmation,
    /// Calls of the supplier in this run.
    pub calls: u64,
    /// How many of them failed. Requests to wait are no failures.
    pub failed_calls: u64,
    /// The text of the last error of such a call, with its causes. `None` if none failed in this run.
    pub last_error: Option<Arc<str>>,
    /// From the arrival of an update to its settlement.
    pub latency: LatencySummary,
    /// How long the run took.
    pub duration: Duration,
}

impl<U> Report<U> {
    /// Of a run that never began.
    pub(crate) fn empty() -> Self {
        Self {
            end: EndReason::Failed,
            counters: Counters::default(),
            abandoned: Arc::new([]),
            confirmation: Confirmation::NotNeeded,
            calls: 0,
            failed_calls: 0,
            last_error: None,
            latency: LatencySummary::default(),
            duration: Duration::ZERO,
        }
    }
}

impl<U> Clone for Report<U> {
    fn clone(&self) -> Self {
        Self {
            abandoned: Arc::clone(&self.abandoned),
            last_error: self.last_error.clone(),
            ..*self
        }
    }
}

impl<U> fmt::Debug for Report<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Report")
            .field("end", &self.end)
            .field("counters", &self.counters)
            .field("abandoned", &self.abandoned)
            .field("confirmation", &self.confirmation)
            .field("calls", &self.calls)
            .field("failed_calls", &self.failed_calls)
            .field("last_error", &self.last_error)
            .field("latency", &self.latency)
            .field("duration", &self.duration)
            .finish()
    }
}

/// One line for people: only what happened is mentioned.
impl<U> fmt::Display for Report<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counters {
            supplied,
            finished,
            failed,
            panicked,
            timed_out,
            undecodable,
            overflowed,
            abandoned,
            retried,
            detached,
        } = self.counters;
        write!(
            f,
            "{supplied} updates in {:.1?}: {finished} finished",
            self.duration
        )?;
        for (count, what) in [
            (failed, "failed"),
            (panicked, "panicked"),
            (timed_out, "timed out"),
            (undecodable, "undecodable"),
            (overflowed, "overflowed"),
            (abandoned, "abandoned"),
            (retried, "attempts repeated"),
            (detached, "late"),
        ] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        if self.failed_calls > 0 {
            let Self {
                calls,
                failed_calls,
                ..
            } = self;
            write!(f, "; {failed_calls} of {calls} fetches failed")?;
            // The error of a run that failed is said beside the report.
            if let Some(error) = &self.last_error
                && self.end != EndReason::Failed
            {
                write!(f, ", the last one: {error}")?;
            }
        }
        if self.end == EndReason::SupplyEnded {
            write!(f, "; {}", self.end)?;
        }
        match self.confirmation {
            Confirmation::NotNeeded => Ok(()),
            Confirmation::Confirmed { position } => write!(f, "; confirmed up to {position}"),
            Confirmation::Assumed { position } => {
                write!(f, "; confirmed up to {position}, not acknowledged")
            }
            Confirmation::Failed => f.write_str("; nothing confirmed"),
            Confirmation::Unconfirmed { position } => {
                write!(
                    f,
                    "; not confirmed up to {position}, expect the last updates once more"
                )
            }
        }
    }
}

/// What ended a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndReason {
    /// A stop was requested.
    Stopped,
    /// The supplier [had no more](crate::UpdateSupplier::is_exhausted).
    SupplyEnded,
    /// The run failed; the [`RunError`] says why.
    Failed,
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stopped => "stopped",
            Self::SupplyEnded => "the supply ended",
            Self::Failed => "failed",
        })
    }
}

/// An update that was neither finished nor given up before its run ended.
#[non_exhaustive]
pub struct Abandoned<U> {
    /// The update itself.
    pub update: Delivery<U>,
    /// Counts updates in the order in which they were supplied, from 0 at the beginning of the run.
    pub id: u64,
    /// Which attempt it would have been, or was; the first one is 1.
    pub attempt: NonZeroU32,
    /// Whether a handler has seen it, so that some of its effects may exist.
    pub started: bool,
    /// Whether its handler was cancelled and did not end: it may still be at work.
    ///
    /// A later run does not wait for it: until it ends, the order by key does not hold between its update
    /// and those of that run.
    pub unresponsive: bool,
    /// Whether it comes again.
    pub fate: Fate,
}

/// Whether an abandoned update comes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fate {
    /// The supplier returns it once more to the next run.
    Redelivered,
    /// The supplier has let go of it: this report holds the only copy.
    Lost,
    /// The supplier could not be asked, because the run was cut short or closing it failed.
    Unknown,
}

impl<U> Abandoned<U> {
    pub(crate) fn new(unsettled: Unsettled<U>, fate: Fate) -> Self {
        let Unsettled {
            item,
            id,
            attempt,
            started,
            unresponsive,
        } = unsettled;
        Self {
            update: item.deliver(attempt, started, Ticket::NONE),
            id,
            attempt,
            started,
            unresponsive,
            fate,
        }
    }
}

impl<U> Clone for Abandoned<U> {
    fn clone(&self) -> Self {
        Self {
            update: self.update.clone(),
            ..*self
        }
    }
}

impl<U> fmt::Debug for Abandoned<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Abandoned")
            .field("id", &self.id)
            .field("attempt", &self.attempt)
            .field("started", &self.started)
            .field("unresponsive", &self.unresponsive)
            .field("fate", &self.fate)
            .finish_non_exhaustive()
    }
}

/// Why a run ended although nobody asked it to.
///
/// Every variant carries the report, boxed, so that a `Result` of a run stays small. What was held
/// when the run failed was brought to an end as after `stop()`, unless the variant says otherwise.
#[non_exhaustive]
pub enum RunError<U> {
    /// Updates cannot be fetched, and trying again cannot help.
    Supply {
        /// Why, and what to do.
        source: Arc<SourceError>,
        /// What became of the updates.
        report: Box<Report<U>>,
    },
    /// The supplier panicked.
    SupplierPanicked {
        /// The text of the panic.
        panic: Arc<str>,
        /// What became of the updates.
        report: Box<Report<U>>,
    },
    /// The error policy answered [`Verdict::Stop`](crate::Verdict::Stop). The update in question is
    /// among the abandoned ones.
    Policy {
        /// What the policy was asked about.
        cause: Cause,
        /// What became of the updates.
        report: Box<Report<U>>,
    },
    /// The runtime was shut down while the runner was at work.
    RuntimeGone {
        /// What became of the updates.
        report: Box<Report<U>>,
    },
    /// The future of the run was dropped. Handlers were cancelled, nothing was confirmed.
    Dropped {
        /// What became of the updates.
        report: Box<Report<U>>,
    },
    /// Not the end of a run: a handler, the error policy or the sink of a run has waited for the end of
    /// that very run, which waits for them in turn. The run goes on.
    ///
    /// Call [`stop`](crate::RunnerHandle::stop) and drop its future, or await it in a task that is
    /// spawned.
    AwaitedInHandler {
        /// Of no update: the run has not ended.
        report: Box<Report<U>>,
    },
    /// The run did not begin, because the system did not give it what it needs.
    Setup {
        /// What was to be done, such as "listen for signals".
        task: &'static str,
        /// What the system said.
        source: Arc<io::Error>,
        /// Of no update.
        report: Box<Report<U>>,
    },
}

impl<U> RunError<U> {
    /// The error of a run that did not begin: the system refused `task`.
    ///
    /// For code that makes a runtime and then runs on it, as `run` of the runtime crates does. `task`
    /// completes the sentence "cannot …".
    #[must_use]
    pub fn setup(task: &'static str, source: io::Error) -> Self {
        Self::Setup {
            task,
            source: Arc::new(source),
            report: Box::new(Report::empty()),
        }
    }

    /// What became of the updates of the run.
    #[must_use]
    pub fn report(&self) -> &Report<U> {
        match self {
            Self::Supply { report, .. }
            | Self::SupplierPanicked { report, .. }
            | Self::Policy { report, .. }
            | Self::RuntimeGone { report }
            | Self::Dropped { report }
            | Self::AwaitedInHandler { report }
            | Self::Setup { report, .. } => report,
        }
    }
}

impl<U> Clone for RunError<U> {
    fn clone(&self) -> Self {
        match self {
            Self::Supply { source, report } => Self::Supply {
                source: Arc::clone(source),
                report: report.clone(),
            },
            Self::SupplierPanicked { panic, report } => Self::SupplierPanicked {
                panic: Arc::clone(panic),
                report: report.clone(),
            },
            Self::Policy { cause, report } => Self::Policy {
                cause: cause.clone(),
                report: report.clone(),
            },
            Self::RuntimeGone { report } => Self::RuntimeGone {
                report: report.clone(),
            },
            Self::Dropped { report } => Self::Dropped {
                report: report.clone(),
            },
            Self::AwaitedInHandler { report } => Self::AwaitedInHandler {
                report: report.clone(),
            },
            Self::Setup {
                task,
                source,
                report,
            } => Self::Setup {
                task,
                source: Arc::clone(source),
                report: report.clone(),
            },
        }
    }
}

impl<U> fmt::Display for RunError<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Supply { .. } => f.write_str("the run ended because updates cannot be fetched"),
            Self::SupplierPanicked { panic, .. } => {
                write!(f, "the run ended because the supplier panicked: {panic}")
            }
            Self::Policy { .. } => f.write_str("the run was ended by the error policy"),
            Self::RuntimeGone { .. } => f.write_str(
                "the run ended because its async runtime was shut down; stop the runner before the \
                 runtime",
            ),
            Self::Dropped { .. } => f.write_str(
                "the run ended because its future was dropped; call stop() and await the report \
                 for a graceful end",
            ),
            Self::AwaitedInHandler { .. } => f.write_str(
                "the end of a run was awaited inside a handler of that run, which has to end first; \
                 call stop() and drop its future, or await it in a task of its own",
            ),
            Self::Setup { task, .. } => write!(f, "the run did not begin: cannot {task}"),
        }
    }
}

/// The error with its causes, and the report, on one line: a `main` that returns the error prints
/// this, and its readers need to know what to do. `{:#?}` shows the fields.
impl<U> fmt::Debug for RunError<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !f.alternate() {
            return write!(f, "{} ({})", Chain(self), self.report());
        }
        match self {
            Self::Supply { source, report } => f
                .debug_struct("Supply")
                .field("source", source)
                .field("report", report)
                .finish(),
            Self::SupplierPanicked { panic, report } => f
                .debug_struct("SupplierPanicked")
                .field("panic", panic)
                .field("report", report)
                .finish(),
            Self::Policy { cause, report } => f
                .debug_struct("Policy")
                .field("cause", cause)
                .field("report", report)
                .finish(),
            Self::RuntimeGone { report } => f
                .debug_struct("RuntimeGone")
                .field("report", report)
                .finish(),
            Self::Dropped { report } => f.debug_struct("Dropped").field("report", report).finish(),
            Self::AwaitedInHandler { report } => f
                .debug_struct("AwaitedInHandler")
                .field("report", report)
                .finish(),
            Self::Setup {
                task,
                source,
                report,
            } => f
                .debug_struct("Setup")
                .field("task", task)
                .field("source", source)
                .field("report", report)
                .finish(),
        }
    }
}

impl<U> Error for RunError<U> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Supply { source, .. } => Some(&**source),
            Self::Policy { cause, .. } => Some(cause),
            Self::Setup { source, .. } => Some(&**source),
            Self::SupplierPanicked { .. }
            | Self::RuntimeGone { .. }
            | Self::Dropped { .. }
            | Self::AwaitedInHandler { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SupplyError;

    #[test]
    fn a_main_that_returns_the_error_prints_what_to_do() {
        let refused = SupplyError::fatal("401 Unauthorized");
        let error = RunError::<u8>::Supply {
            source: Arc::new(SourceError::Supply(refused)),
            report: Box::new(Report::empty()),
        };
        // The same by way of the box that most of them return.
        let error: Box<dyn Error> = error.into();
        assert_eq!(
            format!("{error:?}"),
            "the run ended because updates cannot be fetched: trying again cannot help; for a bot, \
             check its token and the address of the Bot API server: 401 Unauthorized \
             (0 updates in 0.0ns: 0 finished)"
        );
        assert!(format!("{error:#?}").contains("counters: Counters {"));
    }

    #[test]
    fn a_run_that_did_not_begin_says_what_was_refused() {
        let refused = io::Error::from(io::ErrorKind::PermissionDenied);
        let error = RunError::<u8>::setup("listen for signals", refused);
        let text = error.to_string();
        assert_eq!(text, "the run did not begin: cannot listen for signals");
        let source = error.source().unwrap().to_string();
        assert_eq!(source, "permission denied");
        assert_eq!(error.report().counters.supplied, 0);
        assert_eq!(error.clone().to_string(), text);
    }
}
