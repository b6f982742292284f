//! Nothing lost and nothing handled twice, whatever the wire does: bots over every client and on
//! every runtime against a Bot API server on loopback.
//!
//! `RUNNER_WIRE_UPDATES=5000` makes it long.

mod abandoned;
mod cases;
#[cfg(unix)]
mod ends;
#[cfg(unix)]
mod kill;
mod matrix;
#[cfg(unix)]
mod process;
mod world;

use runner::http::{HyperClient, UreqClient};

use self::{matrix::Waits, world::Place};

macro_rules! everywhere {
    ($($place:ident $on:ident $client:ident)*) => {$(
        mod $place {
            use super::*;

            #[test]
            fn every_fault_costs_what_the_table_says() {
                matrix::try_all(Place::$on, $client::new, stringify!($place), Waits::NeverShort);
            }

            #[test]
            #[ignore = "measures waits: needs a machine that does nothing else"]
            fn every_wait_is_as_long_as_the_table_says() {
                matrix::try_all(Place::$on, $client::new, stringify!($place), Waits::NeverLong);
            }

            #[test]
            fn a_rolling_deploy_hands_over() {
                cases::a_rolling_deploy_hands_over(Place::$on, $client::new);
            }

            #[test]
            fn a_deploy_under_load_loses_nothing() {
                cases::a_deploy_under_load_loses_nothing(Place::$on, $client::new);
            }

            #[test]
            #[ignore = "six waits of 5 s to 10 s each"]
            fn of_two_that_stay_one_goes_on() {
                cases::of_two_that_stay_one_goes_on(Place::$on, $client::new);
            }

            #[cfg(unix)]
            #[test]
            fn a_process_that_is_ended_and_started_again_loses_nothing() {
                ends::a_process_that_is_ended_and_started_again_loses_nothing(stringify!($place));
            }

            #[cfg(unix)]
            #[test]
            fn a_killed_sequential_bot_loses_nothing_and_repeats_what_it_had_of_a_batch() {
                kill::a_sequential_bot(stringify!($place));
            }

            #[cfg(unix)]
            #[test]
            fn a_killed_batch_bot_loses_nothing_and_repeats_what_it_had_of_a_batch() {
                kill::a_batch_bot(stringify!($place));
            }

            #[cfg(unix)]
            #[test]
            fn a_killed_concurrent_bot_loses_at_most_what_it_held() {
                kill::a_concurrent_bot(stringify!($place));
            }

            #[cfg(unix)]
            #[test]
            fn a_bot_killed_while_it_waits_loses_and_repeats_nothing() {
                kill::a_bot_that_waits(stringify!($place));
            }

            #[test]
            fn a_full_bot_says_what_it_abandons() {
                abandoned::a_full_bot(&Place::$on(), $client::new);
            }

            #[test]
            fn a_bot_that_waits_says_what_it_abandons() {
                abandoned::a_bot_that_waits(&Place::$on(), $client::new);
            }

            #[test]
            fn a_sequential_bot_says_what_it_abandons() {
                abandoned::a_sequential_bot(&Place::$on(), $client::new);
            }

            #[test]
            fn a_batch_bot_says_what_it_abandons() {
                abandoned::a_batch_bot(&Place::$on(), $client::new);
            }

            #[test]
            fn a_webhook_is_deleted_once() {
                cases::a_webhook_is_deleted_once(&Place::$on(), $client::new());
            }

            #[test]
            fn a_webhook_ends_the_run() {
                cases::a_webhook_ends_the_run(&Place::$on(), $client::new());
            }

            #[test]
            fn ids_that_jump_are_followed() {
                cases::ids_that_jump_are_followed(&Place::$on(), $client::new());
            }

            #[test]
            fn odd_updates_cost_nobody_else_anything() {
                cases::odd_updates_cost_nobody_else_anything(&Place::$on(), $client::new());
            }
        }
    )*};
}

everywhere! {
    ureq_on_tokio tokio UreqClient
    ureq_on_smol smol UreqClient
    hyper_on_tokio tokio HyperClient
    hyper_on_smol smol HyperClient
}
