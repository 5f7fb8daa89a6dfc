//! The messages of Verify by hand, for the questions that are asked most: a question
//! borrowed from the bytes that it came in, and answers made of what is kept encoded.
//!
//! What stands here says and takes what the generated code does, byte for byte. What
//! is unusual is not taken here, and the generated code decides on it.

mod answer;
mod question;
mod reader;

pub(crate) use answer::{active_message, encode_active, not_found, refusal, tail};
pub(crate) use question::Question;

/// The message of a body that is one frame of gRPC, not compressed, and nothing else;
/// `None` too of one that is larger than a request may be.
pub(crate) fn frame(body: &[u8]) -> Option<&[u8]> {
    let (header, message) = body.split_first_chunk::<5>()?;
    let [compressed, length @ ..] = *header;
    let length = usize::try_from(u32::from_be_bytes(length)).ok()?;
    (compressed == 0 && length == message.len() && length <= super::MAX_REQUEST).then_some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_is_the_whole_body() {
        assert_eq!(frame(&[0, 0, 0, 0, 2, 7, 8]), Some(&[7, 8][..]));
        assert_eq!(frame(&[0, 0, 0, 0, 0]), Some(&[][..]));
        for body in
            [&[][..], &[0, 0, 0, 0], &[1, 0, 0, 0, 1, 7], &[0, 0, 0, 0, 1], &[0, 0, 0, 0, 0, 7]]
        {
            assert_eq!(frame(body), None, "{body:?}");
        }
        let of_length = |length: u32| {
            let mut body = vec![0];
            body.extend(length.to_be_bytes());
            body.resize(5 + length as usize, 0);
            frame(&body).is_some()
        };
        assert!(of_length(64 * 1024));
        assert!(!of_length(64 * 1024 + 1));
    }
}
