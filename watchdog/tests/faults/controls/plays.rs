//! What is done in each control.

use super::Control;
use crate::harness::client::Order;
use crate::harness::clock;
use crate::rig::victim::real;
use crate::scene::{Scene, T};
use std::time::Duration;

pub const ALL: &[Control] = &[Control {
    name: "idle",
    does: "eight idle clients",
    span: Duration::from_secs(70),
    short: true,
    play: idle,
}];

fn idle(scene: &Scene, span: Duration) -> Vec<String> {
    let port = scene.server.port();
    let clients = real(8, |kind| Order::idle(kind, port, T), T);
    scene.settle(&clients, &["holder", "grantor"]);
    clock::observe_for(span);
    Vec::new()
}
