//! The journal under several generations at once: nothing that has had an effect is forgotten or changed, whoever is
//! displaced writes nothing that counts, and what somebody may still need is there. Older instances write the format of an
//! earlier version of the program.
#![allow(clippy::unwrap_used, clippy::panic, clippy::large_enum_variant)]

mod misplaced;
mod model;
mod wire;

use proptest::collection::vec;
use proptest::prelude::*;

use model::{Step, World};

fn step() -> impl Strategy<Value = Step> {
    // Mostly the last instances, and now and then any.
    let who = || prop_oneof![4 => 0..3usize, 1 => 0..100usize];
    prop_oneof![
        2 => Just(Step::Claim),
        1 => Just(Step::Upgrade),
        6 => who().prop_map(|who| Step::Advance { who }),
        8 => (who(), 1..4u64).prop_map(|(who, count)| Step::Cut { who, count }),
        6 => (who(), 0..3u64).prop_map(|(who, back)| Step::Publish { who, back }),
        4 => who().prop_map(|who| Step::Prune { who }),
        2 => (who(), 0..6u64).prop_map(|(who, writes)| Step::Hold { who, writes }),
        3 => any::<usize>().prop_map(|which| Step::Deliver { which }),
        2 => (who(), 0..4u64).prop_map(|(who, after)| Step::DeliverDuring { who, after }),
    ]
}

/// Instances are counted from the newest.
fn from_the_newest(step: Step, world: &World) -> Step {
    let whose = |who: usize| world.newest() - who % (world.newest() + 1);
    match step {
        Step::Claim | Step::Upgrade | Step::Deliver { .. } => step,
        Step::Advance { who } => Step::Advance { who: whose(who) },
        Step::Cut { who, count } => Step::Cut { who: whose(who), count },
        Step::Publish { who, back } => Step::Publish { who: whose(who), back },
        Step::Prune { who } => Step::Prune { who: whose(who) },
        Step::Hold { who, writes } => Step::Hold { who: whose(who), writes },
        Step::DeliverDuring { who, after } => Step::DeliverDuring { who: whose(who), after },
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_generations_do_at_once_the_past_stays_what_it_was(steps in vec(step(), 1..120)) {
        let mut world = World::new();
        for step in steps {
            let step = from_the_newest(step, &world);
            world.step(step);
        }
    }
}

#[test]
fn a_displaced_generation_deletes_nothing() {
    let mut world = World::new();
    world.step(Step::Claim);
    (0..2).for_each(|_| world.step(Step::Advance { who: 0 }));
    for _ in 0..4 {
        world.step(Step::Cut { who: 0, count: 1 });
        world.step(Step::Publish { who: 0, back: 0 });
    }
    world.step(Step::Claim);
    let before = world.objects();
    world.step(Step::Prune { who: 0 });
    assert_eq!(world.objects(), before);
}

#[test]
fn a_folder_does_not_grow_over_fifty_generations_and_a_thousand_checkpoints() {
    let mut world = World::new();
    let mut most = 0;
    for generation in 0..50 {
        if generation == 20 {
            world.step(Step::Upgrade);
        }
        world.step(Step::Claim);
        let who = world.newest();
        // An older one that is stopped after it has written a run.
        if let Some(older) = who.checked_sub(1) {
            world.step(Step::Hold { who: older, writes: 1 });
            world.step(Step::Cut { who: older, count: 1 });
            world.step(Step::Publish { who: older, back: 0 });
        }
        (0..2).for_each(|_| world.step(Step::Advance { who }));
        for _ in 0..20 {
            world.step(Step::Cut { who, count: 2 });
            world.step(Step::Publish { who, back: 0 });
            world.step(Step::Prune { who });
            most = most.max(world.objects());
        }
    }
    assert_eq!(world.epochs(), 2_049);
    assert!(most <= 130, "{most} objects");
}
