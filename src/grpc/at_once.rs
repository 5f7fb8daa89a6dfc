//! What is answered at once, from what is kept: a question is taken as it came, and its
//! answer made of what is kept encoded.
//!
//! Verify as it is asked most has hand-made framing, too. Whatever is unusual is left to
//! the generated code, which answers what is usual byte for byte as it is answered here.

use std::{mem, net::IpAddr};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header::CONTENT_TYPE};

use super::{gate, received::Received, reply::Reply, wire};
use crate::{
    bearer::only_bearer,
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
    look.zip(only_bearer(request.headers())).is_some_and(|(look, presented)| {
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
    let request_id = gate::given_request_id(headers, &verifier.roots, gate::MAX_REQUEST_ID).ok()?;
    let presented = only_bearer(headers)?;
    let look = verifier.look()?;
    let asker = look.asker(presented, Some(ip)).filter(|asker| asker.may_verify())?;

    let answer = answer(&look, asker, wire::frame(body)?, HEADER)?;
    let mut response = Response::new(Reply::message(framed(answer)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    if let Some(request_id) = request_id {
        headers.insert(gate::REQUEST_ID, request_id.clone());
    }
    Some(response)
}

/// The answer to a question, after so many bytes that are left free.
pub(super) fn answer(
    look: &Look<'_>,
    asker: &Entry,
    question: &[u8],
    free: usize,
) -> Option<Vec<u8>> {
    let outcome = outcome(look, asker, question)?;
    look.count(&outcome);
    let mut out = Vec::with_capacity(free + length(look, &outcome));
    out.resize(free, 0);
    encode(look, &outcome, &mut out);
    Some(out)
}

/// The answers to several questions, if all of them can be given.
pub(super) fn answers<'q>(
    look: &Look<'_>,
    asker: &Entry,
    questions: impl ExactSizeIterator<Item = &'q Bytes>,
) -> Option<Vec<Bytes>> {
    let mut outcomes = Vec::with_capacity(questions.len());
    for question in questions {
        outcomes.push(outcome(look, asker, question)?);
    }
    // All of them in one piece.
    let length = outcomes.iter().map(|outcome| length(look, outcome)).sum();
    let (mut all, mut ends) = (Vec::with_capacity(length), Vec::with_capacity(outcomes.len()));
    for outcome in &outcomes {
        look.count(outcome);
        encode(look, outcome, &mut all);
        ends.push(all.len());
    }
    let all = Bytes::from(all);
    let mut begin = 0;
    let each = ends.into_iter().map(|end| all.slice(mem::replace(&mut begin, end)..end));
    Some(each.collect())
}

fn outcome<'l>(look: &'l Look<'_>, asker: &Entry, question: &[u8]) -> Option<Outcome<'l>> {
    let question = wire::Question::decode(question)?;
    let mut requirement = question.requirement()?;
    asker.ask(&mut requirement);
    let outcome = look.outcome(question.token, &requirement)?;
    // That it is to be asked again is said the long way.
    let asks_again = matches!(&outcome, Outcome::Active(entry) if entry.asks_again());
    (!asks_again).then_some(outcome)
}

/// How long an answer is, as a rule, so that it is moved nowhere.
fn length(look: &Look<'_>, outcome: &Outcome<'_>) -> usize {
    // The key and the length of the revision.
    let tail = 3 + look.revision_text().len();
    match outcome {
        Outcome::Active(entry) => entry.answer().len() + tail,
        Outcome::Refused(..) => 128 + tail,
        Outcome::Unknown => 2 + tail,
        Outcome::Malformed => 2,
    }
}

/// Appends the answer that a look gave.
fn encode(look: &Look<'_>, outcome: &Outcome<'_>, out: &mut Vec<u8>) {
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
}

/// The message that stands behind the place of its header, in its frame.
fn framed(mut message: Vec<u8>) -> Bytes {
    let length = u32::try_from(message.len() - HEADER).expect("an answer is short");
    message[1..HEADER].copy_from_slice(&length.to_be_bytes());
    message.into()
}
