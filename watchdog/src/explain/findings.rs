//! What follows from single lines and their figures.
//!
//! In: events. Out: moments that no line has, each with the rule that gives it, and stalls of threads.
//! Never: a conclusion about who or why.

use std::collections::{HashMap, HashSet};

use super::meaning::{Event, Meaning, host_of};
use super::rules::Rule;
use super::scan::Logs;
use super::sessions::Sessions;
use super::wall::{MS, SECOND, Wall, exact, span};

/// A message held up for less than this is no stall.
const HELD_UP: i64 = 100 * MS;
/// Two lines with one figure further apart than this are two calls.
const ONE_CALL: i64 = 120 * SECOND;
/// A pause shorter than this loses no lease.
const LONG_PAUSE: i64 = SECOND / 2;

/// A moment that is derived.
#[derive(Clone, Debug)]
pub struct Finding {
    /// When.
    pub at: Wall,
    /// The end, of what lasted.
    pub until: Option<Wall>,
    /// The source it is about.
    pub source: usize,
    /// What.
    pub text: String,
    /// The rule.
    pub rule: Rule,
    /// The arithmetic.
    pub from: String,
    /// Whether it is a deadline.
    pub deadline: bool,
}

/// A thread that stood still, by figures.
#[derive(Clone, Debug)]
pub struct Stall {
    /// The source.
    pub source: usize,
    /// The thread.
    pub thread: String,
    /// From.
    pub from: Wall,
    /// To.
    pub to: Wall,
    /// What says so.
    pub text: String,
    /// The rule.
    pub rule: Rule,
    /// What made it, where a log says so.
    pub meaning: Meaning,
}

/// A renewal without an answer.
#[derive(Clone, Debug)]
pub struct Renewal {
    /// The source that sent it.
    pub source: usize,
    /// When.
    pub sent: Wall,
    /// Its limit.
    pub limit: Option<Wall>,
    /// The lease's length, in ns, taken from the limit.
    pub timeout: Option<i64>,
    /// When its sender noticed.
    pub noticed: Wall,
    /// From where.
    pub local: Option<String>,
    /// To where.
    pub peer: Option<String>,
}

impl Renewal {
    /// Rule `same_host`.
    #[must_use]
    pub fn on_one_host(&self) -> bool {
        let ends = self.local.as_deref().zip(self.peer.as_deref());
        ends.is_some_and(|(local, peer)| host_of(local) == host_of(peer))
    }
}

/// A read deadline of a client's session.
#[derive(Clone, Debug)]
pub struct ReadDeadline {
    /// The source of the client.
    pub source: usize,
    /// When it passed.
    pub at: Wall,
    /// When its loop first ran after it.
    pub noticed: Wall,
    /// When it ran the last time without having dealt with it.
    pub last: Wall,
    /// Whether it is the read deadline by proof.
    pub proven: bool,
    /// The session's timeout, if any line has it, in ns.
    pub timeout: Option<i64>,
}

/// All that was derived.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Moments.
    pub all: Vec<Finding>,
    /// Stalls of threads.
    pub stalls: Vec<Stall>,
    /// Renewals without an answer.
    pub renewals: Vec<Renewal>,
    /// Read deadlines.
    pub deadlines: Vec<ReadDeadline>,
}

/// Derives what can be.
#[must_use]
pub fn derive(logs: &Logs) -> Findings {
    let mut findings = Findings::default();
    let mut told = HashSet::new();
    let sessions = Sessions::of(&logs.events);
    for event in &logs.events {
        match event.meaning {
            Meaning::RenewalTimedOut => renewal(event, &mut findings),
            Meaning::ReadTimedOut => heard_late(event, &sessions, &mut told, &mut findings),
            Meaning::Serving | Meaning::StatusChange => since(event, &mut findings),
            Meaning::Pause
            | Meaning::DiskSlow
            | Meaning::HungTask
            | Meaning::SoftLockup
            | Meaning::RequestSlow => pause(event, &mut findings),
            Meaning::LeaseExpired => last_heard(event, &mut findings),
            _ => {}
        }
        held_up(event, &mut findings);
    }
    loops(logs, &sessions, &mut findings);
    findings.all.sort_by_key(|finding| finding.at);
    findings.stalls.sort_by_key(|stall| stall.from);
    findings
}

/// Rule `elapsed`, `late_notice`.
fn renewal(event: &Event, findings: &mut Findings) {
    let Some(elapsed) = event.number("elapsed_ms") else {
        return;
    };
    let limit_ms = event.number("limit_ms").filter(|limit| *limit > 0);
    let sent = event.at.minus_ms(elapsed).to_ms();
    let limit = limit_ms.map(|ms| sent.plus(ms * MS));
    let local = event.get("local").map(str::to_owned);
    let peer = event.get("peer").map(str::to_owned);
    let to = peer
        .as_deref()
        .map_or(String::new(), |peer| format!(" to {peer}"));
    let same = local
        .as_deref()
        .zip(peer.as_deref())
        .is_some_and(|(local, peer)| host_of(local) == host_of(peer));
    let host = if same {
        " (same host: no switch, no network card)"
    } else {
        ""
    };
    findings.all.push(Finding {
        at: sent,
        until: None,
        source: event.source,
        text: format!("keepalive sent{to}{host}; no answer ever arrives"),
        rule: Rule::Elapsed,
        from: format!("{} - {}", event.at.time(), exact(elapsed * MS)),
        deadline: false,
    });
    if let (Some(limit), Some(ms)) = (limit, limit_ms) {
        findings.all.push(Finding {
            at: limit,
            until: None,
            source: event.source,
            text: "the keepalive's own limit".to_owned(),
            rule: Rule::Elapsed,
            from: format!("{} + {}", sent.time(), exact(ms * MS)),
            deadline: true,
        });
        let late = (elapsed - ms) * MS;
        if late >= HELD_UP {
            findings.all.push(Finding {
                at: event.at,
                until: None,
                source: event.source,
                text: format!("the holder notices, {} late", exact(late)),
                rule: Rule::LateNotice,
                from: format!("{elapsed} ms elapsed of {ms} ms"),
                deadline: false,
            });
            findings.stalls.push(Stall {
                source: event.source,
                thread: event.thread.clone(),
                from: limit,
                to: event.at,
                text: format!("noticed its keepalive's limit {} late", span(late)),
                rule: Rule::LateNotice,
                meaning: event.meaning,
            });
        }
    }
    findings.renewals.push(Renewal {
        source: event.source,
        sent,
        limit,
        timeout: limit_ms.map(whole_timeout),
        noticed: event.at,
        local,
        peer,
    });
}

/// What is left of a limit when the call begins is a little less than was configured: 11,999 ms are 12 s.
fn whole_timeout(ms: i64) -> i64 {
    const LOST_ON_THE_WAY_MS: i64 = 10;
    let up = (ms + 999) / 1000 * 1000;
    let whole = if ms >= 1000 && up - ms <= LOST_ON_THE_WAY_MS {
        up
    } else {
        ms
    };
    whole * MS
}

/// Rules `deadline`, `one_now`: the C client's loop, etcd's heartbeat loop.
fn loops(logs: &Logs, sessions: &Sessions<'_>, findings: &mut Findings) {
    let mut threads: HashMap<(usize, &str), Vec<&Event>> = HashMap::new();
    for event in &logs.events {
        let speaks = matches!(event.meaning, Meaning::LoopLate | Meaning::ReadTimedOut)
            && late_by(event).is_some();
        if speaks {
            let thread = event.own_thread.as_deref().unwrap_or(&event.thread);
            threads
                .entry((event.source, thread))
                .or_default()
                .push(event);
        }
    }
    for ((source, thread), mut events) in threads {
        events.sort_by_key(|event| event.said());
        let mut group: Vec<&Event> = Vec::new();
        for event in events {
            let about_another = group.last().is_some_and(|before| {
                deadline(event) >= group[0].said() && !of_one_call(before, event)
            });
            if about_another {
                one_deadline(source, thread, &group, (logs, sessions), findings);
                group.clear();
            }
            group.push(event);
        }
        one_deadline(source, thread, &group, (logs, sessions), findings);
    }
}

/// Rule `one_now`: two messages of one call.
fn of_one_call(one: &Event, two: &Event) -> bool {
    late_by(one) == late_by(two)
        && one.meaning != two.meaning
        && two.said().since(one.said()) <= ONE_CALL
}

fn late_by(event: &Event) -> Option<i64> {
    event
        .number("by_ms")
        .map(|ms| ms.saturating_mul(MS))
        .or_else(|| {
            (event.meaning == Meaning::LoopLate)
                .then(|| event.lasted())
                .flatten()
        })
}

fn deadline(event: &Event) -> Wall {
    event.said().plus(-late_by(event).unwrap_or(0))
}

/// Lines about one and the same deadline of a client's loop.
fn one_deadline(
    source: usize,
    thread: &str,
    group: &[&Event],
    (logs, sessions): (&Logs, &Sessions<'_>),
    findings: &mut Findings,
) {
    let Some(first) = group.first() else { return };
    // The figure is taken before the stamp, so each gives a bound from above: the least is nearest.
    let Some(nearest) = group.iter().min_by_key(|event| deadline(event)) else {
        return;
    };
    let at = deadline(nearest);
    let client = first.function.is_some() || first.own_thread.is_some() || is_c_client(first, logs);
    let mut proven = group
        .iter()
        .any(|event| event.meaning == Meaning::ReadTimedOut);
    for pair in group.windows(2) {
        let (one, two) = (pair[0], pair[1]);
        let lasted = two.said().since(one.said());
        if !of_one_call(one, two) {
            continue;
        }
        proven = true;
        let after_log = two.said().since(one.at);
        findings.all.push(Finding {
            at: one.said(),
            until: Some(two.said()),
            source,
            text: format!(
                "one call of {} lasts at least {} ({} after its first message was logged): both messages \
                 carry the same {} ms; only a log callback and name resolution stand between them",
                one.function.as_deref().unwrap_or("the client's loop"),
                exact(lasted),
                exact(after_log),
                late_by(one).unwrap_or(0) / MS
            ),
            rule: Rule::OneNow,
            from: format!("{} and {}", one.said().time(), two.said().time()),
            deadline: false,
        });
        if lasted >= HELD_UP {
            findings.stalls.push(Stall {
                source,
                thread: thread.to_owned(),
                from: one.said(),
                to: two.said(),
                text: format!("one call lasts {}", span(lasted)),
                rule: Rule::OneNow,
                meaning: Meaning::LoopLate,
            });
        }
    }
    let what = match (client, proven) {
        // This message's clock was read at the call's begin, and its stamp taken at its end.
        (true, true) if nearest.meaning == Meaning::ReadTimedOut => {
            "the ZooKeeper client's read deadline (last reply + 2T/3) has passed, at the latest"
        }
        (true, true) => {
            "the ZooKeeper client's read deadline passes (last reply + 2T/3), and it cannot notice"
        }
        (true, false) => {
            "the ZooKeeper client's next deadline (ping or read) passes, and it cannot notice"
        }
        (false, _) => "the loop's own deadline passes, and it cannot notice",
    };
    let by = exact(late_by(nearest).unwrap_or(0));
    findings.all.push(Finding {
        at,
        until: None,
        source,
        text: what.to_owned(),
        rule: Rule::Deadline,
        from: format!("{} - {by}", nearest.said().time()),
        deadline: true,
    });
    let last = group.iter().map(|event| event.said()).max().unwrap_or(at);
    findings.stalls.push(Stall {
        source,
        thread: thread.to_owned(),
        from: at,
        to: last,
        text: format!("its loop is up to {} late", span(last.since(at))),
        rule: Rule::Deadline,
        meaning: Meaning::LoopLate,
    });
    if client {
        findings.deadlines.push(ReadDeadline {
            source,
            at,
            noticed: first.said(),
            last,
            proven,
            timeout: sessions.timeout(source, first.lease(), first.at),
        });
        delivered(source, at, last, sessions, findings);
    }
}

fn is_c_client(event: &Event, logs: &Logs) -> bool {
    logs.sources[event.source].series.kind == super::readers::Kind::ZookeeperC
}

/// How late the application hears of a deadline that its client has missed.
fn delivered(
    source: usize,
    deadline: Wall,
    last: Wall,
    sessions: &Sessions<'_>,
    findings: &mut Findings,
) {
    let told = sessions
        .change(source, last)
        .filter(|event| event.at.since(last) < SECOND);
    if let Some(event) = told {
        findings.all.push(Finding {
            at: event.at,
            until: None,
            source,
            text: format!(
                "the state change {} -> {} is delivered, {} late",
                event.get("from").unwrap_or("?"),
                event.get("to").unwrap_or("?"),
                exact(event.at.since(deadline))
            ),
            rule: Rule::LateNotice,
            from: format!("{} - {}", event.at.time(), deadline.time()),
            deadline: false,
        });
    }
}

/// Rule `late_notice` of Java clients: what it had not heard for, against 2T/3.
fn heard_late<'a>(
    event: &'a Event,
    sessions: &Sessions<'_>,
    told: &mut HashSet<(usize, &'a str, i64)>,
    findings: &mut Findings,
) {
    let Some(silent) = event.number("silent_ms").map(|ms| ms.saturating_mul(MS)) else {
        return;
    };
    // 3.4.14 to 3.5 say it twice: when they notice, and when they have closed the socket. The figure is of
    // the first.
    if !told.insert((event.source, event.lease().unwrap_or(""), silent)) {
        return;
    }
    let heard = event.at.plus(-silent);
    findings.all.push(Finding {
        at: heard.to_ms(),
        until: None,
        source: event.source,
        text: "the client hears from its server for the last time".to_owned(),
        rule: Rule::Deadline,
        from: format!("{} - {}", event.at.time(), exact(silent)),
        deadline: false,
    });
    let Some(timeout) = sessions.timeout(event.source, event.lease(), event.at) else {
        return;
    };
    let deadline = heard.plus(timeout / 3 * 2);
    let late = event.at.since(deadline);
    findings.all.push(Finding {
        at: deadline.to_ms(),
        until: None,
        source: event.source,
        text: "the client's read deadline (last heard + 2T/3)".to_owned(),
        rule: Rule::Deadline,
        from: format!("{} + 2/3 of {}", heard.time(), exact(timeout)),
        deadline: true,
    });
    // The Java client's loop looks at least once a second.
    if late > SECOND {
        findings.stalls.push(Stall {
            source: event.source,
            thread: event.thread.clone(),
            from: deadline,
            to: event.at,
            text: format!("noticed its read deadline {} late", span(late)),
            rule: Rule::LateNotice,
            meaning: event.meaning,
        });
    }
    findings.deadlines.push(ReadDeadline {
        source: event.source,
        at: deadline.to_ms(),
        noticed: event.at,
        last: event.at,
        proven: true,
        timeout: Some(timeout),
    });
}

/// Rule `own_stamp`.
fn held_up(event: &Event, findings: &mut Findings) {
    let Some(own) = event.own else { return };
    let held = event.at.since(own);
    if held < HELD_UP {
        return;
    }
    findings.all.push(Finding {
        at: own,
        until: Some(event.at),
        source: event.source,
        text: format!("a message waits {} for its logger", exact(held)),
        rule: Rule::OwnStamp,
        from: format!("{} - {}", event.at.time(), own.time()),
        deadline: false,
    });
    findings.stalls.push(Stall {
        source: event.source,
        thread: event.thread.clone(),
        from: own,
        to: event.at,
        text: format!(
            "{} between a message's own stamp and its logger's",
            span(held)
        ),
        rule: Rule::OwnStamp,
        meaning: event.meaning,
    });
}

/// Rule `since`.
fn since(event: &Event, findings: &mut Findings) {
    if let Some(lasted) = event.lasted() {
        findings.all.push(Finding {
            at: event.at.plus(-lasted).to_ms(),
            until: Some(event.at),
            source: event.source,
            text: format!(
                "{} begins, for {}",
                event.get("from").unwrap_or("the state before"),
                exact(lasted)
            ),
            rule: Rule::Since,
            from: format!("{} - {}", event.at.time(), exact(lasted)),
            deadline: false,
        });
    }
}

/// Rule `pause`.
fn pause(event: &Event, findings: &mut Findings) {
    let Some(lasted) = event.lasted().filter(|lasted| *lasted >= LONG_PAUSE) else {
        return;
    };
    // The older collectors' lines are stamped when the pause begins.
    let (from, to, arithmetic) = if event.get("starts").is_some() {
        let arithmetic = format!("{} + {}", event.at.time(), exact(lasted));
        (event.at, event.at.plus(lasted), arithmetic)
    } else {
        let arithmetic = format!("{} - {}", event.at.time(), exact(lasted));
        (event.at.plus(-lasted), event.at, arithmetic)
    };
    let text = match event.meaning {
        Meaning::HungTask => format!(
            "task {} waits for the disk or a lock for more than {}",
            event.get("comm").unwrap_or("?"),
            span(lasted)
        ),
        Meaning::DiskSlow => format!("a write to disk lasts {}", span(lasted)),
        Meaning::RequestSlow => format!("a request lasts {}", span(lasted)),
        Meaning::SoftLockup => format!("a CPU does one thing for {}", span(lasted)),
        _ => format!("all threads stand still for {}", span(lasted)),
    };
    findings.all.push(Finding {
        at: from.to_ms(),
        until: Some(to),
        source: event.source,
        text: text.clone(),
        rule: Rule::Pause,
        from: arithmetic,
        deadline: false,
    });
    findings.stalls.push(Stall {
        source: event.source,
        thread: event.get("comm").unwrap_or(&event.thread).to_owned(),
        from,
        to,
        text,
        rule: Rule::Pause,
        meaning: event.meaning,
    });
}

/// Rule `expiry`.
fn last_heard(event: &Event, findings: &mut Findings) {
    let Some(timeout) = event.number("timeout_ms").filter(|ms| *ms > 0) else {
        return;
    };
    findings.all.push(Finding {
        at: event.at.minus_ms(timeout).to_ms(),
        until: None,
        source: event.source,
        text: format!(
            "the server has heard session {} for the last time, at the latest",
            event.lease().unwrap_or("?")
        ),
        rule: Rule::Expiry,
        from: format!("{} - {}", event.at.time(), exact(timeout * MS)),
        deadline: false,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_on_the_way_is_given_back_to_a_limit() {
        assert_eq!(whole_timeout(11_999), 12 * SECOND);
        assert_eq!(whole_timeout(12_000), 12 * SECOND);
        assert_eq!(whole_timeout(11_500), 11_500 * MS);
        assert_eq!(whole_timeout(999), 999 * MS);
    }
}
