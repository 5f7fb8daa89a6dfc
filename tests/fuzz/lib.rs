//! What is true of each parser of outside text or bytes, whatever it is given.

#[path = "../../src/domain/mod.rs"]
pub mod domain;
#[path = "../../src/grpc/wire/question.rs"]
mod question;
#[path = "../../src/grpc/wire/reader.rs"]
mod reader;

/// The generated messages.
pub mod proto {
    /// Package `token_authority.v1`.
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/token_authority.v1.rs"));
    }
}

use domain::{SaltedToken, Token, TokenRef};
use prost::Message as _;
use proto::v1::VerifyRequest;
use question::Question;

/// A text is a token or is not, and what is one says the same of itself borrowed, kept
/// and parsed again.
pub fn token(text: &str) {
    let _ = text.parse::<SaltedToken>();
    let kept = text.parse::<Token>();
    let Some(borrowed) = TokenRef::parse(text) else {
        assert!(kept.is_err());
        return;
    };
    let kept = kept.expect("it is one");
    assert!(text.contains(borrowed.expose()));
    assert!(borrowed.expose().starts_with(borrowed.shown()));
    assert_eq!(borrowed.expose(), kept.expose());
    assert_eq!(borrowed.uuid(), kept.borrowed().uuid());
    assert_eq!(borrowed.pat_prefix(), kept.pat_prefix());
    let alone = TokenRef::parse(borrowed.expose()).expect("a secret is a token");
    assert_eq!(alone.kind(), borrowed.kind());
}

/// A question that is decoded by hand is the one that the generated code decodes, and no
/// bytes make it panic.
pub fn question(message: &[u8]) {
    let generated = VerifyRequest::decode(message);
    let Some(question) = Question::decode(message) else { return };
    let request = generated.as_ref().expect("the generated code takes it too");
    assert!(request.consistency.is_none());
    assert!(question == Question::of(request));
    let _ = question.requirement();
}
