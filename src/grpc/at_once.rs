//! Verify as it is asked most: answered at once from what is kept, by hand-made
//! framing. Whatever is unusual is left to the generated code, which answers what is
//! usual byte for byte as it is answered here.

use std::net::IpAddr;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header::CONTENT_TYPE};

use super::{gate, received::Received, reply::Reply, wire};
use crate::{
    rights,
    verifier::{Entry, Look, Outcome, Verifier},
};

/// What gRPC puts before a message: whether it is compressed, and its length.
const HEADER: usize = 5;

/// Whether a call may be answered here.
pub(super) fn is_usual(request: &Request<Received>) -> bool {
    let content_type = request.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    request.uri().path() == rights::VERIFY.path
        && request.method() == Method::POST
        && matches!(content_type, Some(b"application/grpc" | b"application/grpc+proto"))
        && !request.headers().contains_key("grpc-encoding")
        // The log gets a line for each call then.
        && !tracing::enabled!(tracing::Level::DEBUG)
}

/// Whether the caller is known from what is kept, and may ask.
pub(super) fn knows_caller(verifier: &Verifier, request: &Request<Received>, ip: IpAddr) -> bool {
    let look = verifier.look();
    look.zip(gate::only_bearer(request.headers())).is_some_and(|(look, presented)| {
        look.asker(presented, Some(ip)).is_some_and(Entry::may_verify)
    })
}

/// The answer to a usual call whose whole body was read, if it can be given from what is kept.
pub(super) fn verify(
    verifier: &Verifier,
    request: &Request<Received>,
    ip: IpAddr,
) -> Option<Response<Reply>> {
    let (headers, body) = (request.headers(), request.body().read());
    let request_id = gate::given_request_id(headers, &verifier.roots).ok()?;
    let presented = gate::only_bearer(headers)?;
    let look = verifier.look()?;
    let asker = look.asker(presented, Some(ip)).filter(|asker| asker.may_verify())?;

    let question = wire::Question::decode(wire::frame(body)?)?;
    let mut requirement = question.requirement()?;
    requirement.askers_workspace_id = asker.workspace_id();
    let outcome = look.answer(question.token, &requirement)?;

    let mut response = Response::new(Reply::message(frame(&look, &outcome)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    if let Some(request_id) = request_id {
        headers.insert(gate::REQUEST_ID, request_id.clone());
    }
    Some(response)
}

/// The answer that a look gave, in its frame.
fn frame(look: &Look<'_>, outcome: &Outcome<'_>) -> Bytes {
    let mut message = Message::new(outcome, look);
    let out = &mut message.0;
    let mut max_age = None;
    match outcome {
        Outcome::Active(entry) => {
            out.extend_from_slice(entry.answer());
            max_age = Some(look.max_age(entry)).filter(|max_age| !max_age.is_zero());
        }
        Outcome::Refused(reason, entry) => {
            wire::refusal(entry.answer(), reason, entry.revoked_at(), out);
        }
        Outcome::Unknown | Outcome::Malformed => wire::not_found(out),
    }
    let revision = match outcome {
        Outcome::Malformed => "",
        Outcome::Active(_) | Outcome::Refused(..) | Outcome::Unknown => look.revision_text(),
    };
    wire::tail(revision, max_age, false, out);
    message.framed()
}

/// A message in the making, with room for what precedes it.
struct Message(Vec<u8>);

impl Message {
    /// Of the length that it will have, as a rule, so that it is moved nowhere.
    fn new(outcome: &Outcome<'_>, look: &Look<'_>) -> Self {
        // The key and the length of the revision.
        let tail = 3 + look.revision_text().len();
        let length = match outcome {
            Outcome::Active(entry) => entry.answer().len() + tail,
            Outcome::Refused(..) => 128 + tail,
            Outcome::Unknown => 2 + tail,
            Outcome::Malformed => 2,
        };
        let mut out = Vec::with_capacity(HEADER + length);
        out.resize(HEADER, 0);
        Self(out)
    }

    fn framed(self) -> Bytes {
        let Self(mut out) = self;
        let length = u32::try_from(out.len() - HEADER).expect("an answer is short");
        out[1..HEADER].copy_from_slice(&length.to_be_bytes());
        out.into()
    }
}
