//! Measures everything and prints it as Markdown; draws what was measured.
//!
//! ```sh
//! cargo run --release -p benches --bin report                 # all of it
//! cargo run --release -p benches --bin report -- --save       # and keeps it in docs/performance.csv
//! cargo run --release -p benches --bin report -- --charts     # charts and tables of docs, from there
//! ```
//!
//! | option | |
//! |---|---|
//! | `--quick` | smaller sizes and single runs: to see that it works, not to publish |
//! | `--only NAME` | one part, may be repeated: `queue`, `fetch`, `dependencies`, `drain`, `growth`, `wait`, `far`, `steady`, `hot`, `stop`, `idle`; with `--save`, the other figures stay |
//! | `--save` | keeps the figures in `docs/performance.csv` |
//! | `--charts` | measures nothing: draws `docs/performance-*.svg` from that file, and fills in the tables of `docs/performance.md` |
//!
//! `queue` and `fetch` are benches of their own and run by cargo; all else runs here, with the server
//! and every bot in a process of its own.

mod bot;
mod cargo;
mod floor;
mod lab;
mod measure;
mod order;
mod page;
mod server;
mod svg;
mod tables;
mod targets;

use std::{
    env,
    error::Error,
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    thread,
    time::Instant,
};

use benches::data::Data;
use measure::{Sizes, WORKLOADS};
use order::{Order, Who};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("server") => server::main(),
        Some("bot") => {
            let order = Order::parse(&args[1..])?;
            match order.who {
                Who::Floor => floor::main(&order),
                _ => bot::main(&order),
            }
        }
        _ => report(&Options::parse(args)?),
    }
}

#[derive(Default)]
struct Options {
    quick: bool,
    only: Vec<String>,
    save: bool,
    charts: bool,
}

impl Options {
    fn parse(args: Vec<String>) -> Result<Self, String> {
        let mut options = Self::default();
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            match &*arg {
                "--quick" => options.quick = true,
                "--save" => options.save = true,
                "--charts" => options.charts = true,
                "--only" => {
                    let name = args.next().ok_or("--only needs the name of a part")?;
                    options.only.push(name);
                }
                _ => return Err(format!("{arg} is not an option")),
            }
        }
        if options.quick && options.save {
            return Err("--quick makes single runs, which --save must not keep".into());
        }
        Ok(options)
    }

    fn wants(&self, part: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == part)
    }
}

fn report(options: &Options) -> Result<(), Box<dyn Error>> {
    let docs = docs();
    let file = docs.join("performance.csv");
    if options.charts {
        return page::write(&Data::parse(&fs::read_to_string(file)?), &docs);
    }
    let mut data = Data::default();
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    data.set(
        "machine",
        env::consts::ARCH,
        env::consts::OS,
        "cores",
        cores as f64,
    );
    let began = Instant::now();
    let note = |part: &str| eprintln!("{:4.0} s: {part}", began.elapsed().as_secs_f64());
    let sizes = if options.quick {
        Sizes::QUICK
    } else {
        Sizes::FULL
    };
    for (part, measure) in WORKLOADS {
        if options.wants(part) {
            note(part);
            measure(&sizes, &mut data)?;
        }
    }
    // Last, because cargo may build this program anew, and the others start it again by its name.
    for (part, measure) in cargo::PARTS {
        if options.wants(part) {
            note(part);
            data.merge(measure(options.quick)?);
        }
    }
    note("done");
    print!("{}", tables::all(&data));
    if options.save {
        let mut kept = match options.only.is_empty() {
            true => Data::default(),
            false => Data::parse(&fs::read_to_string(&file).unwrap_or_default()),
        };
        kept.merge(data);
        fs::write(file, kept.to_csv())?;
    }
    Ok(())
}

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}
