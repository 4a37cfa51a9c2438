//! The story, step by step.

use std::net::{SocketAddr, TcpListener};
use std::path::Path as FilePath;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use ringfence_model::Family::{self, V4, V6};
use ringfence_testkit::{Agent, Flow, Load, Matrix, Outcome, Path, Probe, Stream, TIMEOUT, free_port, probe_all};

use crate::cast::{self, Cast, FIRST, SECOND, STORAGE};
use crate::go_on;
use crate::report::Report;

/// How long anything may take before the demo says that it does not happen.
const LIMIT: Duration = Duration::from_secs(10);
/// The same for what has begun already.
const SHORT: Duration = Duration::from_secs(2);
/// Silence of this length means blocked.
const QUIET: Duration = Duration::from_millis(60);
/// Datagrams for measuring follow each other this closely.
const EVERY: Duration = Duration::from_micros(200);

/// Tells the story. True if every check came out as expected. With `keep` the stage stays until a signal comes.
pub(crate) fn tell(binary: &FilePath, keep: Option<&Receiver<()>>) -> Result<bool> {
    let mut report = Report::new();
    println!(
        "{}",
        report
            .look
            .paint("1", "Ringfence: network policy on every interface of every pod")
    );
    let started = Instant::now();
    let cast = Cast::assemble()?;
    report.text(&format!(
        "Seven pods in real network namespaces of this machine, made in {} ms. The tables below are \
         real connections: \"yes\" is an answer, \"no\" is silence.",
        started.elapsed().as_millis()
    ));

    before(&mut report, &cast)?;
    // The agent's usual port, so that the commands of the README work as they stand; another one where it is taken.
    let usual = SocketAddr::from(([127, 0, 0, 1], 9470));
    let listen = TcpListener::bind(usual).map_or_else(|_| free_port(), |_| Ok(usual))?;
    let agent = start_agent(&mut report, &cast, binary, listen)?;
    after_start(&mut report, &cast, &agent).with_context(|| format!("the agent's log:\n{}", agent.log()))?;
    let good = finish(&mut report, &agent);
    if let Some(stop) = keep {
        play(&report, &cast, &agent, stop)?;
    }
    let status = agent.stop().context("stop the agent")?;
    ensure!(status.success(), "the agent ended with {status}");
    println!("The agent has stopped; namespaces and manifests are taken down.");
    Ok(good)
}

fn after_start(report: &mut Report, cast: &Cast, agent: &Agent) -> Result<()> {
    close_second_network(report, cast)?;
    label(report, cast)?;
    show_agent(report, agent)?;
    storage(report, cast)?;
    metrics(report, agent)?;
    reopen(report, cast)
}

/// Who reaches httpd: rows are pods, columns are its networks and ports.
fn reach_httpd(cast: &Cast) -> Result<Matrix> {
    let rows = ["friend", "guest", "stranger"];
    let columns: [(&str, &str, Family, u16); 4] = [
        ("canal:80", FIRST, V4, 80),
        ("canal-v6:80", FIRST, V6, 80),
        ("weave:80", SECOND, V4, 80),
        ("weave:8080", SECOND, V4, 8080),
    ];
    let names: Vec<String> = columns.iter().map(|(name, ..)| (*name).to_owned()).collect();
    let pods: Vec<String> = rows.iter().map(ToString::to_string).collect();
    let httpd = cast.pod("httpd")?;
    Matrix::measure(
        "Who reaches httpd, by network and TCP port",
        &pods,
        &names,
        TIMEOUT,
        |row, column| {
            let (_, network, family, port) = columns[column];
            Ok(Some(
                Path::new(cast.pod(rows[row])?, httpd, network, family, port)?.tcp(),
            ))
        },
    )
}

/// The storage network: who reaches the database, and whom it reaches.
fn reach_storage(cast: &Cast) -> Result<(Matrix, Matrix)> {
    let measure = |title: &str, rows: &[&str], columns: &[(&str, &str, Family, u16)]| {
        let names: Vec<String> = columns.iter().map(|(name, ..)| (*name).to_owned()).collect();
        let pods: Vec<String> = rows.iter().map(ToString::to_string).collect();
        Matrix::measure(title, &pods, &names, TIMEOUT, |row, column| -> Result<Option<Probe>> {
            let (_, to, family, port) = columns[column];
            let path = Path::new(cast.pod(rows[row])?, cast.pod(to)?, STORAGE, family, port)?;
            Ok(Some(path.tcp()))
        })
    };
    let into = [
        ("db:5432", "db", V4, 5432),
        ("db-v6:5432", "db", V6, 5432),
        ("db:22", "db", V4, 22),
        ("db-v6:22", "db", V6, 22),
    ];
    let out = [
        ("app:8080", "app", V4, 8080),
        ("app-v6:8080", "app", V6, 8080),
        ("spy:8080", "spy", V4, 8080),
        ("spy-v6:8080", "spy", V6, 8080),
    ];
    Ok((
        measure("Storage network, into the database", &["app", "spy"], &into)?,
        measure("Storage network, out of the database", &["db"], &out)?,
    ))
}

fn before(report: &mut Report, cast: &Cast) -> Result<()> {
    report.step("Before: the second network is wide open");
    report.text(
        "Four pods in CNI-Genie's dialect (cni: \"canal,weave\") have eth0 on canal and eth1 on weave. Canal has a policy \
         engine of its own, which admits pods labelled access: \"true\" to port 80 of httpd. (In this demo that engine is a \
         handful of nft rules on the node, put in by hand; Ringfence has no part in them.) Weave has none, and Kubernetes \
         does not even know that httpd has an address there.",
    );
    let table = reach_httpd(cast)?;
    report.table(
        &table,
        "
                  canal:80  canal-v6:80  weave:80  weave:8080
        friend    yes       yes          yes       yes
        guest     no        no           yes       yes
        stranger  no        no           yes       yes
    ",
    );
    go_on()
}

fn start_agent(report: &mut Report, cast: &Cast, binary: &FilePath, listen: SocketAddr) -> Result<Agent> {
    report.step("The agent starts");
    let mut arguments: Vec<String> = ["agent", "--node", "node1", "--network-policy-scope", "secondary"]
        .map(String::from)
        .to_vec();
    arguments.extend(["--source".into(), cast.folder.source()]);
    arguments.extend(["--netns-path".into(), cast.topology.netns_path_template()]);
    report.text("It reads a folder of ordinary Kubernetes manifests (pods, namespaces, networks, no policy yet):");
    report.listing("Command", &command_text(&arguments, listen));
    let started = Instant::now();
    let mut agent = Agent::start(binary, &arguments, listen)?;
    agent.wait_ready(LIMIT)?;
    report.time("agent started → ready", Ok(started.elapsed()));
    go_on()?;
    Ok(agent)
}

fn command_text(arguments: &[String], listen: SocketAddr) -> String {
    let mut text = String::from("ringfence agent");
    for pair in arguments[1..].chunks(2) {
        text.push_str(" \\\n    ");
        let words: Vec<String> = pair
            .iter()
            .map(|word| {
                if word.contains('{') {
                    format!("'{word}'")
                } else {
                    word.clone()
                }
            })
            .collect();
        text.push_str(&words.join(" "));
    }
    text.push_str(" \\\n    --listen ");
    text.push_str(&listen.to_string());
    text
}

fn close_second_network(report: &mut Report, cast: &Cast) -> Result<()> {
    report.step("A NetworkPolicy closes the second network too");
    let policy = cast::httpd_policy().yaml();
    report.listing(&format!("{} is saved", cast::HTTPD_POLICY), &policy);
    println!();
    let way = Path::new(cast.pod("stranger")?, cast.pod("httpd")?, SECOND, V4, 9000)?;
    let stream = Stream::start(&way, EVERY)?;
    stream
        .wait_open(Instant::now(), LIMIT)
        .context("weave should be open now")?;
    let download = Flow::open(&way.port(9001), Load::Download)?;
    let saved = cast.folder.save(cast::HTTPD_POLICY, &policy)?;
    let blocked = stream.wait_blocked(saved, QUIET, LIMIT);
    report.time("NetworkPolicy saved → first packet blocked", since(saved, blocked));
    let silent = download.wait_for_silence(QUIET, SHORT);
    let table = reach_httpd(cast)?;
    report.table(
        &table,
        "
                  canal:80  canal-v6:80  weave:80  weave:8080
        friend    yes       yes          yes       no
        guest     no        no           no        no
        stranger  no        no           no        no
    ",
    );
    // Asked a second time after the table: the server, who may talk to anybody, is the one that sends here, and its
    // retransmissions must not open the connection again (statement 106).
    let stayed = silent.and_then(|last| {
        let later = download.arrived_since(last + QUIET);
        ensure!(
            later == 0,
            "it stopped for a moment, but then {later} more numbers arrived"
        );
        Ok(())
    });
    report.check("the download that stranger had open before has stopped as well", stayed);
    go_on()
}

fn label(report: &mut Report, cast: &Cast) -> Result<()> {
    report.step("A label lets a pod in, and out again");
    report.text("The manifest of pod guest gets the label access: \"true\" (canal's engine follows by itself).");
    let guest = cast.pod("guest")?.with_label("access", "true");
    let way = Path::new(&guest, cast.pod("httpd")?, SECOND, V4, 80)?;
    cast.admit_on_first_network("guest")?;
    let saved = cast.folder.save(&cast::pod_file("guest"), &guest.manifest()?.yaml())?;
    report.time("label saved → first connection admitted", first_connection(&way, saved));
    let table = reach_httpd(cast)?;
    report.table(
        &table,
        "
                  canal:80  canal-v6:80  weave:80  weave:8080
        friend    yes       yes          yes       no
        guest     yes       yes          yes       no
        stranger  no        no           no        no
    ",
    );
    report.text("A connection of guest stays open while its label goes and comes back:");
    let flow = Flow::open_echo(&way)?;
    let taken = cast
        .folder
        .save(&cast::pod_file("guest"), &cast.pod("guest")?.manifest()?.yaml())?;
    let stopped = flow.wait_for_silence(QUIET, LIMIT);
    report.time("label removed → last byte of an open connection", since(taken, stopped));
    cast.folder.save(&cast::pod_file("guest"), &guest.manifest()?.yaml())?;
    report.check(
        "the same connection goes on when the label is back",
        flow.wait_for_more(LIMIT),
    );
    go_on()
}

/// Connects again and again, and gives the time until the first attempt that was answered.
fn first_connection(way: &Path, since: Instant) -> Result<Duration> {
    let patience = Duration::from_millis(1);
    loop {
        let asked = Instant::now();
        let answers = probe_all(&[way.tcp()], patience)?;
        if answers.iter().any(|answer| answer.outcome == Outcome::Reached) {
            return Ok(asked.duration_since(since));
        }
        ensure!(since.elapsed() < LIMIT, "no connection is admitted after {LIMIT:?}");
    }
}

/// What an operator sees.
fn show_agent(report: &mut Report, agent: &Agent) -> Result<()> {
    report.step("What the operator sees");
    let rules = agent.get("/pods/httpd/rules")?;
    ensure!(
        rules.status == 200,
        "/pods/httpd/rules answers {}: {}",
        rules.status,
        rules.body
    );
    report.listing(&format!("curl http://{}/pods/httpd/rules", agent.listen), &rules.body);
    println!();
    let named = if rules.body.contains("eth1-in") && !rules.body.contains("eth0-in") {
        Ok(())
    } else {
        Err(anyhow::anyhow!(
            "the rules should be about eth1 and leave eth0 to canal"
        ))
    };
    report.check("the rules are about eth1; eth0 is left to canal's own engine", named);
    go_on()
}

fn storage(report: &mut Report, cast: &Cast) -> Result<()> {
    report.step("Multus pods: egress and IPv6, by a MultiNetworkPolicy");
    report.text(
        "Three pods in Multus' dialect share the macvlan network lab/storage with IPv4 and IPv6. No host-side engine could \
         see that traffic: macvlan has no interface on the node.",
    );
    let (into, out) = reach_storage(cast)?;
    report.table(
        &into,
        "
             db:5432  db-v6:5432  db:22  db-v6:22
        app  yes      yes         yes    yes
        spy  yes      yes         yes    yes
    ",
    );
    report.table(&out, "app:8080 app-v6:8080 spy:8080 spy-v6:8080\n db yes yes yes yes");
    let policy = cast::storage_policy().yaml();
    report.listing(&format!("{} is saved", cast::STORAGE_POLICY), &policy);
    println!();
    let way = Path::new(cast.pod("spy")?, cast.pod("db")?, STORAGE, V6, 9000)?;
    let stream = Stream::start(&way, EVERY)?;
    stream
        .wait_open(Instant::now(), LIMIT)
        .context("the storage network should be open now")?;
    let saved = cast.folder.save(cast::STORAGE_POLICY, &policy)?;
    let blocked = stream.wait_blocked(saved, QUIET, LIMIT);
    report.time(
        "MultiNetworkPolicy saved → first IPv6 packet blocked",
        since(saved, blocked),
    );
    let (into, out) = reach_storage(cast)?;
    report.table(
        &into,
        "
             db:5432  db-v6:5432  db:22  db-v6:22
        app  yes      yes         no     no
        spy  no       no          no     no
    ",
    );
    report.table(&out, "app:8080 app-v6:8080 spy:8080 spy-v6:8080\n db yes yes no no");
    go_on()
}

fn metrics(report: &mut Report, agent: &Agent) -> Result<()> {
    let answer = agent.get("/metrics")?;
    let wanted = [
        "ringfence_pods{",
        "ringfence_policies{",
        "ringfence_transactions_total{",
        "ringfence_dropped_packets_total{",
        "ringfence_drift_repairs_total{",
    ];
    let lines: Vec<&str> = answer
        .body
        .lines()
        .filter(|line| wanted.iter().any(|start| line.starts_with(start)) && !line.ends_with(" 0"))
        .collect();
    let shown: Vec<String> = lines.iter().map(|line| line.replacen('{', " {", 1)).collect();
    report.listing(
        &format!("curl http://{}/metrics   (a few of them)", agent.listen),
        &shown.join("\n"),
    );
    println!();
    let counted = if lines
        .iter()
        .any(|line| line.starts_with("ringfence_dropped_packets_total{"))
    {
        Ok(())
    } else {
        Err(anyhow::anyhow!(
            "no dropped packet is counted in /metrics (status {})",
            answer.status
        ))
    };
    report.check("the dropped packets are counted", counted);
    go_on()
}

fn reopen(report: &mut Report, cast: &Cast) -> Result<()> {
    report.step("The policies are removed: open again");
    let way = Path::new(cast.pod("stranger")?, cast.pod("httpd")?, SECOND, V4, 9000)?;
    let stream = Stream::start(&way, EVERY)?;
    let deleted = cast.folder.delete(cast::HTTPD_POLICY)?;
    let open = stream.wait_open(deleted, LIMIT);
    report.time("NetworkPolicy deleted → first packet let through", since(deleted, open));
    drop(stream);
    let way = Path::new(cast.pod("spy")?, cast.pod("db")?, STORAGE, V6, 9000)?;
    let stream = Stream::start(&way, EVERY)?;
    let deleted = cast.folder.delete(cast::STORAGE_POLICY)?;
    let open = stream.wait_open(deleted, LIMIT);
    report.time(
        "MultiNetworkPolicy deleted → first packet let through",
        since(deleted, open),
    );
    drop(stream);
    let table = reach_httpd(cast)?;
    report.table(
        &table,
        "
                  canal:80  canal-v6:80  weave:80  weave:8080
        friend    yes       yes          yes       yes
        guest     yes       yes          yes       yes
        stranger  no        no           yes       yes
    ",
    );
    let (_, out) = reach_storage(cast)?;
    report.table(&out, "app:8080 app-v6:8080 spy:8080 spy-v6:8080\n db yes yes yes yes");
    let left = cast.pod("httpd")?.exec("nft", &["list", "tables"])?;
    let clean = if left.contains("ringfence") {
        Err(anyhow::anyhow!("httpd still has {left}"))
    } else {
        Ok(())
    };
    report.check("no table is left in httpd's network namespace", clean);
    go_on()
}

/// Time from a moment to a measured one.
fn since(start: Instant, end: Result<Instant>) -> Result<Duration> {
    Ok(end?.saturating_duration_since(start))
}

fn finish(report: &mut Report, agent: &Agent) -> bool {
    report.step("Summary");
    let good = report.summary();
    let base = format!("http://{}", agent.listen);
    report.listing(
        "Ask the agent yourself while it runs (--keep)",
        &format!(
            "curl {base}/pods\ncurl {base}/pods/httpd/rules\ncurl {base}/policies\ncurl {base}/networks\n\
             curl {base}/metrics\ncurl {base}/readyz"
        ),
    );
    println!();
    good
}

/// Leaves the stage to the visitor.
fn play(report: &Report, cast: &Cast, agent: &Agent, stop: &Receiver<()>) -> Result<()> {
    cast.folder.save(cast::HTTPD_POLICY, &cast::httpd_policy().yaml())?;
    cast.folder.save(cast::STORAGE_POLICY, &cast::storage_policy().yaml())?;
    let (httpd, friend, stranger) = (cast.pod("httpd")?, cast.pod("friend")?, cast.pod("stranger")?);
    let target = httpd.address(SECOND, V4)?;
    let folder = cast.folder.path().display();
    println!(
        "{}",
        report
            .look
            .paint("1", "Everything keeps running; both policies are in force again.")
    );
    println!("\nEdit, add or delete manifests here; changes act at once:\n  {folder}");
    for (pod, word) in [(friend, "answers"), (stranger, "is silent")] {
        println!("\nThis {word} on the second network:");
        println!(
            "  nsenter --net=/run/netns/{} \\\n    curl -m 2 http://{target}/",
            pod.netns_name
        );
    }
    println!("\nOpen the second network to all, and close it again:");
    println!(
        "  mv {folder}/{} /tmp/\n  mv /tmp/{} {folder}/",
        cast::HTTPD_POLICY,
        cast::HTTPD_POLICY
    );
    println!("\nRules as the kernel has them, and as the agent shows them:");
    println!("  nsenter --net=/run/netns/{} nft list ruleset", httpd.netns_name);
    println!("  curl http://{}/pods/httpd/rules", agent.listen);
    println!("\n{}", report.look.paint("1", "Ctrl-C takes everything down."));
    if stop.recv().is_err() {
        bail!("the signal thread has ended");
    }
    println!();
    Ok(())
}
