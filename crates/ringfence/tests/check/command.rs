//! The command line: exit codes, text, JSON, and input that is no manifest.

use std::process::Command;

use serde_json::Value;

use super::world::{base, multi};

const PROGRAM: &str = env!("CARGO_BIN_EXE_ringfence");

struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

/// Runs the command on files of a folder; `@` stands for it.
fn run(files: &[(&str, &str)], arguments: &[&str]) -> Ran {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).expect("written");
    }
    let path = folder.path().to_str().expect("text");
    let arguments = arguments.iter().map(|argument| argument.replace('@', path));
    let output = Command::new(PROGRAM)
        .arg("check")
        .args(arguments)
        .output()
        .expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text").replace(path, "@");
    Ran {
        code: output.status.code(),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

const INFO: &str = "{podSelector: {}, ingress: [{from: [{podSelector: {}}, {podSelector: {}}]}]}";
const BAD: &str = "{podSelector: {matchLabels: {app: serfer}}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/40}}]}]}";

#[test]
fn exit_codes_tell_clean_from_remarks_from_findings() {
    let (base, info, bad) = (base(), multi("x/p", "x/blue", INFO), multi("x/p", "x/blue", BAD));
    let clean = run(&[("base.yaml", &base)], &["-f", "@"]);
    assert_eq!((clean.code, clean.err.as_str()), (Some(0), ""));
    assert!(clean.out.starts_with("Nothing found in 6 objects"), "{}", clean.out);
    let files = [("base.yaml", base.as_str()), ("info.yaml", info.as_str())];
    assert_eq!(run(&files, &["-f", "@"]).code, Some(0));
    assert_eq!(run(&files, &["-f", "@", "--strict"]).code, Some(1));
    let bad = run(&[("base.yaml", &base), ("bad.yaml", &bad)], &["-f", "@"]);
    assert_eq!(bad.code, Some(1));
    for arguments in [
        &["-f", "/nonexistent"][..],
        &[],
        &["-f", "@", "-o", "xml"],
        &["--explain", "RF999"],
    ] {
        let ran = run(&[], arguments);
        assert_eq!(ran.code, Some(2), "{arguments:?}: {}{}", ran.out, ran.err);
        assert!(!ran.err.is_empty(), "{arguments:?}");
    }
}

#[test]
fn text_has_a_line_for_each_finding_by_file_and_object() {
    let (base, bad) = (base(), multi("x/p", "x/blue", BAD));
    let ran = run(&[("base.yaml", &base), ("bad.yaml", &bad)], &["-f", "@"]);
    let expected = "\
RF005 error MultiNetworkPolicy x/p (@/bad.yaml): spec.ingress[0].from[0].ipBlock.cidr: \"10.0.0.0/40\" is no CIDR: its prefix length is too large; write for example 10.0.0.0/24; it matches nothing; the policy still isolates; to do: write an address and a prefix length, such as 10.0.0.0/24
RF101 warning MultiNetworkPolicy x/p (@/bad.yaml): spec.podSelector: no pod of namespace x matches app=serfer; app is server there; to do: correct the selector or the namespace; the policy protects nothing now
1 error, 1 warning in 7 objects (2 Namespace, 3 Pod, 1 MultiNetworkPolicy, 1 NetworkAttachmentDefinition).
";
    assert_eq!(ran.out, expected);
}

#[test]
fn json_holds_the_same() {
    let (base, bad) = (base(), multi("x/p", "x/blue", BAD));
    let ran = run(&[("base.yaml", &base), ("bad.yaml", &bad)], &["-f", "@", "-o", "json"]);
    assert_eq!(ran.code, Some(1));
    let json: Value = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!(json["objects"]["pods"], 3);
    assert_eq!(json["objects"]["multiNetworkPolicies"], 1);
    let findings = json["findings"].as_array().expect("a list");
    assert_eq!(findings.len(), 2);
    let keys: Vec<&String> = findings[1].as_object().expect("an object").keys().collect();
    assert_eq!(
        keys,
        ["code", "severity", "kind", "name", "file", "path", "message", "hint"]
    );
    for (key, expected) in [
        ("code", "RF101"),
        ("severity", "warning"),
        ("kind", "MultiNetworkPolicy"),
        ("name", "x/p"),
        ("file", "@/bad.yaml"),
        ("path", "spec.podSelector"),
    ] {
        assert_eq!(findings[1][key], expected, "{key}");
    }
    let clean = run(&[("base.yaml", &base)], &["-f", "@", "-o", "json"]);
    let json: Value = serde_json::from_str(&clean.out).expect("JSON");
    assert_eq!(json["findings"], Value::Array(Vec::new()));
}

#[test]
fn codes_are_explained() {
    let ran = run(&[], &["--explain", "rf204"]);
    assert_eq!(ran.code, Some(0));
    assert!(ran.out.starts_with("RF204 (warning): "), "{}", ran.out);
    assert!(ran.out.contains("remedy:"), "{}", ran.out);
    let ran = run(&[], &["--list"]);
    assert_eq!(ran.code, Some(0));
    assert_eq!(ran.out.lines().count(), ringfence::check::CODES.len() + 1);
}

#[test]
fn policies_without_any_pod_are_looked_at_as_far_as_they_go() {
    let ran = run(
        &[(
            "p.yaml",
            &multi("x/p", "x/blue", "{podSelector: {matchLabels: {a: b}}}"),
        )],
        &["-f", "@"],
    );
    assert_eq!(ran.code, Some(0));
    assert_eq!(
        ran.out,
        "Nothing found in 1 object (1 MultiNetworkPolicy).\n\
         There is no pod among them, so what selectors select was not looked at.\n"
    );
}

/// What comes out of manifests never reaches the terminal as it is, and no input makes the command panic.
#[test]
fn nonsense_is_reported_and_harms_nobody() {
    let texts = [
        "",
        "---\n---\n",
        "[",
        "just text",
        "{}",
        "- 1\n- 2\n",
        "apiVersion: v1\nkind: List\nitems: [1, null, {kind: Pod}, {apiVersion: v1, kind: Pod, metadata: {name: a}}]\n",
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\nspec: {policyTypes: 7, ingress: 8, egress: [9, {to: 1, ports: {}}]}\n",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p, annotations: 3}\nspec: {initContainers: [1, {ports: [2, {name: 3}]}]}\n",
        "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nspec: {group: k8s.cni.cncf.io, names: {kind: MultiNetworkPolicy}, versions: {a: b}}\n",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: \"a\\e[31mb\"}\n",
        "apiVersion: v1\nkind: \"Po\\e[31md\"\nmetadata: {name: a, labels: {\"\\e[0m\": 1}}\n",
    ];
    for text in texts {
        let ran = run(&[("a.yaml", text)], &["-f", "@"]);
        assert!(matches!(ran.code, Some(0 | 1)), "{text:?}: {:?} {}", ran.code, ran.err);
        assert!(!ran.out.contains('\u{1b}'), "{text:?}");
        assert!(ran.out.ends_with(".\n"), "{text:?}: {}", ran.out);
    }
}
