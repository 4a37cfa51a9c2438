//! The real `nft` in a network namespace that lives as long as one command. Without root or without nft this panics:
//! a kernel test that skips counts as passed and hides what it was written for.

use std::process::Command;

/// Makes a namespace with the interfaces `lo`, `net1` and `net2`, and runs each text with `nft -f` there, in order;
/// first with `nft -c -f`. Returns what `nft -s list ruleset` then shows.
pub fn load_and_list(texts: &[&str]) -> String {
    run(texts).unwrap_or_else(|error| panic!("{error}\n--- in ---\n{}", texts.join("\n--- then ---\n")))
}

/// The same; an `Err` holds what the commands printed on standard error.
pub fn run(texts: &[&str]) -> Result<String, String> {
    // One shell inside the namespace, because it is gone with its last process. The texts go through arguments:
    // nothing is left behind on any disk.
    let script = "ip link add net1 type veth peer name net2 \n\
                  for text; do printf %s \"$text\" | nft -c -f - ; printf %s \"$text\" | nft -f - ; done \n\
                  nft -s list ruleset";
    let output = Command::new("unshare")
        .args(["--net", "--", "sh", "-e", "-c", script, "sh"])
        .args(texts)
        .output()
        .expect("unshare (util-linux) must be installed for the kernel tests");
    if output.status.success() {
        Ok(String::from_utf8(output.stdout).expect("nft prints UTF-8"))
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}
