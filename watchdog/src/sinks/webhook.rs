//! A server of the user's own that is told of alerts.
//!
//! In: messages of one alert. Out: each as one JSON object by POST, in order; one that does not get
//! through is tried again until it is too old to matter. Never: a server that hangs, refuses or
//! talks nonsense holding up anything but later messages of its own alert.

use std::sync::Arc;

use hyper::body::Bytes;
use tokio::sync::mpsc;
use watchdog_model::time::{Mono, secs};

use super::alerts::message::Message;
use super::post::{Post, pauses};
use super::tally::Tally;
use crate::config::Webhook;
use crate::tick::clock;

/// Older news wake nobody up for good; a lease has lapsed or been renewed long since.
pub const TOO_OLD_NS: u64 = secs(15 * 60);

/// A server to tell.
pub struct Hook {
    name: String,
    post: Post,
    tally: Tally,
}

/// A message and when it was handed over.
pub type Queued = (Mono, Arc<Message>);

impl Hook {
    /// A server as configured. Must be called inside a tokio runtime.
    #[must_use]
    pub fn new(config: &Webhook, name: String, tally: Tally) -> Self {
        Self {
            name,
            post: Post::new(
                config.url.clone(),
                config.headers.clone(),
                config.timeout_ns,
            ),
            tally,
        }
    }
}

/// Tells a server of its messages until there are no more to come.
pub async fn run(hook: Hook, mut messages: mpsc::Receiver<Queued>) {
    let mut troubled = false;
    while let Some((since, message)) = messages.recv().await {
        let body = Bytes::from(message.object());
        let mut pauses = pauses();
        loop {
            let refusal = match hook.post.post(body.clone()).await {
                Ok(_) => {
                    hook.tally.sent.inc();
                    if std::mem::take(&mut troubled) {
                        tracing::warn!("alert {}: takes alerts again", hook.name);
                    }
                    break;
                }
                Err(refusal) => refusal,
            };
            let old = clock().since(since) > TOO_OLD_NS;
            // When the daemon stops there is no time for another try; the caller's limit ends it.
            let Some(pause) = pauses.next().filter(|_| refusal.again && !old) else {
                hook.tally.lose();
                tracing::error!(
                    "alert {}: {}; an alert was not told",
                    hook.name,
                    refusal.what
                );
                break;
            };
            if !std::mem::replace(&mut troubled, true) {
                tracing::warn!(
                    "alert {}: {}; tried again, {} more wait",
                    hook.name,
                    refusal.what,
                    messages.len()
                );
            }
            hook.tally.retries.inc();
            tokio::time::sleep(pause).await;
        }
    }
}

/// Tells a server once, for a test; gives what came back.
///
/// # Errors
/// What went wrong.
pub async fn once(config: &Webhook, message: &Message) -> Result<String, String> {
    let post = Post::new(
        config.url.clone(),
        config.headers.clone(),
        config.timeout_ns,
    );
    post.known_soon().await;
    let body = Bytes::from(message.object());
    match post.post(body).await {
        Ok(status) => Ok(format!("answered {status}")),
        Err(refusal) => Err(refusal.what),
    }
}

#[cfg(test)]
mod tests;
