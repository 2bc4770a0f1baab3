//! The status page in a real browser: a frozen holder's bar turns amber, red and green again
//! without a reload; ten thousand leases scroll; nothing that a process calls itself is run.
//!
//! With `LEASE_WATCHDOG_PICTURES=DIR` the first story leaves the pictures of docs/ there.

use crate::harness::browser::Browser;
use crate::harness::client::{Client, Kind, Order};
use crate::harness::event::{Event, Stage};
use crate::harness::world::{ROLES, World};
use crate::harness::zookeeper::Listen;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use watchdog::live;
use watchdog::sinks::api::{Sources, ledger::Ledger, mutes::Desk};
use watchdog::sinks::http;
use watchdog::sinks::metrics::Metrics;
use watchdog::tick;
use watchdog_model::causes::Cause;
use watchdog_model::leases::book::LeaseView;
use watchdog_model::leases::note::{Condition, LeaseHandle, LeaseId, Stage as ModelStage, Subject};
use watchdog_model::leases::observation::{Endpoints, Owner, Role, TimeoutSource};
use watchdog_model::time::{Mono, SECOND};

const TIMEOUT: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(20);
/// From an event to its colour: the promise, kept by one of three at least; and for each what two cores
/// may add that also run a browser.
const PROMISE_MS: i64 = 300;
const GRACE_MS: i64 = 1500;

/// Notes when which row shows which stage.
const WATCH: &str = r"
    window.__mark = 1;
    window.__seen = [];
    new MutationObserver(changes => {
        for (const { target } of changes)
            window.__seen.push([target.dataset.handle, target.dataset.stage, Date.now()]);
    }).observe(document.getElementById('rows'), { subtree: true, attributeFilter: ['data-stage'] });
    true";

fn url(daemon_http: &str) -> String {
    format!("http://{daemon_http}/")
}

#[test]
fn a_frozen_holders_bar_turns_amber_red_and_green_without_a_reload() {
    let Some(mut browser) = Browser::start("page::a_frozen_holder") else {
        return;
    };
    let world = World::new(TIMEOUT, Listen::Loopback, "");
    let World { server, daemon, .. } = &world;
    let port = server.port();
    let clients = world.connect(Client::start_all(|kind| Order::idle(kind, port, TIMEOUT)));
    let frozen = clients
        .iter()
        .find(|client| client.name() == Kind::C.name())
        .expect("a client of each kind");
    let id = frozen.id();
    browser.size(1280, 900, false);
    browser.scheme("light");
    browser.open(&url(&daemon.http()));
    browser.wait(
        "rows of all leases",
        PATIENCE,
        &format!(
            "document.querySelectorAll('.row[data-stage=healthy]').length === {}",
            clients.len() * ROLES.len()
        ),
    );
    let handle = browser.run(&format!(
        "fetch('/api/v1/leases?role=holder&q={id:#x}').then(one => one.json()).then(page => \
         page.leases[0].handle)"
    ));
    browser.run(WATCH);
    server.next_renewal(id);
    let mark = daemon.mark();
    let stopped = frozen.freeze();
    let at_risk = daemon.wait_stage(mark, id, "holder", Stage::AtRisk, TIMEOUT);
    assert_colour(&mut browser, &handle, "at_risk", "rgb(230, 159, 0)");
    let jeopardy = daemon.wait_stage(mark, id, "holder", Stage::Jeopardy, TIMEOUT);
    assert_colour(&mut browser, &handle, "jeopardy", "rgb(209, 55, 10)");
    let verdict = browser.run("document.getElementById('open').innerText");
    let verdict = verdict.as_str().unwrap_or_default();
    assert!(
        verdict.contains("process stopped") && verdict.contains("the process is stopped"),
        "the incident tells the reason: {verdict}"
    );
    leave_pictures(&mut browser, &handle);
    stopped.resume();
    let renewed = daemon.wait_from(mark, "`renewed`", TIMEOUT, |event| {
        event.of(id, "holder") && event.enters("renewed")
    });
    assert_colour(&mut browser, &handle, "healthy", "rgb(0, 158, 115)");
    let mut soonest_ms = i64::MAX;
    for (event, stage) in [
        (&at_risk, "at_risk"),
        (&jeopardy, "jeopardy"),
        (&renewed, "healthy"),
    ] {
        let after_ms = shown_after(&mut browser, &handle, event, stage);
        println!("page: {stage} shown {after_ms} ms after it was said");
        assert!(
            (-50..GRACE_MS).contains(&after_ms),
            "{stage} is shown {after_ms} ms after it was said"
        );
        soonest_ms = soonest_ms.min(after_ms);
    }
    assert!(soonest_ms < PROMISE_MS, "{soonest_ms} ms at best");
    assert_eq!(
        browser.run("window.__mark"),
        1,
        "the page was not loaded again"
    );
}

fn colour(handle: &Value) -> String {
    format!(
        "getComputedStyle(document.querySelector('.row[data-handle=\"{handle}\"] .fill'))\
         .backgroundColor"
    )
}

fn assert_colour(browser: &mut Browser, handle: &Value, stage: &str, expected: &str) {
    browser.wait(
        &format!("{stage} in its colour"),
        Duration::from_secs(5),
        &format!("{} === '{expected}'", colour(handle)),
    );
}

/// How long after an event its stage was shown, ms.
fn shown_after(browser: &mut Browser, handle: &Value, event: &Event, stage: &str) -> i64 {
    let said = humantime::parse_rfc3339(event.text("ts")).expect("a time");
    let said = said
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970");
    let said_ms = i64::try_from(said.as_millis()).expect("before the year 292,000,000");
    let seen = browser.run(&format!(
        "window.__seen.findLast(([handle, stage]) => handle === '{handle}' && stage === '{stage}')[2]"
    ));
    seen.as_i64().expect("a moment") - said_ms
}

fn leave_pictures(browser: &mut Browser, handle: &Value) {
    let Some(directory) = std::env::var_os("LEASE_WATCHDOG_PICTURES") else {
        return;
    };
    let leave = |browser: &mut Browser, name: &str| {
        browser.wait(
            "a painted page",
            PATIENCE,
            "new Promise(done => requestAnimationFrame(() => setTimeout(() => done(true), 350)))",
        );
        let picture = browser.picture(false);
        std::fs::write(Path::new(&directory).join(name), picture).expect("a picture is written");
    };
    browser.size(1280, 1180, false);
    leave(browser, "page-light.png");
    browser.scheme("dark");
    leave(browser, "page-dark.png");
    browser.size(390, 844, true);
    leave(browser, "page-phone.png");
    browser.scheme("light");
    browser.size(1280, 900, false);
    browser.run(&format!(
        "document.querySelector('.row[data-handle=\"{handle}\"]').click(), true"
    ));
    browser.wait(
        "the evidence",
        PATIENCE,
        "document.getElementById('detail').open",
    );
    leave(browser, "page-evidence.png");
    browser.run("document.getElementById('detail').close(), true");
}

/// A lease of a process that calls itself `comm`.
fn lease(handle: u64, comm: &[u8], now: Mono) -> LeaseView {
    let mut name = [0; 16];
    name[..comm.len()].copy_from_slice(comm);
    // Each a little older than the one before, none of them late.
    let answered_at = Mono(now.0.saturating_sub(handle * 200_000));
    LeaseView {
        subject: Subject {
            handle: LeaseHandle(handle),
            entry: 0,
            role: Role::Holder,
            id: LeaseId::Session(0x1000_0000 + handle),
            endpoints: Endpoints {
                local: SocketAddr::from(([10, 0, 0, 1], 40_000)),
                peer: SocketAddr::from(([10, 0, 0, 2], 2181)),
            },
            owner: Some(Owner {
                pid: u32::try_from(handle).expect("a small number"),
                comm: name,
                executable: 0,
            }),
            timeout_ns: Some(600 * SECOND),
            timeout_source: TimeoutSource::Handshake,
        },
        stage: ModelStage::Healthy,
        condition: Condition::None,
        since: answered_at,
        cause: Cause::Unknown,
        floor: Some(answered_at.plus(600 * SECOND)),
        remaining_ns: None,
        answered_at: Some(answered_at),
        silent_ns: None,
        cadence_ns: Some(200 * SECOND),
        learned_cadence_ns: None,
        flow: None,
        synchronised: true,
    }
}

#[test]
fn ten_thousand_leases_scroll_and_no_name_is_run() {
    const LEASES: u64 = 10_000;
    let Some(mut browser) = Browser::start("page::ten_thousand_leases") else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("tokio starts");
    // No tick runs here: what is published now stays the newest.
    let (publisher, board) = live::board(Duration::ZERO);
    let mut sheet = live::Sheet::with_room(LEASES as usize);
    let now = tick::clock();
    for handle in 1..=LEASES {
        let comm: &[u8] = match handle % 3 {
            0 => b"<img src=x:><b>",
            1 => b"\x1b[31m\"'><svg/",
            _ => b"meta",
        };
        sheet.push(&lease(handle, comm, now));
    }
    publisher.publish(sheet, now);
    let sources = Sources {
        metrics: Arc::new(Metrics::new(&["zookeeper".to_owned()]).expect("metrics")),
        last_tick: Arc::new(AtomicU64::new(now.0)),
        clock: tick::clock,
        board,
        ledger: Ledger::default(),
        token: None,
        desk: Desk::new().0,
        started: Arc::default(),
        started_at: now,
        streams: Arc::new(tokio::sync::Semaphore::new(4)),
    };
    sources.ledger.set_entries(&["zookeeper".to_owned()]);
    let bound = http::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port is free");
    let address = bound.address();
    runtime.spawn(http::serve(bound, sources, http::Doors::open()));
    browser.size(1280, 900, false);
    browser.open(&url(&address.to_string()));
    browser.wait(
        "rows",
        PATIENCE,
        "document.querySelectorAll('.row').length > 5",
    );
    for share in [0.25, 0.5, 1.0, 0.0] {
        browser.run(&format!(
            "document.getElementById('scroller').scrollTop = {share} * \
             document.getElementById('scroller').scrollHeight, true"
        ));
        // What is in sight, by the risk order: the oldest renewals first.
        browser.wait(
            &format!("the rows at {share}"),
            Duration::from_secs(10),
            &format!(
                "(() => {{
                    const box = document.getElementById('scroller').getBoundingClientRect();
                    const row = document.elementFromPoint(box.left + 100, box.top + 20)?.closest('.row');
                    const wanted = {LEASES} - {share} * ({LEASES} - 9);
                    return !!row && Math.abs(Number(row.dataset.handle) - wanted) < 12;
                }})()"
            ),
        );
    }
    let rows = browser.run("document.querySelectorAll('.row').length");
    assert!(
        rows.as_u64().is_some_and(|rows| rows < 60),
        "only rows in sight exist: {rows}"
    );
    assert_eq!(
        browser.run("document.querySelectorAll('img, svg:not(#hour), .row b b').length"),
        json!(0),
        "a name is text"
    );
    let text = browser.run("document.getElementById('rows').innerText");
    let text = text.as_str().unwrap_or_default();
    assert!(
        text.contains("<img src=x:><b>"),
        "a name is shown as it is: {text}"
    );
    assert!(!text.contains('\x1b'), "but for what a terminal would obey");
    // Filtering, by a word that one lease has.
    browser.run(
        "const box = document.getElementById('filter'); box.value = '0x10000007'; \
         box.dispatchEvent(new Event('input')), true",
    );
    browser.wait(
        "the one that was looked for",
        Duration::from_secs(5),
        "document.querySelectorAll('.row').length === 1",
    );
    runtime.shutdown_background();
}
