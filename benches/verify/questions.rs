//! What is asked, encoded beforehand, and what must come back.

use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message;
use token_authority::proto::v1::{
    BatchVerifyRequest, CreatePersonalAccessTokenRequest, RevokePersonalAccessTokenRequest,
    VerifyRequest,
};

/// The length of what stands before each message: whether it is compressed, and its length.
pub(crate) const FRAME: usize = 5;

/// Tag and value of `VerifyResponse.active`, if it is true: its first field.
const ACTIVE: &[u8] = &[0x08, 1];
/// Tag of `VerifyResponse.reason`, the first field of any other answer.
const REASON: u8 = 0x10;

const CREATE: &str = "/token_authority.v1.PersonalAccessTokens/CreatePersonalAccessToken";

/// A method, the messages that it is called with, and what a right answer is.
#[derive(Clone)]
pub(crate) struct Question {
    pub(crate) path: &'static str,
    /// In their frames.
    messages: Arc<[Bytes]>,
    again: bool,
    /// How many answers one call brings.
    pub(crate) answers: u64,
    /// Judges an answer without its frame.
    pub(crate) is_right: fn(&[u8]) -> bool,
}

impl Question {
    /// About each of these tokens, in turn, again and again: they are good.
    pub(crate) fn verify(tokens: &[String]) -> Self {
        Self::asking(tokens.iter().map(|token| verify(token)))
    }

    /// These, of which the answer is yes.
    pub(crate) fn asking(requests: impl Iterator<Item = VerifyRequest>) -> Self {
        Self::of("/token_authority.v1.Verification/Verify", requests, is_active)
    }

    /// About each of these tokens: they are not good.
    pub(crate) fn refused(tokens: &[String]) -> Self {
        Self { is_right: is_refused, ..Self::verify(tokens) }
    }

    /// The same, of good ones, on a stream.
    pub(crate) fn stream(tokens: &[String]) -> Self {
        let path = "/token_authority.v1.Verification/StreamVerify";
        Self { path, ..Self::verify(tokens) }
    }

    /// About so many of these tokens, which are good, with each call.
    pub(crate) fn batch(tokens: &[String], size: usize) -> Self {
        let messages = tokens.chunks_exact(size).map(|tokens| BatchVerifyRequest {
            requests: tokens.iter().map(|token| verify(token)).collect(),
            consistency: None,
        });
        let path = "/token_authority.v1.Verification/BatchVerify";
        Self { answers: size as u64, ..Self::of(path, messages, are_active) }
    }

    /// Ends each of these tokens.
    pub(crate) fn revoke(ids: impl Iterator<Item = String>) -> Self {
        let messages =
            ids.map(|id| RevokePersonalAccessTokenRequest { id, include_descendants: false });
        let path = "/token_authority.v1.PersonalAccessTokens/RevokePersonalAccessToken";
        Self::of(path, messages, is_anything).once()
    }

    /// Makes a token for each of these users.
    pub(crate) fn create(users: &[String]) -> Self {
        let messages = users.iter().map(|user_id| CreatePersonalAccessTokenRequest {
            name: "of a benchmark".to_owned(),
            scopes: vec!["read:documents".to_owned()],
            user_id: Some(user_id.clone()),
            ..Default::default()
        });
        Self::of(CREATE, messages, is_anything)
    }

    /// Makes a token with these scopes for the caller.
    pub(crate) fn create_with(scopes: &[String]) -> Self {
        let message = CreatePersonalAccessTokenRequest {
            name: "of a benchmark".to_owned(),
            scopes: scopes.to_vec(),
            ..Default::default()
        };
        Self::of(CREATE, std::iter::once(message), is_anything)
    }

    /// Asks each message once instead of again and again.
    pub(crate) fn once(self) -> Self {
        Self { again: false, ..self }
    }

    /// The message in this place, in its frame; `None` past the last of those that are
    /// asked once.
    pub(crate) fn at(&self, place: usize) -> Option<Bytes> {
        let place = if self.again { place % self.messages.len() } else { place };
        self.messages.get(place).cloned()
    }

    fn of<M: Message>(
        path: &'static str,
        messages: impl Iterator<Item = M>,
        is_right: fn(&[u8]) -> bool,
    ) -> Self {
        let messages = messages.map(|message| framed(&message)).collect();
        Self { path, messages, again: true, answers: 1, is_right }
    }
}

fn verify(token: &str) -> VerifyRequest {
    VerifyRequest { token: token.to_owned(), ..Default::default() }
}

fn framed(message: &impl Message) -> Bytes {
    frame_of(&message.encode_to_vec())
}

/// An encoded message in its frame.
pub(crate) fn frame_of(message: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(FRAME + message.len());
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.len()).expect("messages are short"));
    bytes.put_slice(message);
    bytes.freeze()
}

/// The length of the first message with its frame, if all of it is there.
pub(crate) fn frame(bytes: &[u8]) -> Option<usize> {
    let length = FRAME + u32::from_be_bytes(bytes.get(1..FRAME)?.try_into().ok()?) as usize;
    (bytes[0] == 0 && bytes.len() >= length).then_some(length)
}

/// Appends the `StreamVerifyRequest` with this id and this encoded question.
pub(crate) fn to_stream(id: u64, question: &[u8], bytes: &mut BytesMut) {
    let (id_length, length) = (1 + varint_length(id), question.len() as u64);
    let length = id_length + 1 + varint_length(length) + question.len();
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).expect("messages are short"));
    bytes.put_u8(0x08);
    prost::encoding::encode_varint(id, bytes);
    bytes.put_u8(0x12);
    prost::encoding::encode_varint(question.len() as u64, bytes);
    bytes.put_slice(question);
}

fn varint_length(number: u64) -> usize {
    prost::encoding::encoded_len_varint(number)
}

/// The id and the encoded answer of a `StreamVerifyResponse`; an id of zero is left out.
pub(crate) fn streamed(mut message: &[u8]) -> Option<(u64, &[u8])> {
    let mut id = 0;
    if message.first() == Some(&0x08) {
        message = &message[1..];
        id = prost::encoding::decode_varint(&mut message).ok()?;
    }
    Some((id, delimited(&mut message, 0x12).filter(|_| message.is_empty())?))
}

/// Takes the field with this tag, which comes next.
fn delimited<'a>(message: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    let (first, mut rest) = message.split_first()?;
    let length = prost::encoding::decode_varint(&mut rest).ok()?;
    let (field, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    *message = rest;
    (*first == tag).then_some(field)
}

fn is_active(answer: &[u8]) -> bool {
    answer.starts_with(ACTIVE)
}

fn is_refused(answer: &[u8]) -> bool {
    answer.first() == Some(&REASON)
}

/// Whether a `BatchVerifyResponse` has good answers alone.
fn are_active(mut answer: &[u8]) -> bool {
    let mut results = 0;
    while answer.first() == Some(&0x0a) {
        let Some(mut result) = delimited(&mut answer, 0x0a) else { return false };
        if !delimited(&mut result, 0x0a).is_some_and(is_active) {
            return false;
        }
        results += 1;
    }
    results > 0
}

fn is_anything(_: &[u8]) -> bool {
    true
}
