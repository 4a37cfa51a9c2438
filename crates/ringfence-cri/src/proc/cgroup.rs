//! What `/proc/PID/cgroup` and `/proc/PID/stat` say. Pure.

use ringfence_model::PodUid;

/// The pod that a process belongs to, out of the lines of /proc/<pid>/cgroup (cgroups(7)): one per hierarchy of version 1,
/// `0::PATH` for version 2. The kubelet makes a group for each pod, and it has written it in these ways:
///
/// ```text
/// …/kubepods/burstable/pod0f3c…-…/CONTAINER                                              cgroupfs
/// …/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0f3c…_….slice/…        systemd
/// /../../pod0f3c…-…/CONTAINER, /../kubepods-burstable-pod0f3c…_….slice/…                 from inside of a container's own group
/// ```
///
/// The outermost one counts: what a pod runs inside may call its own groups what it likes.
///
/// CRI-O may put its monitors into the pod's group (`conmon_cgroup = "pod"`, as OpenShift has it), one per container and
/// older than it. They are programs of the node, on its network.
pub(super) fn pod(lines: &str) -> Option<PodUid> {
    lines.lines().find_map(|line| in_path(line.splitn(3, ':').nth(2)?))
}

/// How the groups of CRI-O's monitors begin, with both drivers. A pod cannot make a group beside its containers'.
const MONITOR: &str = "crio-conmon-";

fn in_path(path: &str) -> Option<PodUid> {
    let mut below_kubepods = false;
    // A path that leads out of the reader's own group does not show all of the groups above.
    let relative = path.starts_with("/..");
    let mut parts = path.split('/').peekable();
    while let Some(part) = parts.next() {
        let is_monitor = parts.peek().is_some_and(|below| below.starts_with(MONITOR));
        let slice = part.strip_suffix(".slice");
        if let Some(slice) = slice
            && let Some((above, uid)) = slice.rsplit_once("-pod")
            && above.split('-').any(|part| part == "kubepods")
            // systemd reads a dash as the step to the slice below.
            && let Some(uid) = uid_of(&uid.replace('_', "-"))
        {
            return Some(uid).filter(|_| !is_monitor);
        }
        if let Some(uid) = part.strip_prefix("pod").filter(|_| slice.is_none())
            && (below_kubepods || relative)
            && let Some(uid) = uid_of(uid)
        {
            return Some(uid).filter(|_| !is_monitor);
        }
        below_kubepods |= part.split(['.', '-']).next() == Some("kubepods");
    }
    None
}

/// A UID as the API server makes it, or the kubelet for a pod out of a file: 32 hexadecimal digits, with dashes or without.
fn uid_of(text: &str) -> Option<PodUid> {
    let digits = text.bytes().filter(u8::is_ascii_hexdigit).count();
    let dashes = text.bytes().filter(|byte| *byte == b'-').count();
    if digits == 32 && digits + dashes == text.len() && matches!(dashes, 0 | 4) {
        PodUid::new(text).ok()
    } else {
        None
    }
}

/// When a process was started, in ticks since the machine was: field 22 of /proc/<pid>/stat. The name in the second field
/// may hold anything, brackets and blanks included, so it is counted from its end.
pub(super) fn started(stat: &str) -> Option<u64> {
    behind_the_name(stat, 19)
}

/// Whether it is a thread of the kernel: PF_KTHREAD among the flags (field 9), which no program can give itself.
pub(super) fn is_of_the_kernel(stat: &str) -> bool {
    behind_the_name(stat, 6).is_some_and(|flags| flags & 0x0020_0000 != 0)
}

fn behind_the_name(stat: &str, number: usize) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(number)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0f3c8a52-11d7-4e0b-9c1d-3c5f0a7be9d1";
    const HASH: &str = "0f3c8a5211d74e0b9c1d3c5f0a7be9d1";

    #[track_caller]
    fn check(lines: &str, expected: Option<&str>) {
        let lines = lines
            .replace("UID_", &UID.replace('-', "_"))
            .replace("UID", UID)
            .replace("HASH", HASH);
        assert_eq!(pod(&lines).as_ref().map(PodUid::as_str), expected, "{lines}");
    }

    #[test]
    fn every_spelling_of_the_kubelet_is_read() {
        check("0::/kubepods/burstable/podUID/c1", Some(UID));
        check("0::/kubepods/podUID", Some(UID));
        check("0::/kubepods/besteffort/podHASH/c1", Some(HASH));
        check(
            "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUID_.slice/cri-containerd-c1.scope",
            Some(UID),
        );
        check(
            "0::/kubepods.slice/kubepods-podUID_.slice/crio-c1.scope/container",
            Some(UID),
        );
        // Another root of the kubelet's.
        check("0::/system.slice/kubelet.service/kubepods/podUID/c1", Some(UID));
        check(
            "0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort-podUID_.slice/x.scope",
            Some(UID),
        );
        // From inside of a container's own group.
        check("0::/../../podUID/c2", Some(UID));
        check(
            "0::/../../kubepods-besteffort-podUID_.slice/cri-containerd-c2.scope",
            Some(UID),
        );
    }

    #[test]
    fn version_1_has_a_line_for_each_controller() {
        check(
            "12:pids:/kubepods/podUID/c1\n4:memory:/kubepods/podUID/c1\n1:name=systemd:/kubepods/podUID/c1\n0::/\n",
            Some(UID),
        );
        // A controller that the runtime does not use, and a name with a colon.
        check("9:rdma:/\n8:cpu,cpuacct:/kubepods/podUID/c:1\n", Some(UID));
        check("1:name=systemd:/kubepods.slice/kubepods-podUID_.slice/x\n", Some(UID));
    }

    #[test]
    fn what_a_pod_runs_inside_does_not_count() {
        let inner = "11111111-1111-1111-1111-111111111111";
        check(&format!("0::/kubepods/podUID/c1/kubepods/pod{inner}/c2"), Some(UID));
        check(
            &format!("0::/kubepods.slice/kubepods-podUID_.slice/x.scope/kubepods/pod{inner}"),
            Some(UID),
        );
    }

    #[test]
    fn cri_os_monitors_are_not_the_pods() {
        check("0::/kubepods.slice/kubepods-podUID_.slice/crio-conmon-c1.scope", None);
        check("0::/kubepods/burstable/podUID/crio-conmon-c1", None);
        check(
            "9:pids:/kubepods/podUID/crio-conmon-c1\n1:name=systemd:/kubepods/podUID/crio-conmon-c1\n",
            None,
        );
        check("0::/../../kubepods-podUID_.slice/crio-conmon-c1.scope", None);
        // A container may call its own groups so.
        check("0::/kubepods/podUID/crio-c1/crio-conmon-c1", Some(UID));
        check("0::/kubepods/podUID/crio-c1", Some(UID));
    }

    #[test]
    fn everything_else_is_nobodys() {
        for lines in [
            "",
            "0::/",
            "0::/init.scope",
            "0::/user.slice/user-1000.slice",
            "0::/podUID/c1",
            "0::/machine/podUID/c1",
            "0::/kubepods/podman/c1",
            "0::/kubepods/pod0f3c/c1",
            "0::/kubepods/podUIDff/c1",
            "0::/kubepods/pod/c1",
            "0::/kubepods.slice/kubepods-pods.slice",
            "0::/../podman-0f3c8a52",
            "no line of a control group",
        ] {
            check(lines, None);
        }
    }

    #[test]
    fn threads_of_the_kernel_are_told_by_their_flags() {
        assert!(is_of_the_kernel(
            "2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 4 0 0 20 0 1 0 2"
        ));
        assert!(!is_of_the_kernel(
            "2 (kthreadd) S 0 0 0 0 -1 4194560 0 0 0 0 0 4 0 0 20 0 1 0 2"
        ));
        assert!(!is_of_the_kernel(""));
    }

    #[test]
    fn the_start_is_found_behind_any_name() {
        let stat = |name: &str| format!("77 ({name}) S 1 77 77 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 9 10");
        for name in ["sh", "a b", ") S 1 (", "x)"] {
            assert_eq!(started(&stat(name)), Some(4711), "{name}");
        }
        assert_eq!(started("77 (sh) S 1"), None);
        assert_eq!(started(""), None);
    }
}
