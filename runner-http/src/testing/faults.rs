//! Clients with one fault each, to show that the suite finds it.

use std::{num::NonZeroUsize, panic, time::Duration};

use super::{cases, message, park_on};
use crate::client::{
    ClientOptions, HttpClient, HttpError, HttpErrorKind, HttpRequest, HttpResponse, Lane, Limits,
    UreqClient,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    TellsTheUrl,
    FailsOnStatus,
    ForgetsRetryAfter,
    SharesTheLane,
    ReconnectsEveryTime,
    RepeatsEverything,
    NeverRepeats,
    IgnoresLimits,
    CutsBodies,
    GoesOnWhenDropped,
    FollowsRedirects,
    RunsFewCallsAtATime,
}

#[derive(Debug)]
struct Faulty {
    fault: Fault,
    client: UreqClient,
}

impl HttpClient for Faulty {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let mut client = self.client.clone();
        let mut sent = request.clone();
        match self.fault {
            Fault::SharesTheLane => sent.lane = Lane::Poll,
            Fault::NeverRepeats => sent.lane = Lane::Call,
            Fault::ReconnectsEveryTime => client = UreqClient::new(),
            Fault::IgnoresLimits => {
                sent.limits = Limits::default();
                sent.limits.body = LATE;
                sent.limits.answer = LATE;
            }
            Fault::GoesOnWhenDropped => {
                let (sender, answer) = futures::channel::oneshot::channel();
                std::thread::spawn(move || {
                    park_on(Box::pin(async {
                        let _ = sender.send(client.send(sent).await);
                    }));
                });
                return answer.await.unwrap();
            }
            _ => {}
        }
        let mut outcome = client.send(sent.clone()).await;
        match (self.fault, &mut outcome) {
            (Fault::RepeatsEverything, Err(_)) => outcome = client.send(sent).await,
            (Fault::TellsTheUrl, Err(error)) => {
                return Err(HttpError::new(error.kind()).with_source(request.url));
            }
            (Fault::FailsOnStatus, Ok(response)) if response.status >= 400 => {
                return Err(HttpError::new(HttpErrorKind::Malformed));
            }
            (Fault::FollowsRedirects, Ok(response)) if response.status / 100 == 3 => {
                response.status = 200;
            }
            (Fault::ForgetsRetryAfter, Ok(response)) => response.retry_after = None,
            (Fault::CutsBodies, Ok(response)) => response.body.truncate(1 << 20),
            _ => {}
        }
        outcome
    }
}

/// What the case says to a client with this fault.
fn run(fault: Fault, case: &str) -> Result<(), String> {
    let make = || Faulty {
        fault,
        client: match fault {
            Fault::RunsFewCallsAtATime => {
                let few = NonZeroUsize::new(8).unwrap();
                UreqClient::with_options(ClientOptions::default().threads(few))
            }
            _ => UreqClient::new(),
        },
    };
    let mut lab = cases::Lab::new(&make);
    lab.patience = PATIENCE;
    let case = cases::all()
        .into_iter()
        .find(|known| known.name == case)
        .unwrap();
    panic::catch_unwind(panic::AssertUnwindSafe(|| park_on((case.run)(&lab))))
        .map_err(|panic| message(&*panic).to_owned())
}

#[test]
fn the_suite_finds_faults() {
    for (fault, case, finding) in [
        (Fault::TellsTheUrl, "closed_in_the_body", "shows the token"),
        (
            Fault::FailsOnStatus,
            "every_status_is_an_answer",
            "failed with",
        ),
        (Fault::ForgetsRetryAfter, "keeps_retry_after", ""),
        (
            Fault::SharesTheLane,
            "polls_have_connections_of_their_own",
            "",
        ),
        (Fault::ReconnectsEveryTime, "keeps_connections", ""),
        (
            Fault::RepeatsEverything,
            "repeats_nothing_on_a_new_connection",
            "",
        ),
        (
            Fault::NeverRepeats,
            "repeats_a_poll_on_a_stale_connection_once",
            "failed with",
        ),
        (Fault::IgnoresLimits, "no_answer", "after"),
        (Fault::IgnoresLimits, "a_body_that_trickles", "after"),
        (
            Fault::IgnoresLimits,
            "refuses_a_body_that_is_too_large",
            "answered",
        ),
        (Fault::IgnoresLimits, "refuses_a_gzip_bomb", "answered"),
        (Fault::CutsBodies, "a_large_body", "another"),
        (Fault::FollowsRedirects, "follows_no_redirect", ""),
        (
            Fault::RunsFewCallsAtATime,
            "calls_that_are_held_keep_no_other_waiting",
            "nothing happened",
        ),
        (
            Fault::GoesOnWhenDropped,
            "a_dropped_future_closes_its_connection",
            "nothing happened",
        ),
    ] {
        assert_eq!(run(Fault::None, case), Ok(()), "{case}");
        let found = run(fault, case).expect_err(case);
        assert!(found.contains(finding), "{fault:?}: {found}");
    }
}

/// Later than any case allows for its limits.
const LATE: Duration = Duration::from_millis(2500);

const PATIENCE: Duration = Duration::from_secs(4);
