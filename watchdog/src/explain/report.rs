//! What `explain` found, as data: the text, the JSON and the page are three views of it.

use serde::Serialize;

use super::parties::Party;
use super::rules::{About, Rule};
use super::scan::Counts;
use super::wall::Wall;

/// All of it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was read.
    pub sources: Vec<SourceReport>,
    /// What was not, and why.
    pub unread: Vec<String>,
    /// What was taken for granted: zone, year, clocks.
    pub assumptions: Vec<String>,
    /// The incidents, oldest first.
    pub incidents: Vec<Incident>,
    /// The rules that were used.
    pub rules: Vec<About>,
}

/// One log.
#[derive(Clone, Debug, Serialize)]
pub struct SourceReport {
    /// Its writer.
    #[serde(flatten)]
    pub party: Party,
    /// Its kind.
    pub kind: &'static str,
    /// Its files.
    pub files: Vec<String>,
    /// First and last line.
    pub first: Option<Wall>,
    /// The last line.
    pub last: Option<Wall>,
    /// What it was made of.
    pub counts: Counts,
    /// Why reading ended early.
    pub trouble: Vec<String>,
}

/// One incident.
#[derive(Clone, Debug, Serialize)]
pub struct Incident {
    /// From 1.
    pub number: usize,
    /// The first moment that is known of it.
    pub from: Wall,
    /// The last.
    pub to: Wall,
    /// In one line.
    pub headline: String,
    /// What lapsed.
    pub lapsed: Vec<Lapse>,
    /// When it could first be known, and by what.
    pub first_knowable: Option<Known>,
    /// When it was first known: the first line that any process wrote.
    pub known: Option<Known>,
    /// Who was at fault.
    pub fault: Option<Fault>,
    /// The stall that is behind it.
    pub stalls: Vec<HostStall>,
    /// What may have caused it.
    pub causes: Vec<Candidate>,
    /// What followed, in groups.
    pub followed: Vec<Followed>,
    /// Two that led at once.
    pub dual_leader: Option<DualLeader>,
    /// What would have warned how much earlier.
    pub leads: Option<Leads>,
    /// All of it in order of time.
    pub timeline: Vec<Row>,
    /// Stalls of single threads, for the page.
    pub bars: Vec<Bar>,
    /// What the logs do not tell.
    pub not_claimed: Vec<String>,
    /// Whether a renewal had both its ends on one host.
    pub same_host: bool,
}

/// A lease that was lost.
#[derive(Clone, Debug, Serialize)]
pub struct Lapse {
    /// A session id, a uuid; none where the log names none.
    pub lease: Option<String>,
    /// "ZooKeeper session", or the group of the grantor's line.
    pub what: String,
    /// Who held it, as far as is known.
    pub holder: String,
    /// Who granted it, as far as is known.
    pub grantor: String,
    /// When the grantor's log expires it.
    pub expired: Option<Wall>,
    /// When the holder learned of it.
    pub learned: Option<Wall>,
    /// Not later than this, where the expiry itself stands nowhere.
    pub expired_by: Option<Wall>,
    /// The grantor was late, not the holder.
    pub false_expiry: bool,
    /// What says so.
    pub why: Vec<String>,
}

/// A moment of knowledge.
#[derive(Clone, Debug, Serialize)]
pub struct Known {
    /// When.
    pub at: Wall,
    /// By what.
    pub by: String,
}

/// Who was at fault.
#[derive(Clone, Debug, Serialize)]
pub struct Fault {
    /// A host, a side, or that it cannot be told.
    pub who: String,
    /// What says so.
    pub why: Vec<String>,
}

/// A time in which a host's processes stood still.
#[derive(Clone, Debug, Serialize)]
pub struct HostStall {
    /// The host.
    pub host: String,
    /// From the first deadline that was missed.
    pub from: Wall,
    /// To the moment at which all its processes run again.
    pub to: Wall,
    /// The first and last thread to speak again, if they did so together.
    pub unblocked: Option<(Wall, Wall)>,
    /// Which processes.
    pub processes: Vec<String>,
    /// What says so.
    pub why: Vec<String>,
}

/// How sure a cause is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Measured in the kernel, by the daemon.
    Proven,
    /// A log says so.
    Supported,
    /// It may be.
    Candidate,
    /// It explains a part at most.
    Partial,
    /// The logs speak against it.
    Excluded,
}

/// What may have caused it.
#[derive(Clone, Debug, Serialize)]
pub struct Candidate {
    /// The word of README's table.
    pub cause: &'static str,
    /// How sure.
    pub standing: Standing,
    /// What speaks for it.
    pub for_it: Vec<String>,
    /// What speaks against it.
    pub against: Vec<String>,
}

/// Things of one sort that followed.
#[derive(Clone, Debug, Serialize)]
pub struct Followed {
    /// The sort.
    pub what: String,
    /// How many.
    pub count: usize,
    /// The first.
    pub first: Wall,
    /// The last.
    pub last: Wall,
    /// Where.
    pub party: String,
    /// Some of them.
    pub details: Vec<String>,
}

/// Two leaders at once.
#[derive(Clone, Debug, Serialize)]
pub struct DualLeader {
    /// The new one.
    pub new: String,
    /// When it led at the latest.
    pub from: Wall,
    /// The old one.
    pub old: String,
    /// When it learned that it did not at the earliest.
    pub to: Wall,
    /// At least, in milliseconds.
    pub at_least_ms: i64,
    /// What the old one did as a leader in that time.
    pub acts: Vec<String>,
}

/// The lead table.
#[derive(Clone, Debug, Serialize)]
pub struct Leads {
    /// To when the leads are counted.
    pub until: Wall,
    /// What that is.
    pub until_what: String,
    /// Earliest first.
    pub rows: Vec<Lead>,
}

/// One trigger.
#[derive(Clone, Debug, Serialize)]
pub struct Lead {
    /// When it would have fired.
    pub at: Wall,
    /// What would have fired.
    pub trigger: String,
    /// How long before, in milliseconds.
    pub lead_ms: i64,
}

/// A line of the timeline.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// When.
    pub at: Wall,
    /// The end, of what lasted.
    pub until: Option<Wall>,
    /// Whose.
    pub party: String,
    /// The host.
    pub host: String,
    /// What.
    pub text: String,
    /// The rule that it is derived by; none for what a log says.
    pub rule: Option<Rule>,
    /// File and line, or the arithmetic.
    pub from: String,
    /// Whether it is a deadline.
    pub deadline: bool,
}

/// A stall of one thread.
#[derive(Clone, Debug, Serialize)]
pub struct Bar {
    /// Whose.
    pub party: String,
    /// Which thread.
    pub thread: String,
    /// From.
    pub from: Wall,
    /// To.
    pub to: Wall,
    /// What.
    pub text: String,
}
