//! Running the agent's binary, feeding it a folder of manifests, asking its HTTP server.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill};
use nix::unistd::Pid;

/// How long one HTTP request may take.
const HTTP_LIMIT: Duration = Duration::from_secs(5);
/// How often a state that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// A running agent. Dropped, it is killed.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
    /// Where its HTTP server listens.
    pub listen: SocketAddr,
}

impl Agent {
    /// Starts `binary arguments… --listen ADDRESS` in the calling thread's namespace and collects what it prints.
    pub fn start(binary: &Path, arguments: &[String], listen: SocketAddr) -> Result<Self> {
        // A child inherits the signals that this thread blocks, and an agent that never sees SIGTERM never ends.
        let blocked = SigSet::empty()
            .thread_swap_mask(SigmaskHow::SIG_SETMASK)
            .context("unblock signals")?;
        let started = Command::new(binary)
            .args(arguments)
            .arg("--listen")
            .arg(listen.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        blocked.thread_set_mask().context("block signals again")?;
        let mut child = started.with_context(|| format!("start {}", binary.display()))?;
        let log = Arc::new(Mutex::new(Vec::new()));
        let mut readers = Vec::new();
        if let Some(pipe) = child.stdout.take() {
            readers.push(collect(pipe, log.clone())?);
        }
        if let Some(pipe) = child.stderr.take() {
            readers.push(collect(pipe, log.clone())?);
        }
        Ok(Self {
            child,
            log,
            readers,
            listen,
        })
    }

    /// Waits until `/readyz` answers 200. Fails with the log where the agent ends before that or takes too long.
    pub fn wait_ready(&mut self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().context("look at the agent")? {
                bail!("the agent has ended with {status}:\n{}", self.log());
            }
            let last = match http_get(self.listen, "/readyz") {
                Ok(response) if response.status == 200 => return Ok(()),
                Ok(response) => format!("{} {}", response.status, response.body.trim()),
                Err(error) => format!("{error:#}"),
            };
            if Instant::now() > deadline {
                bail!("the agent is not ready after {limit:?} ({last}):\n{}", self.log());
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Asks its HTTP server.
    pub fn get(&self, path: &str) -> Result<Response> {
        http_get(self.listen, path).with_context(|| format!("GET {path}"))
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed so far.
    pub fn log(&self) -> String {
        let log = self.log.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        log.join("\n")
    }

    /// Asks it to end (SIGTERM) and waits.
    pub fn stop(mut self) -> Result<ExitStatus> {
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut asked = false;
        loop {
            // Looked at before it is asked: the number of a process that has ended and been waited for may be another's.
            if let Some(status) = self.child.try_wait().context("look at the agent")? {
                return Ok(status);
            }
            if !asked {
                self.signal(Signal::SIGTERM)?;
                asked = true;
            }
            ensure!(Instant::now() < deadline, "the agent does not end:\n{}", self.log());
            std::thread::sleep(LOOK);
        }
    }

    /// Ends it at once (SIGKILL), as a crash would.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill().context("kill the agent")?;
        self.child.wait().context("wait for the agent")?;
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).context("a process number")?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("send {signal} to the agent"))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Both fail harmlessly where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        for reader in self.readers.drain(..) {
            if reader.join().is_err() {
                eprintln!("testkit: a log reader has panicked");
            }
        }
    }
}

fn collect(pipe: impl std::io::Read + Send + 'static, log: Arc<Mutex<Vec<String>>>) -> Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name("agent log".into())
        .spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                log.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(line);
            }
        })
        .context("start a log reader")
}

/// An HTTP response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Header names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The body as text.
    pub body: String,
}

/// GET of a path over plain HTTP.
pub fn http_get(address: SocketAddr, path: &str) -> Result<Response> {
    // HTTP/1.0: the answer comes in one piece and ends with the connection.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nAccept: */*\r\n\r\n");
    let mut stream = TcpStream::connect_timeout(&address, HTTP_LIMIT).with_context(|| format!("connect {address}"))?;
    stream.set_read_timeout(Some(HTTP_LIMIT))?;
    stream.set_write_timeout(Some(HTTP_LIMIT))?;
    stream.write_all(request.as_bytes()).context("send the request")?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).context("read the answer")?;
    parse_response(&String::from_utf8_lossy(&bytes))
}

fn parse_response(text: &str) -> Result<Response> {
    let (head, body) = text.split_once("\r\n\r\n").context("an answer without a body")?;
    let mut lines = head.lines();
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok())
        .with_context(|| format!("no HTTP status in {head:?}"))?;
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    Ok(Response {
        status,
        headers,
        body: body.to_owned(),
    })
}

/// A port on 127.0.0.1 that nobody used a moment ago.
pub fn free_port() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").context("look for a free port")?;
    listener.local_addr().context("look for a free port")
}

/// A folder of manifests for the agent's directory source, removed on drop.
#[derive(Debug)]
pub struct ManifestFolder {
    folder: tempfile::TempDir,
}

impl ManifestFolder {
    /// An empty one.
    pub fn new() -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("rf-manifests-")
            .tempdir()
            .context("make a folder for manifests")?;
        Ok(Self { folder })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The value for `--source`.
    pub fn source(&self) -> String {
        format!("dir:{}", self.path().display())
    }

    /// Arguments of an agent of this node that follows the folder and looks for network namespaces by this template.
    pub fn arguments(&self, node: &str, netns_path: &str) -> Vec<String> {
        [
            "agent",
            "--node",
            node,
            "--source",
            &self.source(),
            "--netns-path",
            netns_path,
        ]
        .map(ToOwned::to_owned)
        .into()
    }

    /// Saves a file under its final name at once, as editors do, and gives the moment just before it appeared.
    pub fn save(&self, name: &str, text: &str) -> Result<Instant> {
        // Outside of the watched folder's view: a name that begins with a dot and does not end like a manifest.
        let draft = self.path().join(format!(".{name}.part"));
        std::fs::write(&draft, text).with_context(|| format!("write {}", draft.display()))?;
        let path = self.file(name);
        let moment = Instant::now();
        std::fs::rename(&draft, &path).with_context(|| format!("save {}", path.display()))?;
        Ok(moment)
    }

    /// Deletes a file and gives the moment just before.
    pub fn delete(&self, name: &str) -> Result<Instant> {
        let path = self.file(name);
        let moment = Instant::now();
        std::fs::remove_file(&path).with_context(|| format!("delete {}", path.display()))?;
        Ok(moment)
    }

    /// Path of a file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers one request with this text.
    fn serve_once(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let address = listener.local_addr().expect("address");
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("accept");
            let mut request = [0; 1024];
            let length = stream.read(&mut request).expect("read");
            assert!(request[..length].starts_with(b"GET /readyz HTTP/1.0\r\n"));
            stream.write_all(answer.as_bytes()).expect("answer");
        });
        address
    }

    #[test]
    fn http_answers_are_taken_apart() {
        let address = serve_once("HTTP/1.0 503 Service Unavailable\r\nContent-Type: text/plain\r\n\r\npods\r\n\r\nx");
        let response = http_get(address, "/readyz").expect("an answer");
        assert_eq!(response.status, 503);
        assert_eq!(response.headers, [("content-type".to_owned(), "text/plain".to_owned())]);
        assert_eq!(response.body, "pods\r\n\r\nx");
        assert!(parse_response("nonsense").is_err());
        assert!(parse_response("nonsense\r\n\r\n").is_err());
    }

    fn shell(script: &str) -> Agent {
        let arguments = ["-c".to_owned(), script.to_owned()];
        Agent::start(Path::new("/bin/sh"), &arguments, free_port().expect("a port")).expect("start sh")
    }

    #[test]
    fn an_agent_that_ends_early_is_reported_with_its_log() {
        let mut agent = shell("echo first; echo second >&2; exit 7");
        let error = agent
            .wait_ready(Duration::from_secs(5))
            .expect_err("it has ended")
            .to_string();
        assert!(error.contains("exit status: 7"), "{error}");
        assert_eq!(agent.stop().expect("it has ended").code(), Some(7));
    }

    #[test]
    fn stop_asks_and_kill_does_not() {
        use std::os::unix::process::ExitStatusExt as _;
        // Also where the caller has blocked the signal, as programs do that wait for it on a thread.
        let mut blocked = SigSet::empty();
        blocked.add(Signal::SIGTERM);
        blocked.thread_block().expect("block SIGTERM");
        let status = shell("exec sleep 60").stop().expect("it ends");
        assert_eq!(status.signal(), Some(libc::SIGTERM));
        assert!(SigSet::thread_get_mask().expect("mask").contains(Signal::SIGTERM));
        let agent = shell("exec sleep 60");
        let pid = agent.pid();
        agent.kill().expect("it is killed");
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn a_save_appears_under_its_name_at_once() {
        let folder = ManifestFolder::new().expect("a folder");
        let before = Instant::now();
        let saved = folder.save("a.yaml", "kind: Pod\n").expect("save");
        assert!(saved >= before);
        let names: Vec<_> = std::fs::read_dir(folder.path())
            .expect("read the folder")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        assert_eq!(names, ["a.yaml"]);
        folder.delete("a.yaml").expect("delete");
        assert!(folder.delete("a.yaml").is_err());
    }
}
