//! Everything that reads others' bytes: what is done with an input, what it may cost, and seeds.

use std::cell::OnceCell;

use watchdog::recorder::format::Recording;
use watchdog::sinks::{http::laws::Server, post_laws::Teller};
use watchdog::{collect, config, discover, explain, recorder, sinks, top};

use crate::inputs::laws;
use crate::inputs::mutated::{self, Subject};

/// A target.
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// CPU time that an input may take, ms. Ten times what it takes without the fuzzer's counters.
    pub most_ms: u64,
    /// Memory that an input may take at once, MiB.
    pub most_mib: usize,
    /// Bytes of an input.
    pub longest: usize,
    /// What is done with an input.
    pub run: fn(&[u8]),
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

thread_local! {
    static SUBJECTS: Vec<Subject> = mutated::subjects();
    static SERVER: Server = Server::new();
    static TELLER: Teller = Teller::new();
    static SOUND: OnceCell<Recording> = const { OnceCell::new() };
}

fn protocol(at: usize, script: &[u8]) {
    SUBJECTS.with(|subjects| laws::by_script(&subjects[at], script));
}

fn protocol_seeds(at: usize) -> Vec<Vec<u8>> {
    laws::seeds(&mutated::subjects()[at]).collect()
}

macro_rules! protocols {
    ($($name:literal = $at:literal),*) => {
        [$(Target {
            name: $name,
            most_ms: 500,
            most_mib: 4,
            longest: 4096,
            run: |script| protocol($at, script),
            seeds: || protocol_seeds($at),
        }),*]
    };
}

const PROTOCOLS: [Target; 7] = protocols![
    "zookeeper" = 0,
    "request_reply" = 1,
    "request_reply-framed" = 2,
    "kafka" = 3,
    "consul" = 4,
    "etcd" = 5,
    "tls" = 6
];

/// The first byte says what is inside.
fn plaintext(script: &[u8]) {
    let Some((inside, script)) = script.split_first() else {
        return;
    };
    SUBJECTS.with(|subjects| {
        // Not the records themselves.
        let inside = usize::from(*inside) % (subjects.len() - 1);
        laws::revealed_script(&subjects[inside], script);
    });
}

fn plaintext_seeds() -> Vec<Vec<u8>> {
    (0..6_u8)
        .flat_map(|at| {
            let seeds = protocol_seeds(usize::from(at));
            seeds
                .into_iter()
                .map(move |seed| [&[at], seed.as_slice()].concat())
        })
        .collect()
}

fn recording_seeds() -> Vec<Vec<u8>> {
    let of = |file: &Vec<u8>| {
        let mut seeds = recorder::laws::seeds(file, 30);
        seeds.extend(recorder::laws::seeds(file, 600));
        seeds
    };
    recorder::laws::samples().iter().flat_map(of).collect()
}

fn with_sound(then: impl FnOnce(&Recording)) {
    SOUND.with(|sound| {
        then(sound.get_or_init(|| {
            let first = recorder::laws::sample();
            Recording::from_reader(first.as_slice()).expect("a recording of our own")
        }));
    });
}

const OTHERS: [Target; 11] = [
    Target {
        name: "plaintext",
        most_ms: 500,
        most_mib: 4,
        longest: 4096,
        run: plaintext,
        seeds: plaintext_seeds,
    },
    Target {
        name: "config",
        most_ms: 3000,
        most_mib: 64,
        longest: 64 << 10,
        run: config::laws::any_bytes,
        seeds: config::laws::seeds,
    },
    Target {
        name: "recording",
        most_ms: 3000,
        most_mib: 256,
        longest: 256 << 10,
        run: |script| with_sound(|sound| recorder::laws::by_script(sound, script)),
        seeds: recording_seeds,
    },
    Target {
        name: "recording-told",
        most_ms: 3000,
        most_mib: 256,
        longest: 64 << 10,
        run: |script| {
            with_sound(|sound| {
                explain::laws::any_recording(&recorder::laws::file_of(sound, script));
            });
        },
        seeds: recording_seeds,
    },
    Target {
        name: "logs",
        most_ms: 3000,
        most_mib: 128,
        longest: 64 << 10,
        run: explain::laws::any_log,
        seeds: explain::laws::seeds,
    },
    Target {
        name: "unpack",
        most_ms: 5000,
        most_mib: 256,
        longest: 16 << 10,
        run: explain::laws::any_packed,
        seeds: explain::laws::packed_seeds,
    },
    Target {
        name: "http",
        most_ms: 1000,
        most_mib: 32,
        longest: 32 << 10,
        run: |script| SERVER.with(|server| server.any_bytes(script)),
        seeds: sinks::http::laws::seeds,
    },
    Target {
        name: "answers",
        most_ms: 1000,
        most_mib: 16,
        longest: 64 << 10,
        run: |answer| TELLER.with(|teller| teller.any_answer(answer)),
        seeds: sinks::post_laws::seeds,
    },
    Target {
        name: "top",
        most_ms: 1000,
        most_mib: 64,
        longest: 64 << 10,
        run: top::client::laws::any_answer,
        seeds: top::client::laws::seeds,
    },
    Target {
        name: "discover",
        most_ms: 1000,
        most_mib: 32,
        longest: 16 << 10,
        run: discover::laws::any_segments,
        seeds: discover::laws::seeds,
    },
    Target {
        name: "library",
        most_ms: 1000,
        most_mib: 80,
        longest: 16 << 10,
        run: collect::library::laws::any_bytes,
        seeds: || vec![collect::library::laws::sample()],
    },
];

/// All of them.
pub fn all() -> impl Iterator<Item = &'static Target> {
    PROTOCOLS.iter().chain(&OTHERS)
}
