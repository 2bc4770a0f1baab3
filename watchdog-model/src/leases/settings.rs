//! The thresholds of one config entry, free of any protocol.
//!
//! In: what the configuration says. Out: spans and shares that the stage rules multiply by a
//! lease's timeout. Never: parsing, defaults that depend on the machine.

use super::observation::Role;
use crate::time::{MS, SECOND, secs};

/// A part of a lease's timeout, kept as a fraction so that a third is a third.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Share {
    numerator: u32,
    denominator: u32,
}

impl Share {
    /// One half.
    pub const HALF: Self = Self::new(1, 2);
    /// One third: what "33 %" is read as.
    pub const THIRD: Self = Self::new(1, 3);
    /// Two thirds: what "67 %" is read as, the patience of the ZooKeeper clients.
    pub const TWO_THIRDS: Self = Self::new(2, 3);

    const fn new(numerator: u32, denominator: u32) -> Self {
        Self {
            numerator,
            denominator,
        }
    }

    /// A share from whole percent. 33 and 67 mean the thirds: every rule of the ZooKeeper clients
    /// is in thirds, and nobody who writes 67 % wants 0.67 exactly.
    #[must_use]
    pub const fn percent(percent: u32) -> Self {
        match percent {
            50 => Self::HALF,
            33 => Self::THIRD,
            67 => Self::TWO_THIRDS,
            other => Self::new(other, 100),
        }
    }

    /// A share from millionths, for what is no whole percent.
    #[must_use]
    pub const fn millionths(millionths: u32) -> Self {
        Self::new(millionths, 1_000_000)
    }

    /// This share of a span, rounded down.
    #[must_use]
    pub fn of(self, span_ns: u64) -> u64 {
        let part = u128::from(span_ns) * u128::from(self.numerator) / u128::from(self.denominator);
        u64::try_from(part).unwrap_or(u64::MAX)
    }
}

/// Which ends of an entry's flows are followed.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Roles {
    /// Follow the ends that renew.
    pub holder: bool,
    /// Follow the ends that grant.
    pub grantor: bool,
}

impl Roles {
    /// Whether this end is followed.
    #[must_use]
    pub const fn include(self, role: Role) -> bool {
        match role {
            Role::Holder => self.holder,
            Role::Grantor => self.grantor,
        }
    }
}

/// The thresholds of one config entry.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntrySettings {
    /// Grace after something was due, ns; None: `max(T/12, 0.25 s, min(1 s, (T − c)/4))`.
    pub margin_ns: Option<u64>,
    /// Silence after which a renewal is late, ns; None: the flow's own cadence plus the margin.
    pub late_after_ns: Option<u64>,
    /// How much of the timeout may be used up before a late lease is at risk.
    pub at_risk: Share,
    /// The same where it is proven that what serves the flow stands still.
    pub at_risk_stalled: Share,
    /// How much may be used up since the newest reply before the holder gives up.
    pub jeopardy: Share,
    /// How long every serving thread must stand still to count as stalled, ns.
    pub hard_stall_ns: u64,
    /// The cadence assumed until one is learned, as a share of the timeout.
    pub assumed_cadence: Share,
    /// The timeout where no handshake tells it, ns.
    pub timeout_ns: Option<u64>,
    /// Whether the protocol has keepalives that can be told from other requests (ZooKeeper's pings).
    /// Without, the cadence is learned from all gaps between requests.
    pub has_keepalives: bool,
    /// Whether an exchange renews from when its reply was sent, and not from when its request was:
    /// a long poll, whose reply the grantor holds back.
    pub renews_from_reply: bool,
    /// How long a grantor holds its reply back where that is configured, ns; None: learned. Of
    /// account only where `renews_from_reply`.
    pub hold_ns: Option<u64>,
    /// Whether the protocol has a message that ends a lease. Without, a holder that closes its
    /// connection while nothing is outstanding means to end it.
    pub has_goodbye: bool,
    /// Whether a connection may carry another lease after one has ended on it: whoever leaves a group
    /// may join it again.
    pub rejoins: bool,
    /// Whether a holder may open a connection for each renewal: that it has none is no loss.
    pub comes_and_goes: bool,
    /// Whether only the times at which data went and came are seen, not what it was (see
    /// [`Self::by_timing`]; never so of an entry as a whole): a timeout that is configured counts as inferred all the same, since what was taken for a renewal may be none.
    pub by_timing_alone: bool,
    /// The cadence where it is configured, ns; None: learned.
    pub renew_every_ns: Option<u64>,
    /// The shortest timeout that grantors of this entry give, ns: two of their ticks. A client that
    /// asks for less gets this.
    pub min_timeout_ns: u64,
    /// Whether a hard stall counts as proof by itself. Off: silence alone is judged.
    pub use_stall_proof: bool,
    /// Which ends are followed.
    pub roles: Roles,
}

impl Default for EntrySettings {
    fn default() -> Self {
        Self {
            margin_ns: None,
            late_after_ns: None,
            at_risk: Share::HALF,
            at_risk_stalled: Share::THIRD,
            jeopardy: Share::TWO_THIRDS,
            // Long enough for a garbage collection or a slow fsync, short against any timeout in
            // use (the shortest default of ZooKeeper is 4 s).
            hard_stall_ns: SECOND,
            // The slowest client known: `tokio-zookeeper` pings at two thirds.
            assumed_cadence: Share::TWO_THIRDS,
            timeout_ns: None,
            has_keepalives: true,
            renews_from_reply: false,
            hold_ns: None,
            has_goodbye: true,
            rejoins: false,
            comes_and_goes: false,
            by_timing_alone: false,
            renew_every_ns: None,
            // ZooKeeper's minSessionTimeout is 2·tickTime, tickTime is 2 s unless set.
            min_timeout_ns: secs(4),
            use_stall_proof: true,
            roles: Roles {
                holder: true,
                grantor: true,
            },
        }
    }
}

/// Share of the timeout, counted from the newest answered renewal, after which silence is late
/// whatever was learned: the last sixth must never pass unannounced.
pub const LATE_AT_THE_LATEST: Share = Share::new(5, 6);
/// Longest delay that may be learned as normal for an answer or a read, as a share of the timeout.
pub const LONGEST_NORMAL: Share = Share::new(1, 4);
/// How long a hard stall must last, as a share of the timeout, to put a lease at risk.
pub const STALL_AT_RISK: Share = Share::new(1, 6);
/// Smallest margin as a share of the timeout.
const MARGIN_SHARE: Share = Share::new(1, 12);
/// Smallest margin: two and a half late ticks of 100 ms, so that a busy node's own jitter is not
/// taken for a late peer.
const MARGIN_MIN_NS: u64 = 250 * MS;
/// One lost packet costs Linux 200 ms (TCP_RTO_MIN) and a round trip. A client that renews at two
/// thirds of its timeout is past its own patience the moment it is late: a single loss must not be.
const ONE_LOSS_NS: u64 = 300 * MS;
/// A client's timer is rarely off by more than this, however long its timeout.
const MARGIN_WANTED_NS: u64 = SECOND;

impl EntrySettings {
    /// The same for a flow of which only its timing is seen.
    #[must_use]
    pub const fn by_timing(self) -> Self {
        Self {
            has_keepalives: false,
            has_goodbye: false,
            rejoins: false,
            comes_and_goes: false,
            by_timing_alone: true,
            ..self
        }
    }

    /// The grace after something was due, for a lease of this timeout and cadence.
    #[must_use]
    pub fn margin(&self, timeout_ns: u64, cadence_ns: u64) -> u64 {
        self.margin_ns.unwrap_or_else(|| {
            let spare = timeout_ns.saturating_sub(cadence_ns) / 4;
            MARGIN_SHARE
                .of(timeout_ns)
                .max(MARGIN_MIN_NS)
                .max(spare.min(MARGIN_WANTED_NS))
        })
    }

    /// The margin of a lease whose timeout is not known.
    #[must_use]
    pub fn margin_without_timeout(&self) -> u64 {
        self.margin_ns.unwrap_or(MARGIN_WANTED_NS)
    }

    /// Half a margin (but more than one retransmission), the least that a delay must last to be out
    /// of the ordinary, up to a quarter of the timeout: a learned normal is brought between the two.
    #[must_use]
    pub fn normal_bounds(&self, timeout_ns: u64, cadence_ns: u64) -> (u64, u64) {
        let most = LONGEST_NORMAL.of(timeout_ns);
        let half_margin = self.margin(timeout_ns, cadence_ns) / 2;
        (half_margin.max(ONE_LOSS_NS).min(most), most)
    }

    /// The longest time that a grantor of this entry lets pass between two looks at its sessions.
    #[must_use]
    pub const fn grantor_tick_ns(&self) -> u64 {
        self.min_timeout_ns / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::ms;

    #[test]
    fn percent_reads_thirds() {
        assert_eq!(Share::millionths(4_000).of(secs(10)), ms(40));
        assert_eq!(Share::percent(67), Share::TWO_THIRDS);
        assert_eq!(Share::percent(33), Share::THIRD);
        assert_eq!(Share::percent(50).of(secs(6)), secs(3));
        assert_eq!(Share::HALF.of(u64::MAX), u64::MAX / 2);
    }

    #[test]
    fn margin_takes_each_of_its_three_forms() {
        let settings = EntrySettings::default();
        assert_eq!(settings.margin(secs(6), secs(2)), secs(1), "(T - c)/4");
        assert_eq!(settings.margin(secs(2), ms(1333)), ms(250), "the smallest");
        assert_eq!(settings.margin(secs(60), secs(20)), secs(5), "T/12");
        assert_eq!(settings.margin(secs(6), secs(4)), ms(500));
    }
}
