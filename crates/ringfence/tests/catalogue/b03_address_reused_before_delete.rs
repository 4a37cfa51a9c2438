//! B3: weave#3177, azure NPM#562, antrea#3467 and #3468.
//!
//! The delete event of a pod came after the create event of the pod that had got its address, and took the new pod's
//! membership away; or the old pod's labels kept their rights. Membership belongs to the pod, not to the address
//! (statements 52, 134, 135). Shown: whatever the order of the old pod's update and delete and the new pod's create and
//! update, the address has in the end exactly the new pod's rights, and while both exist, those of the newer one.

use crate::support::manifest::{BLUE, admits, blue, orders};
use crate::support::world::World;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Event {
    OldRelabelled,
    OldDeleted,
    NewCreated,
    NewRelabelled,
}

fn old(day_label: &str) -> String {
    blue("shop/old", 50, day_label).started(1).yaml()
}

fn new(label: &str) -> String {
    blue("shop/new", 50, label).started(2).yaml()
}

/// `friend`: the new pod may come in, the old one may not; else the other way round.
fn check(new_is_friend: bool) {
    let (old_role, new_role) = if new_is_friend {
        ("role=other", "role=friend")
    } else {
        ("role=friend", "role=other")
    };
    let all = [
        Event::OldRelabelled,
        Event::OldDeleted,
        Event::NewCreated,
        Event::NewRelabelled,
    ];
    for order in orders(&all) {
        let position = |event| order.iter().position(|it| *it == event);
        // Nobody hears of a pod after its deletion, or of a change before its creation.
        if position(Event::OldRelabelled) > position(Event::OldDeleted)
            || position(Event::NewRelabelled) < position(Event::NewCreated)
        {
            continue;
        }
        let mut world = World::of([
            blue("shop/web", 10, "app=web").yaml(),
            admits("shop/guard", "[{podSelector: {matchLabels: {role: friend}}}]"),
            old(old_role),
        ]);
        let mut created = false;
        for event in &order {
            match event {
                Event::OldRelabelled => world.apply(&old(&format!("{old_role},seen=yes"))),
                Event::OldDeleted => world.remove("Pod shop/old"),
                Event::NewCreated => {
                    created = true;
                    world.apply(&new(new_role));
                }
                Event::NewRelabelled => world.apply(&new(&format!("{new_role},seen=yes"))),
            }
            let deleted = world.universe.pods.values().all(|pod| &*pod.name.name != "old");
            let friend = match (created, deleted) {
                (true, _) => new_is_friend,
                (false, false) => !new_is_friend,
                (false, true) => false,
            };
            for (address, to) in [
                ("10.20.0.50", "shop/web@10.20.0.10"),
                ("fd00:20::50", "shop/web@fd00:20::10"),
            ] {
                assert_eq!(
                    world.judge(address, to, BLUE, "80/tcp"),
                    friend,
                    "{order:?} at {event:?}"
                );
            }
        }
    }
}

#[test]
fn s052_s134_a_late_delete_takes_nothing_from_the_new_owner() {
    check(true);
}

#[test]
fn s052_s134_the_new_owner_inherits_nothing() {
    check(false);
}

#[test]
fn s135_the_same_name_with_another_uid_is_another_pod() {
    let friend = |uid: &str, day| blue("shop/db-0", 50, "role=friend").uid(uid).started(day).yaml();
    let mut world = World::of([
        blue("shop/web", 10, "app=web").yaml(),
        admits("shop/guard", "[{podSelector: {matchLabels: {role: friend}}}]"),
        friend("uid-1", 1),
    ]);
    world.apply(&friend("uid-2", 2));
    world.remove("Pod shop/db-0#uid-1");
    world.check(BLUE, &[("shop/db-0", "shop/web", "80/tcp", true)]);
    world.remove("Pod shop/db-0");
    world.check(BLUE, &[("10.20.0.50", "shop/web@10.20.0.10", "80/tcp", false)]);
}
