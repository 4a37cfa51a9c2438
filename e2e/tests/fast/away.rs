//! An agent that starts while the API server is away: it knows nothing, and so it touches nothing.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use ringfence_e2e::{World, eventually};
use ringfence_testkit::Outcome::{Dropped, Reached};
use ringfence_testkit::manifest::pods;
use ringfence_testkit::{Flow, Load, Pod, Stream, http_get};

/// How often the streams send.
const EVERY: Duration = Duration::from_millis(2);

/// Everything that anybody changes in a pod's nftables, as the kernel tells it: an owner that comes or goes is a change too.
struct Monitor {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Monitor {
    fn start(pod: &Pod) -> Self {
        let spawn = || Command::new("nft").arg("monitor").stdout(Stdio::piped()).spawn();
        let mut child = pod.netns.run(spawn).expect("entered").expect("nft");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let collected = Arc::clone(&lines);
        let reader = std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                collected.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        let monitor = Self {
            child,
            lines,
            reader: Some(reader),
        };
        // It may not listen yet.
        eventually("the monitor hears", || {
            pod.exec("nft", &["add", "table", "inet", "listening"]).expect("nft");
            pod.exec("nft", &["delete", "table", "inet", "listening"]).expect("nft");
            monitor.heard("delete table inet listening").ok_or_else(String::new)
        });
        monitor
    }

    /// The lines up to the first one that contains this, if it has come.
    fn heard(&self, word: &str) -> Option<Vec<String>> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let end = lines.iter().position(|line| line.contains(word))?;
        Some(lines[..end].to_vec())
    }

    /// What has been told until now, without what tells that it listens.
    fn changes(&self, pod: &Pod) -> Vec<String> {
        pod.exec("nft", &["add", "table", "inet", "until-now"]).expect("nft");
        let heard = || self.heard("add table inet until-now").ok_or_else(String::new);
        let mut lines = eventually("the monitor hears", heard);
        lines.retain(|line| !line.starts_with('#') && !line.contains("table inet listening"));
        lines
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        // It has ended already where it could not listen.
        drop(self.child.kill());
        drop(self.child.wait());
        if let Some(reader) = self.reader.take() {
            drop(reader.join());
        }
    }
}

#[test]
fn s140_an_agent_that_starts_while_the_api_server_is_away_touches_nothing_until_it_is_back() {
    let mut world = World::own("away");
    let net = world.network("net-a");
    let web = world.pod(world.spec("web", &net));
    let plain = world.pod(world.spec("plain", &net));
    let friend = world.remote_pod(world.spec("friend", &net).label("access", "true"));
    let stranger = world.remote_pod(world.spec("stranger", &net));
    let friends = [pods(&[("access", "true")])];
    world.apply(&world.policy("guard", &net, "web").ingress(&friends, &[]).manifest());
    world.start();
    world.expect(
        &net,
        &[
            (&friend, &web, 80, Reached),
            (&stranger, &web, 80, Dropped),
            (&stranger, &plain, 80, Reached),
        ],
    );
    world.stop();

    // What no agent sees: the pod with rules is to admit one more, and the one without is to be isolated.
    let late = world.remote_pod(world.spec("late", &net).label("access", "true"));
    world.apply(&world.policy("more", &net, "plain").ingress(&friends, &[]).manifest());
    world.lane.kill("apiserver").expect("killed");
    let monitors = [&web, &plain].map(|pod| (pod, Monitor::start(pod)));
    let denied = Stream::start(&world.path(&stranger, &web, &net, 7000), EVERY).expect("a stream");
    let admitted = Flow::open(&world.path(&friend, &web, &net, 7001), Load::Upload).expect("a flow");
    let open = Flow::open(&world.path(&stranger, &plain, &net, 7002), Load::Upload).expect("a flow");

    world.launch();
    // It says what it waits for and what follows from it: once in its log, and to whoever asks.
    let waits = "until it has delivered everything once, no pod's rules are touched";
    world.wait_line(&["WARN", "The API server does not answer", waits]);
    let ready = || http_get(world.agent().listen, "/readyz?verbose").map_err(|error| format!("{error:#}"));
    world.wait("each watch has failed", || match ready()? {
        answer if answer.body.matches("[pending] watch ").count() >= 6 && !answer.body.contains("first list") => Ok(()),
        answer => Err(answer.body),
    });
    let answer = ready().expect("an answer");
    assert_eq!(answer.status, 503, "{}", answer.body);
    let source = "[pending] source kube: it has not delivered everything once; until then no pod's rules are touched";
    assert!(answer.body.contains(source), "{}", answer.body);

    // Longer than several resyncs, in which it goes on asking.
    let errors = || world.metric("ringfence_watch_errors_total", &["reason=\"failed\""]);
    let before = errors().expect("they are counted");
    world.wait("it asks again and again", || match errors()? {
        now if now >= before + 12.0 => Ok(()),
        now => Err(format!("{before} {now}")),
    });
    world.expect(
        &net,
        &[
            (&friend, &web, 80, Reached),
            (&stranger, &web, 80, Dropped),
            (&late, &web, 80, Dropped),
            (&stranger, &plain, 80, Reached),
        ],
    );
    for (pod, monitor) in &monitors {
        let changes = monitor.changes(pod);
        assert!(changes.is_empty(), "{}: {changes:#?}", pod.full_name());
    }
    let said = world.agent().log().matches("The API server does not answer").count();
    assert_eq!(said, 1, "one outage, one line:\n{}", world.agent().log());
    open.wait_for_more(Duration::from_secs(10)).expect("it was never cut");

    // The server comes, and everything is enforced.
    world.lane.start("apiserver").expect("started");
    world.expect(
        &net,
        &[
            (&friend, &web, 80, Reached),
            (&late, &web, 80, Reached),
            (&stranger, &web, 80, Dropped),
            (&late, &plain, 80, Reached),
            (&stranger, &plain, 80, Dropped),
        ],
    );
    world.wait_state("web", "enforced");
    world.wait_state("plain", "enforced");
    let answer = world.agent().get("/readyz?verbose").expect("an answer");
    assert_eq!(
        (answer.status, answer.body.starts_with("ok\n")),
        (200, true),
        "{}",
        answer.body
    );
    let (sent, arrived) = denied.counts();
    assert!(sent > 0);
    assert_eq!(arrived, 0, "of {sent} datagrams");
    admitted.wait_for_more(Duration::from_secs(10)).expect("it goes on");
}
