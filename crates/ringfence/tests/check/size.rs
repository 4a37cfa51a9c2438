//! Many objects: what is said of each does not depend on how many others there are. No time is asserted here; the figure is
//! printed for whoever asks for it (`-- --nocapture`).

use std::fmt::Write as _;
use std::time::Instant;

use ringfence_model::Scope;

use super::report;
use super::world::{multi, pod};

/// Policies and pods of a namespace each; a tenth of the policies has a mistake.
fn world(namespaces: usize, each: usize) -> String {
    let mut text = String::new();
    for namespace in 0..namespaces {
        writeln!(
            text,
            "---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: n{namespace}}}"
        )
        .expect("a String takes it");
        for number in 0..each {
            let of_all = namespace * each + number;
            let octets = format!(
                "\"ips\": [\"10.{}.{}.{}\"]",
                30 + of_all / 65536,
                of_all / 256 % 256,
                of_all % 256
            );
            let address = u16::try_from(of_all % 60_000).expect("small");
            let labels = format!("app: a{number}, all: 'yes'");
            let name = format!("n{namespace}/p{number}");
            text += &pod(&name, address, &labels).with("n0/blue", &octets).yaml();
            let app = if number % 10 == 0 {
                "missing".to_owned()
            } else {
                format!("a{number}")
            };
            let spec = format!(
                "{{podSelector: {{matchLabels: {{app: {app}}}}}, ingress: [{{from: [{{namespaceSelector: {{}}, podSelector: \
                 {{matchLabels: {{app: a{}}}}}}}, {{ipBlock: {{cidr: 192.0.2.0/24, except: [192.0.2.{}/32]}}}}]}}]}}",
                (number + 1) % each,
                number % 256,
            );
            text += &multi(&format!("n{namespace}/q{number}"), "n0/blue", &spec);
        }
    }
    text
}

#[test]
fn many_policies_and_pods() {
    for (namespaces, each) in [(100, 100), (1, 3000)] {
        let text = world(namespaces, each);
        let start = Instant::now();
        let report = report(&text, Scope::Secondary);
        println!(
            "{namespaces} namespaces with {each} pods and policies: {:?}",
            start.elapsed()
        );
        assert_eq!(report.counts.pods, namespaces * each);
        let mistakes = report.findings.iter().filter(|finding| finding.code == "RF101").count();
        assert_eq!(mistakes, namespaces * each / 10);
        assert_eq!(report.findings.len(), mistakes, "{}", report.findings[0]);
    }
}
