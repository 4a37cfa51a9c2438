//! What a frame asks for or answers, and how answers are written.

use prost::Message;

use crate::frame::{Frame, Kind, Side};
use crate::messages::{
    ConfigureRequest, Event, INVALID_ARGUMENT, RegisterPluginRequest, Request, Response, SandboxRequest,
    StateChangeEvent, Status, SynchronizeRequest, UNIMPLEMENTED,
};
use crate::{Options, Sandbox};

const PLUGIN: &str = "nri.pkg.api.v1alpha1.Plugin";
const RUNTIME: &str = "nri.pkg.api.v1alpha1.Runtime";

/// The stream of the only question that the plugin asks.
const REGISTRATION: u32 = 1;

/// What a frame means.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Said {
    /// The runtime asks.
    Call(u32, Call),
    /// Its answer to the registration.
    Registered(Result<(), String>),
    /// Nothing that anybody has asked.
    Nothing,
}

/// A question of the runtime.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Call {
    Configure(ConfigureRequest),
    /// A part of the list, and whether another one follows.
    Synchronize(Vec<Sandbox>, bool),
    Run(Sandbox),
    /// Stopped or removed.
    Gone(Sandbox),
    /// Something that the plugin has not asked to be told of.
    Unasked,
    /// It ends.
    Shutdown,
    /// It cannot be answered: a status and its words.
    Refused(i32, String),
}

/// Reads a frame. Never fails: a question that cannot be read is answered with an error, because losing the connection
/// over it would let the pod start.
pub(crate) fn read(frame: &Frame) -> Said {
    match (frame.side, frame.kind) {
        (Side::Plugin, Kind::Request) => Said::Call(frame.stream, call(&frame.body)),
        (Side::Runtime, Kind::Response) if frame.stream == REGISTRATION => Said::Registered(registered(&frame.body)),
        _ => Said::Nothing,
    }
}

fn call(body: &[u8]) -> Call {
    let request = match Request::decode(body) {
        Ok(request) => request,
        Err(error) => return Call::Refused(INVALID_ARGUMENT, format!("the request cannot be read: {error}")),
    };
    let (service, method) = (&*request.service, &*request.method);
    let bytes = &*request.payload;
    let read = match (service, method) {
        (PLUGIN, "Configure") => ConfigureRequest::decode(bytes).map(Call::Configure),
        (PLUGIN, "Synchronize") => SynchronizeRequest::decode(bytes)
            .map(|list| Call::Synchronize(list.pods.into_iter().map(Sandbox::from).collect(), list.more)),
        (PLUGIN, "RunPodSandbox") => sandbox(bytes).map(Call::Run),
        (PLUGIN, "StopPodSandbox" | "RemovePodSandbox") => sandbox(bytes).map(Call::Gone),
        (PLUGIN, "StateChange") => changed(bytes),
        (PLUGIN, "Shutdown") => Ok(Call::Shutdown),
        _ => return Call::Refused(UNIMPLEMENTED, format!("{service}/{method} is not implemented")),
    };
    read.unwrap_or_else(|error| Call::Refused(INVALID_ARGUMENT, format!("{method} cannot be read: {error}")))
}

fn sandbox(bytes: &[u8]) -> Result<Sandbox, prost::DecodeError> {
    Ok(SandboxRequest::decode(bytes)?.pod.unwrap_or_default().into())
}

/// Runtimes with NRI up to 0.11 (containerd 1.7 to 2.2, CRI-O up to 1.36) have one method for everything that happens to a
/// sandbox; since 0.12 (containerd 2.3) each event has a method of its own.
fn changed(bytes: &[u8]) -> Result<Call, prost::DecodeError> {
    let change = StateChangeEvent::decode(bytes)?;
    let event = change.event();
    let sandbox = change.pod.unwrap_or_default().into();
    Ok(match event {
        Event::RunPodSandbox => Call::Run(sandbox),
        Event::StopPodSandbox | Event::RemovePodSandbox => Call::Gone(sandbox),
        Event::Unknown => Call::Unasked,
    })
}

fn registered(body: &[u8]) -> Result<(), String> {
    let response = Response::decode(body).map_err(|error| format!("its answer cannot be read: {error}"))?;
    match response.status {
        Some(Status { code, message }) if code != 0 => Err(format!("{message} (status {code})")),
        _ => Ok(()),
    }
}

/// The frame that registers the plugin.
pub(crate) fn register(options: &Options) -> Frame {
    let payload = RegisterPluginRequest {
        plugin_name: options.name.clone(),
        plugin_idx: options.index.clone(),
    };
    let request = Request {
        service: RUNTIME.into(),
        method: "RegisterPlugin".into(),
        payload: payload.encode_to_vec(),
    };
    Frame {
        side: Side::Runtime,
        stream: REGISTRATION,
        kind: Kind::Request,
        body: request.encode_to_vec(),
    }
}

/// The frame that answers a question with a message.
pub(crate) fn answer(stream: u32, message: &impl Message) -> Frame {
    respond(
        stream,
        &Response {
            status: None,
            payload: message.encode_to_vec(),
        },
    )
}

/// Longest reason that is sent: it goes into logs and events.
const LONGEST_REASON: usize = 1024;

/// The frame that answers a question with an error.
pub(crate) fn refuse(stream: u32, code: i32, reason: &str) -> Frame {
    let message = reason.chars().take(LONGEST_REASON).collect();
    respond(
        stream,
        &Response {
            status: Some(Status { code, message }),
            payload: Vec::new(),
        },
    )
}

fn respond(stream: u32, response: &Response) -> Frame {
    Frame {
        side: Side::Plugin,
        stream,
        kind: Kind::Response,
        body: response.encode_to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(service: &str, method: &str, payload: &[u8]) -> Said {
        let request = Request {
            service: service.into(),
            method: method.into(),
            payload: payload.to_vec(),
        };
        read(&Frame {
            side: Side::Plugin,
            stream: 3,
            kind: Kind::Request,
            body: request.encode_to_vec(),
        })
    }

    #[track_caller]
    fn check_refused(said: &Said, code: i32, part: &str) {
        match said {
            Said::Call(3, Call::Refused(found, reason)) if *found == code => {
                assert!(reason.contains(part), "{reason}");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn methods_that_are_not_known_are_refused_and_not_passed_over() {
        check_refused(&asked(PLUGIN, "CreateContainer", b""), UNIMPLEMENTED, "CreateContainer");
        check_refused(&asked(PLUGIN, "Ping", b""), UNIMPLEMENTED, "Ping");
        check_refused(&asked(RUNTIME, "Configure", b""), UNIMPLEMENTED, "Runtime/Configure");
        check_refused(&asked("", "", b""), UNIMPLEMENTED, "not implemented");
    }

    #[test]
    fn requests_that_cannot_be_read_are_refused() {
        check_refused(
            &asked(PLUGIN, "RunPodSandbox", b"\x0a\xff"),
            INVALID_ARGUMENT,
            "RunPodSandbox",
        );
        let body = b"\x0a\x05ab".to_vec();
        let frame = Frame {
            side: Side::Plugin,
            stream: 3,
            kind: Kind::Request,
            body,
        };
        check_refused(&read(&frame), INVALID_ARGUMENT, "the request");
    }

    #[test]
    fn every_method_of_interest_is_read() {
        assert_eq!(asked(PLUGIN, "Shutdown", b""), Said::Call(3, Call::Shutdown));
        for method in ["StopPodSandbox", "RemovePodSandbox"] {
            assert_eq!(
                asked(PLUGIN, method, b""),
                Said::Call(3, Call::Gone(Sandbox::default()))
            );
        }
        let pod = b"\x0a\x03\x0a\x01x";
        let sandbox = Sandbox {
            id: "x".into(),
            ..Sandbox::default()
        };
        assert_eq!(
            asked(PLUGIN, "RunPodSandbox", pod),
            Said::Call(3, Call::Run(sandbox.clone()))
        );
        let list = [&pod[..], &[3 << 3, 1]].concat();
        assert_eq!(
            asked(PLUGIN, "Synchronize", &list),
            Said::Call(3, Call::Synchronize(vec![sandbox], true))
        );
        let configure = ConfigureRequest {
            runtime_name: "containerd".into(),
            runtime_version: "v2.4.2".into(),
            request_timeout: 2000,
        };
        let bytes = configure.encode_to_vec();
        assert_eq!(bytes[bytes.len() - 3..], [5 << 3, 0xd0, 0x0f]);
        assert_eq!(
            asked(PLUGIN, "Configure", &bytes),
            Said::Call(3, Call::Configure(configure))
        );
    }

    #[test]
    fn older_runtimes_have_one_method_for_every_event() {
        let sandbox = Sandbox {
            id: "x".into(),
            ..Sandbox::default()
        };
        let pod: &[u8] = b"\x12\x03\x0a\x01x";
        let check = |event: u8, expected: Call| {
            let bytes = [&[1 << 3, event], pod].concat();
            assert_eq!(
                asked(PLUGIN, "StateChange", &bytes),
                Said::Call(3, expected),
                "event {event}"
            );
        };
        check(1, Call::Run(sandbox.clone()));
        check(2, Call::Gone(sandbox.clone()));
        check(3, Call::Gone(sandbox));
        // Those of containers, and those to come.
        for event in [0, 4, 6, 13, 99] {
            check(event, Call::Unasked);
        }
        check_refused(
            &asked(PLUGIN, "StateChange", b"\x12\xff"),
            INVALID_ARGUMENT,
            "StateChange",
        );
    }

    #[track_caller]
    fn check_registered(side: Side, stream: u32, kind: Kind, body: &[u8], expected: &Said) {
        let body = body.to_vec();
        let frame = Frame {
            side,
            stream,
            kind,
            body,
        };
        assert_eq!(&read(&frame), expected);
    }

    #[test]
    fn the_answer_to_the_registration_is_told_from_others() {
        let yes = Said::Registered(Ok(()));
        check_registered(Side::Runtime, 1, Kind::Response, b"", &yes);
        check_registered(Side::Runtime, 1, Kind::Response, &[0x0a, 2, 8, 0], &yes);
        let no = Said::Registered(Err("no (status 2)".into()));
        check_registered(Side::Runtime, 1, Kind::Response, b"\x0a\x06\x08\x02\x12\x02no", &no);
        check_registered(Side::Runtime, 3, Kind::Response, b"", &Said::Nothing);
        check_registered(Side::Runtime, 1, Kind::Request, b"", &Said::Nothing);
        check_registered(Side::Plugin, 1, Kind::Response, b"", &Said::Nothing);
        check_registered(Side::Plugin, 1, Kind::Data, b"", &Said::Nothing);
    }

    #[test]
    fn reasons_are_bounded() {
        let frame = refuse(1, UNIMPLEMENTED, &"ä".repeat(5000));
        assert!(frame.body.len() < 2 * LONGEST_REASON + 20);
    }
}
