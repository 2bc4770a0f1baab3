//! The CPU time that those who ask may cost, so that nobody's questions exhaust the daemon's own limit.
//!
//! In: CPU time as it is used, by [`Metered`] tasks. Out: a turn, once there is time left for one. A share
//! of the daemon's limit is earned all the time and saved up to a burst; who comes beyond that waits.
//! Never: a wait of anybody but who asks there.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use watchdog_model::time::{Mono, SECOND};

/// Of `limits.cpu`, for the port and for the socket each: with both exhausted a fifth is left, more than
/// the tick and the sinks need.
const SHARE: f64 = 0.4;
/// What is saved up: as much as is earned in this time. With it both bursts are well below the minute that
/// the limit itself allows for.
const BURST_S: f64 = 20.0;
/// Answers that are made at once: as many as there are threads to make them.
const TURNS: usize = 2;
/// Between two looks, at least and at most; a limit that is raised is soon felt.
const LOOK: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(1));

/// What may be used.
pub struct Allowance {
    account: Mutex<Account>,
    turns: Semaphore,
    clock: fn() -> Mono,
}

/// The arithmetic.
#[derive(Debug)]
struct Account {
    /// Share of a core that is earned.
    rate: f64,
    /// What is saved up, ns; below 0: what was used beyond it.
    saved_ns: f64,
    /// When that was so.
    at: Mono,
}

#[expect(
    clippy::cast_precision_loss,
    reason = "spans of seconds, and shares of them"
)]
impl Account {
    fn new(cpu_limit: f64, now: Mono) -> Self {
        let rate = cpu_limit * SHARE;
        Self {
            rate,
            saved_ns: rate * BURST_S * SECOND as f64,
            at: now,
        }
    }

    fn earn(&mut self, now: Mono) {
        let most = self.rate * BURST_S * SECOND as f64;
        let earned = now.since(self.at) as f64 * self.rate;
        self.saved_ns = (self.saved_ns + earned).min(most);
        self.at = now;
    }

    /// Until there is something left; None: there is.
    fn until_solvent(&mut self, now: Mono) -> Option<Duration> {
        self.earn(now);
        if self.saved_ns > 0.0 {
            return None;
        }
        let seconds = -self.saved_ns / self.rate / SECOND as f64;
        // A rate of next to nothing makes this any number.
        let wait = Duration::try_from_secs_f64(seconds).unwrap_or(LOOK.1);
        Some(wait.clamp(LOOK.0, LOOK.1))
    }

    fn use_up(&mut self, cpu_ns: u64) {
        self.saved_ns -= cpu_ns as f64;
    }
}

impl Allowance {
    /// A full one, for a daemon that may use `cpu_limit` of a core.
    #[must_use]
    pub fn new(cpu_limit: f64, clock: fn() -> Mono) -> Arc<Self> {
        Arc::new(Self {
            account: Mutex::new(Account::new(cpu_limit, clock())),
            turns: Semaphore::new(TURNS),
            clock,
        })
    }

    /// Another limit of the daemon.
    pub fn set_limit(&self, cpu_limit: f64) {
        self.with(|account, now| {
            account.earn(now);
            account.rate = cpu_limit * SHARE;
        });
    }

    /// Waits for one's turn, in the order of asking, and until there is time left for it.
    pub async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // The semaphore is never closed.
        let turn = self.turns.acquire().await.ok();
        while let Some(wait) = self.with(Account::until_solvent) {
            tokio::time::sleep(wait).await;
        }
        turn
    }

    fn with<T>(&self, act: impl FnOnce(&mut Account, Mono) -> T) -> T {
        let now = (self.clock)();
        act(
            &mut self.account.lock().unwrap_or_else(PoisonError::into_inner),
            now,
        )
    }
}

/// A task whose CPU time is charged.
pub struct Metered<F> {
    task: Pin<Box<F>>,
    allowance: Arc<Allowance>,
}

impl<F: Future> Metered<F> {
    /// Charges what `task` uses.
    pub fn new(task: F, allowance: Arc<Allowance>) -> Self {
        Self {
            task: Box::pin(task),
            allowance,
        }
    }
}

impl<F: Future> Future for Metered<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let before = crate::priority::cpu_ns();
        let polled = self.task.as_mut().poll(context);
        let used = crate::priority::cpu_ns().saturating_sub(before);
        self.allowance.with(|account, _| account.use_up(used));
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: f64 = 0.05;

    #[test]
    fn a_burst_is_met_and_then_only_what_is_earned() {
        let mut account = Account::new(LIMIT, Mono(0));
        assert_eq!(account.until_solvent(Mono(0)), None);
        // 20 s of 2 % are saved up.
        account.use_up(399_000_000);
        assert_eq!(account.until_solvent(Mono(0)), None);
        account.use_up(2_000_000);
        // 1 ms of CPU time is earned in 50 ms.
        let wait = account.until_solvent(Mono(0)).expect("it is overdrawn");
        assert!(
            wait >= Duration::from_millis(49) && wait <= Duration::from_millis(51),
            "{wait:?}"
        );
        assert_eq!(account.until_solvent(Mono(51_000_000)), None);
    }

    #[test]
    fn what_is_saved_up_has_a_bound() {
        let mut account = Account::new(LIMIT, Mono(0));
        let much_later = Mono(3_600 * SECOND);
        assert_eq!(account.until_solvent(much_later), None);
        account.use_up(401_000_000);
        assert!(account.until_solvent(much_later).is_some());
    }

    #[test]
    fn both_bursts_leave_most_of_the_daemons_own() {
        // The limit allows for a minute of itself.
        const { assert!(2.0 * SHARE * BURST_S <= 0.3 * 60.0) };
        const { assert!(2.0 * SHARE <= 0.8) };
    }

    #[tokio::test]
    async fn tasks_are_charged_for_what_they_compute() {
        let allowance = Allowance::new(LIMIT, || Mono(0));
        let saved = || allowance.with(|account, _| account.saved_ns);
        let full = saved();
        let work = async {
            let end = crate::priority::cpu_ns() + 20_000_000;
            while crate::priority::cpu_ns() < end {}
        };
        Metered::new(work, Arc::clone(&allowance)).await;
        assert!(full - saved() >= 20e6, "{}", full - saved());
        // A wait costs nothing that counts.
        let before = saved();
        let wait = tokio::time::sleep(Duration::from_millis(50));
        Metered::new(wait, Arc::clone(&allowance)).await;
        assert!(before - saved() < 20e6, "{}", before - saved());
    }

    #[tokio::test]
    async fn turns_are_few_and_come_back() {
        let allowance = Allowance::new(LIMIT, || Mono(0));
        let first = allowance.turn().await;
        let second = allowance.turn().await;
        let third = tokio::time::timeout(Duration::from_millis(20), allowance.turn()).await;
        assert!(third.is_err());
        drop((first, second));
        assert!(allowance.turn().await.is_some());
    }
}
