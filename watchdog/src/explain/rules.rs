//! The rules of inference, by name: what each says, where it is from, and what it does not prove.
//!
//! A report names the rule of each line that no log holds. docs/explain.md has the same table.

use serde::Serialize;

/// A rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// When a renewal that timed out was sent.
    Elapsed,
    /// When a deadline was that a loop came too late for.
    Deadline,
    /// Two messages of one call.
    OneNow,
    /// A message's stamp and its logger's.
    OwnStamp,
    /// A thread that said nothing.
    Silence,
    /// Threads that speak again together.
    Unblocking,
    /// Both ends on one host.
    SameHost,
    /// How late something was noticed.
    LateNotice,
    /// An expiry that the grantor's own delay caused.
    DelayedExpiry,
    /// Two that lead.
    TwoLeaders,
    /// A state that is told when it ends.
    Since,
    /// A pause that is told when it ends.
    Pause,
    /// A lease's expiry and its length.
    Expiry,
}

/// What stands behind a rule.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct About {
    /// Which.
    pub rule: Rule,
    /// What follows from what.
    pub says: &'static str,
    /// Why that is so.
    pub source: &'static str,
    /// What does not follow.
    pub not_proven: &'static str,
}

/// All of them.
pub const RULES: [About; 13] = [
    About {
        rule: Rule::Elapsed,
        says: "sent = line's time - elapsed; limit = sent + timeout; noticed late by elapsed - timeout",
        source: "both figures stand in the line of the RPC client, which measures from the call",
        not_proven: "that the request left the host, or was read at the other end",
    },
    About {
        rule: Rule::Deadline,
        says: "deadline = line's own stamp - \"exceeded by\"; of several lines about one deadline the earliest \
               counts, since the figure is taken before the stamp; the last reply was 2T/3 before a read deadline",
        source: "ZooKeeper C client, zookeeper.c: zookeeper_interest compares its next deadline (ping or read) \
                 with now, then logs; the read deadline is 2/3 of the negotiated timeout after the last reply. \
                 A later line whose deadline lies before an earlier line was logged is about the same deadline",
        not_proven: "that the server or network was late: the figure is the lateness of the client's own loop. \
                     Nor which deadline it was, unless rule one_now tells",
    },
    About {
        rule: Rule::OneNow,
        says: "two lines of one thread with the same figure were written by one call, which lasted at least from \
               one stamp to the other; the deadline was the read deadline",
        source: "zookeeper.c: zookeeper_interest reads the clock once; \"Exceeded deadline\" and \"connection to … \
                 timed out (exceeded timeout by)\" are both computed from that reading. Between them stand the log \
                 callback of the first and the resolution of the servers' names",
        not_proven: "which of the two took the time",
    },
    About {
        rule: Rule::OwnStamp,
        says: "a message that carries its own stamp was held up between that and its logger's stamp",
        source: "the C client stamps the message before it calls the log callback; glog stamps it in there",
        not_proven: "what held it up: the log's lock, its file, or the thread's turn on a CPU",
    },
    About {
        rule: Rule::Silence,
        says: "a thread wrote no line for that long",
        source: "the log's own stamps, thread by thread",
        not_proven: "that it stood still: it may have had nothing to say, or lines are missing from an excerpt",
    },
    About {
        rule: Rule::Unblocking,
        says: "several threads, or processes of one host, speak again within 10 ms after more than a second of \
               silence: they had waited for one thing of that host",
        source: "independent threads do not resume in the same hundredth of a second by chance; counted only \
                 around a stall that figures prove",
        not_proven: "what they waited for; when each of them began to wait",
    },
    About {
        rule: Rule::SameHost,
        says: "a request whose two addresses are one host's passes no switch and no network card",
        source: "the local routing table of Linux: own addresses go over loopback",
        not_proven: "which of the two processes was late",
    },
    About {
        rule: Rule::LateNotice,
        says: "whoever notices a deadline late was itself not running on time",
        source: "a client gives its connection up at last reply + 2T/3 (C, Java, kazoo); an RPC client at its timeout",
        not_proven: "why; a timer that is looked at in long steps looks the same up to one step",
    },
    About {
        rule: Rule::DelayedExpiry,
        says: "leases that a grantor expires as it resumes from its own stall, or with the words that its own delay \
               caused it, were expired falsely",
        source: "a stalled grantor that resumes may run its expiry before it reads the renewals that wait in its \
                 sockets",
        not_proven: "that each holder was alive and punctual, where its own log is not there",
    },
    About {
        rule: Rule::TwoLeaders,
        says: "from the new leader's line to the line with which the old one learns it, both led",
        source: "the lines of the two",
        not_proven: "more than that span: the new one may lead earlier and the old one later. The hosts' clocks are \
                     taken to agree",
    },
    About {
        rule: Rule::Since,
        says: "a state that \"lasted for N\" began N before its line",
        source: "the line",
        not_proven: "what happened in it",
    },
    About {
        rule: Rule::Pause,
        says: "a pause or wait of N that is told when it ends began N before",
        source: "JVM safepoint log, ZooKeeper's JvmPauseMonitor and fsync warning, etcd's fdatasync warning, the \
                 kernel's hung-task and lockup detectors (these say \"more than N\")",
        not_proven: "that the leases waited for it: only that the times fit",
    },
    About {
        rule: Rule::Expiry,
        says: "a server that expires a session of timeout T at E last heard of it between E - T - tick and E - T",
        source: "ZooKeeper, ExpiryQueue: the expiry is rounded up to the next tick",
        not_proven: "whether the holder sent nothing, or the server did not read it",
    },
];

impl Rule {
    /// Its name, as in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Elapsed => "elapsed",
            Self::Deadline => "deadline",
            Self::OneNow => "one_now",
            Self::OwnStamp => "own_stamp",
            Self::Silence => "silence",
            Self::Unblocking => "unblocking",
            Self::SameHost => "same_host",
            Self::LateNotice => "late_notice",
            Self::DelayedExpiry => "delayed_expiry",
            Self::TwoLeaders => "two_leaders",
            Self::Since => "since",
            Self::Pause => "pause",
            Self::Expiry => "expiry",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_is_told_once_and_stands_in_the_docs() {
        let docs = include_str!("../../../docs/explain.md");
        for (place, about) in RULES.iter().enumerate() {
            assert_eq!(about.rule as usize, place);
            let name = about.rule.name();
            assert!(
                docs.contains(&format!("`{name}`")),
                "docs/explain.md lacks {name}"
            );
            assert_eq!(serde_json::json!(about.rule), name);
        }
    }
}
