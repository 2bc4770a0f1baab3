//! The path between real clients and the server: packets lost one way, the other, and a closed port.

use crate::fault::Fault;
use crate::harness::client::Order;
use crate::harness::clock;
use crate::rig::path::{Path, Rule};
use crate::rig::programs::Habit;
use crate::rig::victim::{Holder, Victim, real};
use crate::sample::Sample;
use crate::scene::{Scene, T};
use std::net::SocketAddr;

/// The faults of this family.
pub const FAULTS: &[Fault] = &[
    Fault::new(
        "drop-to-server",
        "nftables drops what goes to the server",
        &["network_loss"],
        |scene, count| broken(scene, count, Rule::DropToNode),
    )
    .sized(8, 2),
    Fault::new(
        "drop-to-client",
        "nftables drops what goes to the client",
        &["network_loss"],
        |scene, count| broken(scene, count, Rule::DropToClients),
    ),
    Fault::new(
        "reset",
        "the port is closed: RST, and every new connection refused",
        &["peer_down"],
        |scene, count| broken(scene, count, Rule::Reset),
    )
    .sized(8, 2),
    Fault::new(
        "loss",
        "netem loses everything, both ways",
        &["network_loss"],
        lost,
    )
    .where_not(Path::netem_lacking),
];

/// Holders of our own: where this can be played there may be no other client.
fn lost(scene: &Scene, count: usize) -> Vec<Sample> {
    let path = Path::create();
    let (file, enter) = (std::path::Path::new("/dev/null"), path.enter());
    let start = |_| {
        clock::observe_for(crate::rig::random::within(T / 4));
        let holder = Holder {
            server: SocketAddr::new(path.node, scene.server.port()),
            inside: &enter,
            ..Holder::new(0, T, Habit::None, file)
        };
        Victim::Own(holder.start())
    };
    let holders: Vec<Victim> = (0..count).map(start).collect();
    scene.settle(&holders, &["holder"]);
    scene.strike_all(&holders, "holder", || {
        let since_us = clock::now_us();
        (since_us, Box::new(path.lose_all()))
    })
}

fn broken(scene: &Scene, count: usize, rule: Rule) -> Vec<Sample> {
    let path = Path::create();
    let server = SocketAddr::new(path.node, scene.server.port());
    // The words live as long as the program: there are a few of them.
    let words: Vec<&'static str> = path.enter().map(|word| &*word.to_owned().leak()).to_vec();
    let words: &'static [&'static str] = words.leak();
    let clients = real(
        count,
        |kind| Order {
            server,
            before: words,
            ..Order::idle(kind, 0, T)
        },
        T,
    );
    scene.settle(&clients, &["holder"]);
    let mut samples = scene.strike_all(&clients, "holder", || {
        let since_us = clock::now_us();
        (since_us, Box::new(path.apply(rule)))
    });
    for (sample, client) in samples.iter_mut().zip(&clients) {
        if let (Ok(proof), Some(at_us)) = (&mut sample.proof, client.lost_us(sample.onset_us)) {
            let after = clock::seconds(at_us - sample.onset_us);
            proof.push_str(&format!(
                "; the client gave its connection up after {after:.1} s"
            ));
        }
    }
    drop(clients);
    samples
}
