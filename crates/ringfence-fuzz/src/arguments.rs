//! What a person types: template of the namespaces' paths, listening address, source, config file, command line.
//!
//! The first three lines are tried as a template, an address and a source, and all words of the text as a command line;
//! the whole text is tried as a config file.

use std::path::{Component, Path};

use clap::Parser as _;
use ringfence::args::{AgentArgs, Cli, ListenSpec, SourceSpec};
use ringfence::config::Settings;
use ringfence::template::NetnsTemplate;
use ringfence_model::{Labels, NamespacedName, Pod, PodUid};

use crate::text;

/// Reads a text.
pub fn run(data: &[u8]) {
    let text = text(data);
    let mut lines = text.lines();
    let mut line = || lines.next().unwrap_or_default();
    template(line());
    listen(line());
    source(line());
    config(&text);
    let words = text.split_whitespace().take(32);
    if let Err(error) = Cli::try_parse_from(["ringfence"].into_iter().chain(words)) {
        assert!(matches!(error.exit_code(), 0 | 2), "{error}");
        assert!(!error.to_string().trim().is_empty());
    }
}

fn template(line: &str) {
    let template: NetnsTemplate = match line.parse() {
        Ok(template) => template,
        Err(why) => return assert!(!why.is_empty()),
    };
    assert_eq!(
        template.to_string().parse(),
        Ok(template.clone()),
        "what is shown is read again"
    );
    let pods = [
        pod("a", "b-c", "1"),
        pod("a-b", "c", "2"),
        pod("a", "b.c", "3"),
        pod("ab", "c", "4"),
        pod("a", "bc", "5"),
        pod("a", "b-c", "6"),
    ];
    for (position, pod) in pods.iter().enumerate() {
        // The first and the last are one pod that was made anew: only their UIDs differ.
        let others = pods[..position].iter().filter(|other| other.name != pod.name);
        let path = template.path(pod).expect("these names are parts of paths");
        for other in others {
            let other_path = template.path(other).expect("these too");
            assert_ne!(path, other_path, "{line} for {} and {}", pod.name, other.name);
        }
    }
    for (namespace, name, uid) in [("..", "a", "1"), ("a", "..", "1"), ("a", "b/c", "1"), (".", ".", ".")] {
        if let Ok(path) = template.path(&pod(namespace, name, uid)) {
            check_path(&path, line);
        }
    }
}

fn check_path(path: &Path, line: &str) {
    let leads_out = path.components().any(|part| part == Component::ParentDir);
    assert!(path.is_absolute() && !leads_out, "{line} gives {}", path.display());
}

fn pod(namespace: &str, name: &str, uid: &str) -> Pod {
    Pod {
        mirror_of: None,
        uid: PodUid::new(uid).expect("a UID"),
        name: NamespacedName::new(namespace, name),
        node: None,
        labels: Labels::default(),
        attachments: Vec::new(),
        ports: [].into(),
        host_network: false,
        terminal: false,
        started: 0,
        host_addresses: [].into(),
    }
}

fn listen(line: &str) {
    match line.parse() {
        Ok(ListenSpec::Off) => assert_eq!(line, "off"),
        Ok(ListenSpec::At(address)) => {
            let again = address.to_string().parse();
            assert_eq!(again, Ok(ListenSpec::At(address)), "what is shown is read again");
        }
        Err(why) => assert!(!why.is_empty()),
    }
}

fn source(line: &str) {
    match line.parse::<SourceSpec>() {
        Ok(source) => assert_eq!(source.to_string(), line, "what is shown is what was typed"),
        Err(why) => assert!(!why.is_empty()),
    }
}

fn config(text: &str) {
    match Settings::from_text(AgentArgs::default(), text) {
        Ok(settings) => {
            assert!(
                !settings.node.is_empty() && settings.resync.as_secs() > 0,
                "{settings:?}"
            );
            let again = Settings::from_text(AgentArgs::default(), text).ok();
            assert_eq!(again, Some(settings));
        }
        Err(error) => assert!(!format!("{error:#}").trim().is_empty()),
    }
}
