//! What must hold whatever a server answers that is told of an alert: for the property tests and for `cargo
//! xtask fuzz` alike.

use std::time::Duration;

use hyper::body::Bytes;
use tokio::io::AsyncWriteExt as _;
use tokio::runtime::Runtime;

use super::{Post, SHOWN};
use crate::config::Url;

/// What is said of an answer: what is shown of it, escaped, and a few words.
const MOST_SAID: usize = 12 * SHOWN + 400;
/// Far longer than an answer that is there at once may take.
const LIMIT_NS: u64 = 5_000_000_000;

/// Who tells a server.
pub struct Teller {
    runtime: Runtime,
    post: Post,
}

impl std::fmt::Debug for Teller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Teller")
    }
}

impl Default for Teller {
    fn default() -> Self {
        Self::new()
    }
}

impl Teller {
    /// One whose server is a stretch of bytes.
    ///
    /// # Panics
    /// Without a runtime.
    #[must_use]
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let url = Url::parse("http://127.0.0.1:9/api/v2/alerts").expect("a url");
        let post = runtime.block_on(async { Post::new(url, Vec::new(), LIMIT_NS) });
        Self { runtime, post }
    }

    /// A server that answers this and hangs up.
    ///
    /// # Panics
    /// Where the outcome is neither that it was taken nor a line that a log may be given, or takes its time.
    pub fn any_answer(&self, answer: &[u8]) {
        let outcome = self.runtime.block_on(async {
            let (ours, theirs) = tokio::io::duplex(64 << 10);
            let (mut from, mut to) = tokio::io::split(theirs);
            let server = async {
                let _gone = to.write_all(answer).await;
                let _gone = to.shutdown().await;
                let _gone = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
            };
            let asked = self.post.speak(ours, Bytes::from_static(b"[]"));
            let both = async {
                tokio::select! {
                    outcome = asked => outcome,
                    () = async { server.await; std::future::pending::<()>().await } => unreachable!(),
                }
            };
            tokio::time::timeout(Duration::from_secs(2), both).await
        });
        match outcome.expect("an end, since the server hung up") {
            Ok(status) => assert!(status.is_success()),
            Err(refusal) => {
                let what = &refusal.what;
                assert!(!what.is_empty() && what.len() <= MOST_SAID, "{what:?}");
                assert!(!what.contains(char::is_control), "{what:?}");
            }
        }
    }
}

/// What servers answer.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    [
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 9\r\n\r\nno \x1b[31m é",
        "HTTP/1.0 503 Service Unavailable\r\n\r\nbusy\r\n",
        "HTTP/1.1 429 Too Many Requests\r\nretry-after: 5\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 301 Moved Permanently\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\n\r\n",
    ]
    .iter()
    .map(|answer| answer.as_bytes().to_vec())
    .collect()
}
