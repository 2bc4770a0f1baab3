//! The event stream: lines to standard output or a file.
//!
//! In: lines, over a bounded queue. Out: the same lines, written by a thread of its own, because
//! a write to a full pipe or a frozen disk waits as long as it likes. What cannot be written is
//! counted and said once; the daemon goes on. Never: half a line joined to the next.
//!
//! The Rust runtime ignores SIGPIPE in every program, so a reader that went away is an error here
//! and not the daemon's end.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use prometheus::IntCounter;
use tokio::sync::oneshot;
use watchdog_model::time::Mono;

/// Lines that may wait for a slow reader; a few hundred bytes each. As many as messages may wait for
/// being made lines.
const QUEUE: usize = crate::outbox::CAPACITY;

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Standard output.
    Stdout,
    /// Appended to this file, made if need be.
    File(PathBuf),
}

impl Destination {
    /// As typed on the command line: a file, or `-`.
    #[must_use]
    pub fn from_arg(arg: PathBuf) -> Self {
        if arg.as_os_str() == "-" {
            Self::Stdout
        } else {
            Self::File(arg)
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Stdout => "standard output".to_owned(),
            Self::File(path) => path.display().to_string(),
        }
    }

    /// Opens it.
    pub fn open(&self) -> Result<File, String> {
        match self {
            Self::Stdout => io::stdout().as_fd().try_clone_to_owned().map(File::from),
            Self::File(path) => OpenOptions::new().create(true).append(true).open(path),
        }
        .map_err(|error| {
            format!(
                "--events: {} cannot be opened: {error}; name a file in a directory that exists, or \"-\"",
                self.shown()
            )
        })
    }
}

enum Item {
    Line { at: Mono, text: Arc<str> },
    Reopen,
}

#[derive(Default)]
struct Shared {
    /// Lines lost and not told yet.
    lost: AtomicU64,
    /// `at` of the first of them, ns.
    since: AtomicU64,
    /// The last line could not be written.
    broken: AtomicBool,
}

impl Shared {
    fn lose(&self, at: Mono, counter: &IntCounter) {
        let _already_set =
            self.since
                .compare_exchange(0, at.0.max(1), Ordering::AcqRel, Ordering::Relaxed);
        self.lost.fetch_add(1, Ordering::Release);
        counter.inc();
    }
}

/// A stream that is being written.
pub struct Stream {
    queue: SyncSender<Item>,
    shared: Arc<Shared>,
    counter: IntCounter,
    done: oneshot::Receiver<()>,
}

impl Stream {
    /// Starts the thread that writes. `counter` counts lines that were lost.
    pub fn start(file: File, destination: Destination, counter: IntCounter) -> io::Result<Self> {
        Self::with_queue(file, destination, counter, QUEUE)
    }

    fn with_queue(
        file: File,
        destination: Destination,
        counter: IntCounter,
        queue: usize,
    ) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(queue);
        let (finished, done) = oneshot::channel();
        let shared = Arc::<Shared>::default();
        let mut writer = Writer {
            file,
            destination,
            shared: Arc::clone(&shared),
            counter: counter.clone(),
            torn: false,
        };
        std::thread::Builder::new()
            .name("events".to_owned())
            .stack_size(128 * 1024)
            .spawn(move || {
                writer.run(&receiver);
                // Nobody may be waiting any more.
                let _told = finished.send(());
            })?;
        Ok(Self {
            queue: sender,
            shared,
            counter,
            done,
        })
    }

    /// Queues a line (with its newline); if too many wait already, it is lost and counted.
    pub fn push(&self, at: Mono, text: Arc<str>) {
        match self.queue.try_send(Item::Line { at, text }) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.shared.lose(at, &self.counter);
            }
        }
    }

    /// Opens the file anew (a log that was rotated).
    pub fn reopen(&self) {
        // A full queue means that nothing can be written there anyway.
        let _queued = self.queue.try_send(Item::Reopen);
    }

    /// What was lost and not told yet (how many, since when), once lines get through again.
    #[must_use]
    pub fn take_lost(&self) -> Option<(u64, Mono)> {
        if self.shared.broken.load(Ordering::Acquire) {
            return None;
        }
        let count = self.shared.lost.swap(0, Ordering::Acquire);
        (count > 0).then(|| (count, Mono(self.shared.since.swap(0, Ordering::AcqRel))))
    }

    /// Lets what is queued be written, but not for longer than `limit`.
    pub async fn finish(self, limit: Duration) {
        drop(self.queue);
        if tokio::time::timeout(limit, self.done).await.is_err() {
            tracing::warn!("the reader of the event stream is stuck; what it did not take is lost");
        }
    }
}

struct Writer {
    file: File,
    destination: Destination,
    shared: Arc<Shared>,
    counter: IntCounter,
    /// Part of a line was written, its end was not.
    torn: bool,
}

impl Writer {
    fn run(&mut self, queue: &Receiver<Item>) {
        for item in queue {
            match item {
                Item::Line { at, text } => match self.write_line(&text) {
                    Ok(()) => self.well(),
                    Err(error) => self.failed(at, &error),
                },
                Item::Reopen => match (&self.destination, self.destination.open()) {
                    (Destination::Stdout, _) => {}
                    (Destination::File(_), Ok(file)) => {
                        self.file = file;
                        self.torn = false;
                    }
                    (Destination::File(_), Err(what)) => {
                        tracing::error!("{what}; going on with the file as it was");
                    }
                },
            }
        }
    }

    fn well(&self) {
        if self.shared.broken.swap(false, Ordering::AcqRel) {
            tracing::warn!("events: {} takes lines again", self.destination.shown());
        }
    }

    fn failed(&self, at: Mono, error: &io::Error) {
        self.shared.lose(at, &self.counter);
        if self.shared.broken.swap(true, Ordering::AcqRel) {
            return;
        }
        let shown = self.destination.shown();
        if error.kind() == io::ErrorKind::BrokenPipe {
            tracing::error!(
                "events: the reader of {shown} is gone; the daemon goes on and counts what nobody \
                 reads in lost_total{{what=\"event_line\"}}"
            );
        } else {
            tracing::error!(
                "events: cannot write to {shown}: {error}; the daemon goes on and counts what is \
                 lost in lost_total{{what=\"event_line\"}}"
            );
        }
    }

    fn write_line(&mut self, text: &str) -> io::Result<()> {
        if self.torn {
            self.write_bytes(b"\n")?;
            self.torn = false;
        }
        self.write_bytes(text.as_bytes())
    }

    fn write_bytes(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.file.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    bytes = &bytes[written..];
                    self.torn = !bytes.is_empty();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Standard output may have been made non-blocking by whoever shares it.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait(),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn wait(&self) {
        let mut poll = libc::pollfd {
            fd: self.file.as_raw_fd(),
            events: libc::POLLOUT,
            revents: 0,
        };
        // SAFETY: one pollfd that lives across the call. Whatever the outcome, the next write
        // tells how things are.
        unsafe { libc::poll(&raw mut poll, 1, -1) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead as _, BufReader, Read as _};
    use std::os::fd::OwnedFd;

    const LIMIT: Duration = Duration::from_secs(10);

    fn counter() -> IntCounter {
        IntCounter::new("lost", "lost").unwrap()
    }

    fn push(stream: &Stream, at: u64, text: &str) {
        stream.push(Mono(at), Arc::from(text));
    }

    fn to(file: impl Into<OwnedFd>, counter: &IntCounter, queue: usize) -> Stream {
        let file = File::from(file.into());
        Stream::with_queue(file, Destination::Stdout, counter.clone(), queue).unwrap()
    }

    #[tokio::test]
    async fn lines_are_appended_to_a_file_and_to_its_successor() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events");
        std::fs::write(&path, "earlier\n").unwrap();
        let destination = Destination::from_arg(path.clone());
        let file = destination.open().unwrap();
        let stream = Stream::start(file, destination, counter()).unwrap();
        push(&stream, 1, "a\n");
        // Rotated while the daemon runs.
        let rotated = dir.path().join("events.1");
        std::fs::rename(&path, &rotated).unwrap();
        stream.reopen();
        push(&stream, 2, "b\n");
        stream.finish(LIMIT).await;
        assert_eq!(std::fs::read_to_string(&rotated).unwrap(), "earlier\na\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "b\n");
    }

    #[tokio::test]
    async fn a_reader_that_is_gone_costs_lines_and_nothing_else() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let counter = counter();
        let stream = to(writer, &counter, 8);
        push(&stream, 1, "a\n");
        push(&stream, 2, "b\n");
        let shared = Arc::clone(&stream.shared);
        stream.finish(LIMIT).await;
        assert_eq!(counter.get(), 2);
        assert!(shared.broken.load(Ordering::Relaxed));
        assert_eq!(shared.since.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_full_disk_costs_lines_and_nothing_else() {
        let counter = counter();
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let stream = to(full, &counter, 8);
        push(&stream, 1, "a\n");
        stream.finish(LIMIT).await;
        assert_eq!(counter.get(), 1);
    }

    #[tokio::test]
    async fn a_stuck_reader_holds_nobody_up_and_what_is_lost_is_told_later() {
        let (reader, writer) = io::pipe().unwrap();
        let counter = counter();
        let stream = to(writer, &counter, 2);
        // More than a pipe and the queue hold.
        let line = format!("{}\n", "x".repeat(64 * 1024));
        for at in 1..=50 {
            push(&stream, at, &line);
        }
        let lost = counter.get();
        assert!(lost >= 40, "{lost}");
        let (count, since) = stream.take_lost().unwrap();
        assert_eq!(count, lost);
        assert!(since > Mono(0) && since <= Mono(10));
        assert_eq!(stream.take_lost(), None);
        // Reads on: everything that was not lost arrives whole.
        let lines = std::thread::spawn(move || {
            BufReader::new(reader)
                .lines()
                .map(|line| line.unwrap().len())
                .collect::<Vec<_>>()
        });
        stream.finish(LIMIT).await;
        let lines = lines.join().unwrap();
        assert_eq!(lines.len() as u64, 50 - lost);
        assert!(lines.iter().all(|length| *length == 64 * 1024));
    }

    #[tokio::test]
    async fn the_daemon_does_not_wait_for_a_stuck_reader_when_it_stops() {
        let (reader, writer) = io::pipe().unwrap();
        let stream = to(writer, &counter(), 8);
        push(&stream, 1, &"x".repeat(1 << 20));
        stream.finish(Duration::from_millis(50)).await;
        drop(reader);
    }

    #[test]
    fn a_torn_line_is_ended_before_the_next() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut writer = Writer {
            file: File::from(OwnedFd::from(writer)),
            destination: Destination::Stdout,
            shared: Arc::default(),
            counter: counter(),
            torn: true,
        };
        writer.write_line("next\n").unwrap();
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "\nnext\n");
    }

    #[test]
    fn a_destination_that_cannot_be_opened_is_named() {
        let said = Destination::from_arg("/no/such/dir/events".into())
            .open()
            .unwrap_err();
        assert!(
            said.starts_with("--events: /no/such/dir/events cannot be opened: "),
            "{said}"
        );
    }
}
