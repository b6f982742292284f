//! Every example prints what it is expected to print.

mod check;

use std::{fs, path::Path};

use check::check;

macro_rules! examples {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                check(stringify!($name), &[]);
            }
        )*

        /// An example that is missing here would never be run.
        #[test]
        fn every_example_is_checked() {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
            let mut found: Vec<String> = fs::read_dir(folder)
                .expect("this folder can be read")
                .filter_map(|entry| {
                    let path = entry.expect("this folder can be read").path();
                    let is_source = path.extension().is_some_and(|extension| extension == "rs");
                    let stem = path.file_stem()?.to_str()?.to_owned();
                    is_source.then_some(stem)
                })
                .collect();
            found.sort_unstable();
            let mut checked = vec![$(stringify!($name)),*];
            checked.sort_unstable();
            assert_eq!(found, checked);
        }
    };
}

// `echo` prints timings, and checks itself.
examples! {
    albums
    axum_health
    custom_runtime
    custom_sink
    error_policy
    file_supplier
    live_control
    ordering
    queue_only
    several_bots
    session_bot
    timeouts
    unit_test
}

#[test]
fn queue_only_prints_the_same_on_smol() {
    check("queue_only", &["--runtime", "smol"]);
}
