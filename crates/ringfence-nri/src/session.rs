//! The thread: connect, register, answer; start over when the connection is lost.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, sleep_until, timeout};
use tracing::{debug, info, warn};

use crate::call::{Call, Said, answer, read, refuse, register};
use crate::frame::{Decoder, Frame};
use crate::health::Health;
use crate::messages::{
    ConfigureRequest, ConfigureResponse, EVENTS, FAILED_PRECONDITION, RESOURCE_EXHAUSTED, SynchronizeResponse,
};
use crate::{Answer, Error, News, Options, Reply, Sandbox};

/// First and longest time before a lost connection is tried again. Short, because pods start unseen meanwhile; to try
/// costs a system call.
const FIRST_RETRY: Duration = Duration::from_millis(5);
const LAST_RETRY: Duration = Duration::from_millis(250);

/// Time in which the runtime must accept the connection, and then configure the plugin and list its sandboxes.
const REGISTRATION: Duration = Duration::from_secs(5);

/// Most questions that wait for an answer. The runtime asks one after the other.
const MOST_QUESTIONS: usize = 256;

/// Most sandboxes of a list. A node has some hundred.
const MOST_SANDBOXES: usize = 65_536;

/// Most bytes that wait for the runtime to read them: it reads at once or it hangs.
const MOST_UNREAD: usize = 8 << 20;

type Tell = Box<dyn FnMut(News) + Send>;

pub(crate) struct Plugin {
    options: Options,
    tell: Tell,
    stop: Arc<Notify>,
    health: watch::Sender<Health>,
    retry: Duration,
}

/// Why a session has ended.
enum End {
    /// The handle was dropped.
    Stopped,
    Failed(Error),
}

impl<E: Into<Error>> From<E> for End {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// One connection.
struct Session {
    /// How long answers may take.
    patience: Duration,
    /// What is to be written, and has not been.
    out: Vec<u8>,
    /// Questions without an answer, and when they get an error.
    waiting: BTreeMap<u32, Instant>,
    answers: UnboundedSender<(u32, Answer)>,
    /// The parts of the list so far.
    listed: Vec<Sandbox>,
    /// Whether the list has been complete once.
    synchronized: bool,
}

impl Plugin {
    pub(crate) fn new(options: Options, tell: Tell, stop: Arc<Notify>, health: watch::Sender<Health>) -> Self {
        Self {
            options,
            tell,
            stop,
            health,
            retry: FIRST_RETRY,
        }
    }

    pub(crate) async fn run(mut self) {
        loop {
            let before = self.health.borrow().sessions;
            let Err(end) = self.session().await;
            let error = match end {
                End::Stopped => return,
                End::Failed(error) => error,
            };
            if self.health.borrow().sessions > before {
                (self.tell)(News::Lost);
            }
            let mut news = false;
            self.health.send_modify(|health| news = health.failed(&error));
            if news {
                // As a string: see the agent's logging.
                let error = error.to_string();
                warn!(
                    error = error.as_str(),
                    "NRI is away: the container runtime does not ask before pods start"
                );
            }
            let wait = self.retry;
            self.retry = (wait * 2).min(LAST_RETRY);
            tokio::select! {
                () = self.stop.notified() => return,
                () = sleep(wait) => {},
            }
        }
    }

    /// From a connection to its end.
    async fn session(&mut self) -> Result<Infallible, End> {
        let failed = |reason: String| Error::Connect {
            socket: self.options.socket.clone(),
            reason,
        };
        let mut stream = timeout(REGISTRATION, UnixStream::connect(&self.options.socket))
            .await
            .map_err(|_| Error::Silent(REGISTRATION))?
            .map_err(|error| failed(error.to_string()))?;
        let (mut reader, mut writer) = stream.split();
        let (answers, mut answered): (_, UnboundedReceiver<(u32, Answer)>) = unbounded_channel();
        let mut session = Session {
            patience: self.options.patience,
            out: Vec::new(),
            waiting: BTreeMap::new(),
            answers,
            listed: Vec::new(),
            synchronized: false,
        };
        session.write(&register(&self.options))?;
        let begun = Instant::now();
        let mut decoder = Decoder::default();
        let mut frames = Vec::new();
        let mut bytes = vec![0; 64 << 10];
        loop {
            let wake = session.next_wake(begun);
            tokio::select! {
                () = self.stop.notified() => return Err(End::Stopped),
                length = reader.read(&mut bytes) => {
                    let length = length?;
                    if length == 0 {
                        return Err(Error::Closed.into());
                    }
                    decoder.feed(&bytes[..length], &mut frames).map_err(Error::from)?;
                    for frame in frames.drain(..) {
                        self.take(&frame, &mut session)?;
                    }
                },
                length = writer.write(&session.out), if !session.out.is_empty() => {
                    session.out.drain(..length?);
                },
                Some((stream, answer)) = answered.recv() => session.answer(stream, answer)?,
                () = sleep_until(wake.into()) => session.give_up(Instant::now(), begun)?,
            }
        }
    }

    fn take(&mut self, frame: &Frame, session: &mut Session) -> Result<(), Error> {
        let (stream, call) = match read(frame) {
            Said::Call(stream, call) => (stream, call),
            Said::Registered(answer) => return answer.map_err(Error::Refused),
            Said::Nothing => return Ok(()),
        };
        match call {
            Call::Configure(request) => {
                session.patience = patience(self.options.patience, &request);
                let name = format!("{} {}", request.runtime_name, request.runtime_version);
                self.health
                    .send_modify(|health| health.runtime = Some(name.trim().to_owned()));
                session.write(&answer(stream, &ConfigureResponse { events: EVENTS }))
            }
            Call::Synchronize(sandboxes, more) => {
                session.listed.extend(sandboxes);
                if session.listed.len() > MOST_SANDBOXES {
                    return Err(Error::TooMany("sandboxes"));
                }
                if !more {
                    session.synchronized = true;
                    self.retry = FIRST_RETRY;
                    self.synchronized(std::mem::take(&mut session.listed));
                }
                session.write(&answer(stream, &SynchronizeResponse { more }))
            }
            Call::Run(sandbox) => self.ask(stream, sandbox, session),
            Call::Gone(sandbox) => {
                (self.tell)(News::Gone(sandbox));
                session.write(&answer(stream, &Empty {}))
            }
            // The runtime closes the connection when it is ready.
            Call::Unasked | Call::Shutdown => session.write(&answer(stream, &Empty {})),
            Call::Refused(code, reason) => {
                debug!(reason = reason.as_str(), "NRI request refused");
                session.write(&refuse(stream, code, &reason))
            }
        }
    }

    fn synchronized(&mut self, sandboxes: Vec<Sandbox>) {
        self.health.send_modify(Health::connected);
        let runtime = self.health.borrow().runtime.clone().unwrap_or_default();
        info!(
            runtime = runtime.as_str(),
            socket = %self.options.socket.display(),
            sandboxes = sandboxes.len(),
            "NRI is connected: the container runtime asks before pods start"
        );
        (self.tell)(News::Listed(sandboxes));
    }

    fn ask(&mut self, stream: u32, sandbox: Sandbox, session: &mut Session) -> Result<(), Error> {
        if session.waiting.len() >= MOST_QUESTIONS {
            return session.write(&refuse(stream, RESOURCE_EXHAUSTED, "too many pods start at once"));
        }
        let received = Instant::now();
        let until = received + session.patience;
        session.waiting.insert(stream, until);
        let reply = Reply {
            stream,
            answers: Some(session.answers.clone()),
        };
        (self.tell)(News::Run {
            sandbox,
            reply,
            received,
            until,
        });
        Ok(())
    }
}

impl Session {
    fn write(&mut self, frame: &Frame) -> Result<(), Error> {
        // Only answers are written, and those are short.
        let bytes = frame.encode().ok_or(Error::TooMany("bytes"))?;
        self.out.extend(bytes);
        if self.out.len() > MOST_UNREAD {
            return Err(Error::TooMany("unread answers"));
        }
        Ok(())
    }

    /// An answer. After the time has run out there is another one already.
    fn answer(&mut self, stream: u32, result: Answer) -> Result<(), Error> {
        if self.waiting.remove(&stream).is_none() {
            return Ok(());
        }
        match result {
            Ok(()) => self.write(&answer(stream, &Empty {})),
            Err(reason) => self.write(&refuse(stream, FAILED_PRECONDITION, &reason)),
        }
    }

    fn next_wake(&self, begun: Instant) -> Instant {
        let registration = (!self.synchronized).then_some(begun + REGISTRATION);
        self.waiting
            .values()
            .copied()
            .chain(registration)
            .min()
            // There is nothing to wake for.
            .unwrap_or_else(|| Instant::now() + Duration::from_secs(3600))
    }

    fn give_up(&mut self, now: Instant, begun: Instant) -> Result<(), Error> {
        if !self.synchronized && now >= begun + REGISTRATION {
            return Err(Error::Silent(REGISTRATION));
        }
        let due: Vec<u32> = self
            .waiting
            .iter()
            .filter(|(_, until)| **until <= now)
            .map(|(stream, _)| *stream)
            .collect();
        for stream in due {
            let seconds = self.patience.as_secs_f32();
            let reason = format!("it was not decided within {seconds} seconds whether it may start");
            warn!(reason = reason.as_str(), "Start of a pod refused");
            self.answer(stream, Err(reason))?;
        }
        Ok(())
    }
}

/// A message without fields.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Empty {}

/// Three fifths of the runtime's own patience at most: its clock starts before the question arrives.
fn patience(own: Duration, request: &ConfigureRequest) -> Duration {
    match u64::try_from(request.request_timeout) {
        Ok(milliseconds @ 1..) => own.min(Duration::from_millis(milliseconds.saturating_mul(3) / 5)),
        _ => own,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_patience(request_timeout: i64, expected: u64) {
        let request = ConfigureRequest {
            request_timeout,
            ..ConfigureRequest::default()
        };
        assert_eq!(
            patience(Duration::from_millis(1500), &request),
            Duration::from_millis(expected)
        );
    }

    #[test]
    fn a_less_patient_runtime_is_answered_sooner() {
        check_patience(2000, 1200);
        check_patience(0, 1500);
        check_patience(-1, 1500);
        check_patience(500, 300);
        check_patience(60_000, 1500);
        check_patience(i64::MAX, 1500);
    }
}
