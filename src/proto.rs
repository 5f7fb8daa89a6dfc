//! The messages and services of `proto/token_authority/v1`, generated.
//!
//! Messages that can hold a secret have a `Debug` that shows nothing of it.

/// Package `token_authority.v1`.
#[expect(
    clippy::all,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]
pub mod v1 {
    tonic::include_proto!("token_authority.v1");
    include!(concat!(env!("OUT_DIR"), "/redacted.rs"));
}

/// The messages of Verification of which thousands come on one call, and its service by
/// them: the questions and answers in them are left as they are encoded.
#[cfg(feature = "server")]
#[expect(
    clippy::all,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    unreachable_pub,
    reason = "generated"
)]
pub(crate) mod encoded {
    include!(concat!(env!("OUT_DIR"), "/encoded/token_authority.v1.rs"));
    include!(concat!(env!("OUT_DIR"), "/encoded/redacted.rs"));
}

/// The descriptors of all services, as reflection serves them.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
