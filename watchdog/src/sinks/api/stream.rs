//! `/api/v1/stream`: server-sent events: every event line as it is said, and the overview once a
//! second.
//!
//! In: the ledger's wake-ups. Out: text/event-stream. A reader that takes nothing for a while is
//! dropped; one that comes back says which event it saw last (`?after=` or `Last-Event-ID`). What
//! is no longer kept is said as `missed`.

use std::fmt::Write as _;
use std::time::Duration;

use http_body_util::BodyExt as _;
use http_body_util::channel::{Channel, Sender};
use hyper::body::Bytes;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};

use super::reply::{Asked, Reply, refuse};
use super::{Sources, overview};

/// Between two overviews, while nothing happens.
const EVERY: Duration = Duration::from_secs(1);
/// And while much does.
const AT_MOST_EVERY: Duration = Duration::from_millis(100);
/// A reader that takes nothing for so long is gone or hangs.
const PATIENCE: Duration = Duration::from_secs(10);
/// Chunks that wait for a slow reader.
const CHUNKS: usize = 4;
/// Events in a chunk.
const BATCH: usize = 256;

/// `GET /api/v1/stream`.
#[expect(clippy::result_large_err, reason = "an error is an answer, made once")]
pub fn answer(asked: &Asked, sources: &Sources) -> Result<Reply, Reply> {
    let given = asked.parameters(&["after"])?;
    let newest = *sources.ledger.watch().borrow();
    let last_seen = asked
        .headers
        .get("last-event-id")
        .and_then(|value| value.to_str().ok()?.parse().ok());
    let after = given
        .number("after", 0, u64::MAX - 1)?
        .or(last_seen)
        .unwrap_or(newest)
        // Numbers of an earlier run are of no use.
        .min(newest);
    let Ok(place) = std::sync::Arc::clone(&sources.streams).try_acquire_owned() else {
        return Err(refuse(
            StatusCode::SERVICE_UNAVAILABLE,
            "too many streams are open; close one or ask /api/v1/leases instead",
        ));
    };
    let (sender, body) = Channel::new(CHUNKS);
    let (sources, lasting) = (sources.clone(), std::sync::Arc::clone(&asked.lasting));
    tokio::spawn(async move {
        feed(sender, &sources, after).await;
        drop((place, lasting));
    });
    let mut reply: Reply = Response::new(body.boxed_unsync());
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(reply)
}

async fn feed(mut sender: Sender<Bytes>, sources: &Sources, mut after: u64) {
    let mut said = sources.ledger.watch();
    let mut overview_due = tokio::time::Instant::now();
    let mut overview_again = overview_due;
    // Whether something was said since the newest overview.
    let mut stale = false;
    loop {
        said.mark_unchanged();
        let mut chunk = String::new();
        let (events, oldest) = sources.ledger.events_after(after, BATCH);
        if oldest > after + 1 {
            let _ = write!(
                chunk,
                "event: missed\ndata: {{\"count\":{}}}\n\n",
                oldest - after - 1
            );
            after = oldest - 1;
        }
        for event in &events {
            after = event.seq;
            // A line of JSON has no newline inside.
            let _ = write!(
                chunk,
                "id: {}\nevent: event\ndata: {}\n\n",
                event.seq,
                event.line.trim_end()
            );
        }
        let now = tokio::time::Instant::now();
        stale |= !events.is_empty();
        if now >= overview_due || stale && now >= overview_again {
            stale = false;
            overview_due = now + EVERY;
            overview_again = now + AT_MOST_EVERY;
            sources.renew().await;
            let _ = write!(
                chunk,
                "event: overview\ndata: {}\n\n",
                overview::line(sources)
            );
        }
        if !chunk.is_empty() {
            let sent = tokio::time::timeout(PATIENCE, sender.send_data(Bytes::from(chunk))).await;
            if !matches!(sent, Ok(Ok(()))) {
                return;
            }
        }
        if events.len() < BATCH {
            let wake = if stale { overview_again } else { overview_due };
            // The ledger lives as long as the server.
            let _woken = tokio::time::timeout_at(wake, said.changed()).await;
        }
    }
}
