//! `test-alert`: does an alert get out?
//!
//! In: a configuration. Out: one alert that says that it is a test, by every way out that is
//! configured, and what came back of each. Never: the running daemon, which is neither asked nor
//! needed; whoever is told must be able to tell a test from the truth (`"test": true`, the label
//! `alertname="LeaseWatchdogTest"`).

use crate::config::{AlertDestination, Config};
use crate::failure::Failure;
use crate::sinks::alerts::message::{self, Message};
use crate::sinks::alerts::{called, node_name};
use crate::sinks::events::wall_clock;
use crate::sinks::tally::Tally;
use crate::sinks::{alertmanager, hooks, webhook};
use crate::tick::clock;

/// Sends a test through every alert, one after the other, and says what came back. Must be called
/// inside a tokio runtime.
///
/// # Errors
/// None is configured, or one did not get through.
pub async fn run(config: &Config) -> Result<(), Failure> {
    if config.alerts.is_empty() {
        return Err(Failure::Usage(
            "no alerts are configured, so nobody would be told; add an entry under \"alerts\""
                .to_owned(),
        ));
    }
    let node = node_name();
    let lease = config.leases.first().map_or("", |entry| &entry.name);
    let mut failed = 0;
    for (index, alert) in config.alerts.iter().enumerate() {
        let name = called(index, &alert.to);
        let test = message::test(wall_clock(clock()), &node, lease, alert.on);
        match send(&alert.to, &node, &test).await {
            Ok(answer) => println!("{name}: ok, {answer}"),
            Err(why) => {
                failed += 1;
                println!("{name}: FAILED: {why}");
            }
        }
    }
    match failed {
        0 => Ok(()),
        _ => Err(Failure::Running(format!(
            "{failed} of {} alerts did not get through",
            config.alerts.len()
        ))),
    }
}

async fn send(to: &AlertDestination, node: &str, test: &Message) -> Result<String, String> {
    match to {
        AlertDestination::Exec(hook) => hooks::test(hook, Tally::of_a_test(), test).await,
        AlertDestination::Webhook(hook) => webhook::once(hook, test).await,
        AlertDestination::Alertmanager(there) => alertmanager::once(there, node, test).await,
    }
}
