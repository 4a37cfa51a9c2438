//! Whoever may write a pod's annotations, on the pod's own node.

use serde_json::Value;

use crate::world::World;

/// The object of the friend, whom the attacker may send to, claims an address that nobody has.
#[test]
fn closed_claimed_addresses() {
    let mut world = World::new("claims");
    let [(own, _), _] = world.ends();
    let forged = world.nobody(own);
    let key = "k8s.v1.cni.cncf.io/network-status";
    let mut genuine = String::new();
    world.save(|objects| {
        let friend = objects
            .iter_mut()
            .find(|object| object.0["metadata"]["name"] == "friend")
            .expect("the friend");
        let text = &mut friend.0["metadata"]["annotations"][key];
        let mut status: Vec<Value> = serde_json::from_str(text.as_str().expect("text")).expect("a list");
        let on_blue = |entry: &&mut Value| entry["interface"] == "net1";
        let entry = status.iter_mut().find(on_blue).expect("an entry");
        let addresses = entry["ips"].as_array_mut().expect("a list");
        genuine = addresses[0].as_str().expect("an address").to_owned();
        addresses.push(forged.to_string().into());
        *text = serde_json::to_string(&status).expect("JSON").into();
    });
    world.eventually("the claim is refused and reported", || {
        let log = world.log();
        if log.contains("which has other addresses and not this one") {
            Ok(())
        } else {
            Err(log)
        }
    });
    let rules = world.get("/namespaces/x/pods/attacker/rules");
    assert!(!rules.contains(&forged.to_string()), "{rules}");
    assert!(rules.contains(&genuine), "what is true counts\n{rules}");
    // Once the interface has the address, the claim is true.
    world.ip(&world.friend, &format!("address add {forged}/24 dev net1"));
    world.eventually("the claim counts", || {
        let rules = world.get("/namespaces/x/pods/attacker/rules");
        if rules.contains(&forged.to_string()) {
            Ok(())
        } else {
            Err(rules)
        }
    });
}
