//! The queue alone: no bot, no supplier, no network. It makes thumbnails.
//!
//! ```sh
//! cargo run --example queue_only
//! cargo run --example queue_only -- --runtime smol
//! ```
//!
//! Sixty images in three albums, those of one album in order. One image is damaged and is skipped, one
//! fails at first and is tried again, one never ends and times out.

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::executor::block_on;
use runner::{
    BoxError, Cause, DecayingQueue, Delivery, Failure, Key, Runtime, SinkOptions, Verdict,
    smol::Smol, tokio::Tokio,
};

struct Image {
    album: &'static str,
    number: usize,
    pixels: Vec<u8>,
}

/// The thumbnails of each album, in the order in which they were made.
type Albums = Arc<Mutex<BTreeMap<&'static str, Vec<(usize, Vec<u8>)>>>>;

async fn shrink(albums: Albums, image: Delivery<Image>) -> Result<(), BoxError> {
    match (image.album, image.number, image.attempt().get()) {
        ("city", 7, _) => return Err("it is damaged".into()),
        ("hills", 3, 1) => return Err("the disk is busy".into()),
        ("city", 11, _) => std::future::pending().await,
        _ => {}
    }
    let small = image.pixels.iter().copied().step_by(4).collect();
    let mut albums = albums.lock().expect("nobody panics with it");
    albums
        .entry(image.album)
        .or_default()
        .push((image.number, small));
    Ok(())
}

fn decide(failure: Failure<Image>) -> Verdict {
    let why = match failure.cause {
        Cause::Error(error) => error.to_string(),
        cause => cause.to_string(),
    };
    if why.contains("busy") {
        let after = Duration::from_millis(10);
        return Verdict::Retry { after };
    }
    println!("{} {}: {why}", failure.update.album, failure.update.number);
    Verdict::Skip
}

async fn make_thumbnails(runtime: Arc<dyn Runtime>) {
    let albums = Albums::default();
    let queue = DecayingQueue::for_each_with(runtime, Arc::clone(&albums), shrink)
        .options(
            SinkOptions::concurrent()
                .concurrency(NonZeroUsize::new(4).expect("not zero"))
                .prefetch(8)
                .timeout(Duration::from_millis(200)),
        )
        .sequentialize(|image: &Image| [Key::new("album", image.album)])
        .size_by(|image| image.pixels.len())
        .policy(decide)
        .build();
    for number in 0..20 {
        let batch = ["city", "hills", "sea"].map(|album| {
            let pixels = vec![number as u8; 4_000];
            Image {
                album,
                number,
                pixels,
            }
        });
        // Waits while the queue is full.
        queue.add(batch).expect("nobody stops it").await;
    }
    let report = queue.drain().await;
    for (album, thumbnails) in &*albums.lock().expect("nobody panics with it") {
        assert!(thumbnails.is_sorted_by_key(|(number, _)| *number));
        println!("{album}: {} thumbnails", thumbnails.len());
    }
    let counters = report.counters;
    println!(
        "{} finished, {} failed, {} timed out, {} repeated",
        counters.finished, counters.failed, counters.timed_out, counters.retried
    );
}

fn main() -> Result<(), BoxError> {
    match std::env::args().nth(2).as_deref() {
        Some("smol") => block_on(make_thumbnails(Arc::new(Smol::new()))),
        _ => {
            let runtime = tokio::runtime::Runtime::new()?;
            let handle = runtime.handle().clone();
            runtime.block_on(make_thumbnails(Arc::new(Tokio::new(handle))));
        }
    }
    Ok(())
}
