//! Two that lead at once: rule `two_leaders`.

use super::incidents::Scene;
use super::meaning::{Event, Meaning};
use super::report::DualLeader;
use super::wall::MS;

/// What only a leader does.
const fn leads(meaning: Meaning) -> bool {
    matches!(
        meaning,
        Meaning::LeaseExpired
            | Meaning::OwnerReleased
            | Meaning::ReplicaRemoved
            | Meaning::StatusChange
    )
}

/// The new leader, the old one, and for how long at least both led.
#[must_use]
pub fn two_leaders(scene: &Scene) -> Option<DualLeader> {
    scene.of(Meaning::RoleGained).find_map(|gained| {
        let learns = |event: &&Event| {
            event.source != gained.source
                && matches!(
                    event.meaning,
                    Meaning::SessionExpired | Meaning::RoleLost | Meaning::SteppingDown
                )
        };
        let learned = scene
            .events
            .iter()
            .copied()
            .filter(learns)
            .filter(|event| led(scene, event.source))
            .min_by_key(|event| event.at)?;
        // It knew before the other one led.
        if learned.at <= gained.at {
            return None;
        }
        Some(DualLeader {
            new: scene.called(gained.source),
            from: gained.at,
            old: scene.called(learned.source),
            to: learned.at,
            at_least_ms: (learned.at.since(gained.at) + MS / 2) / MS,
            acts: acts(scene, learned.source, gained, learned),
        })
    })
}

fn led(scene: &Scene, source: usize) -> bool {
    scene.events.iter().any(|event| {
        event.source == source
            && (matches!(event.meaning, Meaning::RoleLost | Meaning::SteppingDown)
                || (leads(event.meaning) && event.meaning != Meaning::StatusChange))
    })
}

fn acts(scene: &Scene, old: usize, gained: &Event, learned: &Event) -> Vec<String> {
    let count = |meaning: Meaning| {
        scene
            .of(meaning)
            .filter(|event| event.source == old && event.at > gained.at && event.at < learned.at)
            .count()
    };
    [
        (Meaning::OwnerReleased, "owners released"),
        (Meaning::ReplicaRemoved, "replicas removed"),
        (Meaning::LeaseExpired, "leases expired"),
    ]
    .into_iter()
    .filter_map(|(meaning, what)| {
        let count = count(meaning);
        (count > 0).then(|| format!("{count} {what}"))
    })
    .collect()
}
