//! `ringfence check`: what is invalid, ignored or surprising in manifests, without a kernel or a cluster.
//!
//! Two finders speak here: decoding, whose diagnostics the agent shows too, and [`advice`], which looks at all objects
//! together. Every finding has a code that `docs/checks.md` explains; the program carries that page with it.

mod docs;
mod report;

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use ringfence_kube::Survey;
use ringfence_model::{Object, PolicyKind, Reason, Scope, Severity, Source};
use ringfence_policy::advice::{self, Input, Level};

pub use docs::{CODES, Entry, PAGE};
pub use report::{Counts, Finding, Report};

use crate::args::{CheckArgs, CheckOutput};

/// Prints what it finds. Exit code 1 where something should be done, which a remark (`info`) alone is not.
pub fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let (text, code) = if args.list {
        (docs::list(), ExitCode::SUCCESS)
    } else if let Some(code) = &args.explain {
        let entry = docs::entry(code)
            .with_context(|| format!("there is no code {code:?}; `ringfence check --list` shows all of them"))?;
        (entry.to_string(), ExitCode::SUCCESS)
    } else {
        let report = check(&args.files, args.network_policy_scope.into())?;
        let text = match args.output {
            CheckOutput::Text => report.to_string(),
            CheckOutput::Json => format!("{:#}\n", report.json()),
        };
        let lowest = if args.strict { Level::Info } else { Level::Warning };
        let bad = report.findings.iter().any(|finding| finding.level >= lowest);
        (text, if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    };
    // A reader that has seen enough, such as `head`, is no failure.
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(code),
    }
}

/// Everything that is to be said of some files and folders.
pub fn check(paths: &[PathBuf], scope: Scope) -> anyhow::Result<Report> {
    Ok(look(ringfence_kube::survey(paths)?, scope))
}

/// Where an object stands, for the order of findings.
struct Place {
    position: usize,
    file: PathBuf,
}

fn look(survey: Survey, scope: Scope) -> Report {
    let mut report = Report::default();
    let mut places: BTreeMap<Source, Place> = BTreeMap::new();
    let mut objects = Vec::with_capacity(survey.manifests.len());
    let mut found: Vec<(usize, Finding)> = Vec::new();
    for (position, manifest) in survey.manifests.into_iter().enumerate() {
        let decoded = manifest.decoded;
        for diagnostic in decoded.diagnostics {
            let finding = Finding {
                code: diagnostic.reason.code(),
                level: match diagnostic.severity {
                    Severity::Warning => Level::Warning,
                    Severity::Error => Level::Error,
                },
                source: diagnostic.source,
                file: manifest.file.clone(),
                path: diagnostic.path,
                message: format!("{}; {}", diagnostic.message, diagnostic.consequence),
                hint: remedy(diagnostic.reason),
            };
            found.push((position, finding));
        }
        let place = Place {
            position,
            file: manifest.file,
        };
        places.entry(decoded.source).or_insert(place);
        if let Some(object) = decoded.object {
            report.counts.add(&object);
            objects.push((object, manifest.notes));
        }
    }
    let mut definitions = Vec::new();
    for (number, (file, definition)) in survey.definitions.into_iter().enumerate() {
        let source = Source {
            kind: "CustomResourceDefinition".into(),
            name: definition.name.clone(),
        };
        // Behind everything else: nothing of it is an object here.
        let position = usize::MAX - number;
        places.entry(source).or_insert(Place { position, file });
        definitions.push(definition);
    }
    report.counts.definitions = definitions.len();
    let advice = advice::advise(Input {
        objects: &objects,
        definitions: &definitions,
        scope,
    });
    let mut place = |finding: Finding| {
        let place = places.get(&finding.source);
        let position = place.map_or(usize::MAX, |place| place.position);
        let file = place.map_or_else(PathBuf::new, |place| place.file.clone());
        found.push((position, Finding { file, ..finding }));
    };
    for shared in advice.shared_addresses {
        place(Finding {
            code: Reason::DuplicateAddress.code(),
            level: Level::Error,
            source: shared.source,
            file: PathBuf::new(),
            path: String::new(),
            message: shared.message,
            hint: remedy(Reason::DuplicateAddress),
        });
    }
    for finding in advice.findings {
        place(Finding {
            code: finding.code.as_str(),
            level: finding.code.level(),
            source: finding.source,
            file: PathBuf::new(),
            path: finding.path,
            message: finding.message,
            hint: finding.hint,
        });
    }
    // By file and object; what was found of one object stays in the order in which it was found.
    found.sort_by(|(a, one), (b, other)| (&one.file, a).cmp(&(&other.file, b)));
    report.findings = found.into_iter().map(|(_, finding)| finding).collect();
    report.blind = report.counts.pods == 0 && report.counts.policies() > 0;
    report
}

fn remedy(reason: Reason) -> String {
    docs::entry(reason.code()).map_or_else(String::new, |entry| entry.remedy.to_owned())
}

impl Counts {
    fn add(&mut self, object: &Object) {
        let count = match object {
            Object::Namespace(_) => &mut self.namespaces,
            Object::Pod(_) => &mut self.pods,
            Object::Network(_) => &mut self.networks,
            Object::Policy(policy) if policy.key.kind == PolicyKind::MultiNetworkPolicy => &mut self.multi_policies,
            Object::Policy(_) => &mut self.network_policies,
        };
        *count += 1;
    }
}

/// A path in a message or in JSON.
fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
