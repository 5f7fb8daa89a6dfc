use std::{ops::Range, time::Duration};

use prost::Message as _;

use super::reader::Reader;
use crate::{
    domain::{Found, Reason, Timestamp},
    grpc::{to_timestamp, verification},
    proto::v1 as proto,
    verifier::Encoded,
};

/// The fields of an answer that are not kept, by their numbers.
const REASON: u64 = 2;
const REFUSAL: u64 = 13;
const REVISION: u64 = 61;
const MAX_AGE: u64 = 62;
const STALE: u64 = 63;

/// The kinds of field that answers have.
const VARINT: u64 = 0;
const BYTES: u64 = 2;

/// The answer about `found` as if it is active, without what [`tail`] appends.
pub(crate) fn encode_active(found: &Found) -> Encoded {
    let bytes = verification::active(found).encode_to_vec();
    let place = |wanted| {
        let mut fields = Fields::of(&bytes);
        fields.find(|(number, _)| *number == wanted).map_or(0..0, |(_, range)| {
            // Before them stand ids and names of at most 255 characters.
            let place = |at: usize| u16::try_from(at).expect("ids are near the beginning");
            place(range.start)..place(range.end)
        })
    };
    Encoded { id: place(3), workspace_id: place(9), bytes }
}

/// What `kept`, which [`encode_active`] gave, says.
pub(crate) fn active_message(kept: &[u8]) -> proto::VerifyResponse {
    proto::VerifyResponse::decode(kept).expect("it was encoded here")
}

/// Appends what varies with each call.
pub(crate) fn tail(revision: &str, max_age: Option<Duration>, stale: bool, out: &mut Vec<u8>) {
    if !revision.is_empty() {
        bytes(REVISION, revision.as_bytes(), out);
    }
    if let Some(max_age) = max_age {
        nested(MAX_AGE, out, |out| {
            number(1, max_age.as_secs(), out);
            number(2, max_age.subsec_nanos().into(), out);
        });
    }
    number(STALE, stale.into(), out);
}

/// Appends the refusal, for this reason, of the token that `kept` is about, which
/// [`encode_active`] gave.
pub(crate) fn refusal(
    kept: &[u8],
    reason: &Reason,
    revoked_at: Option<Timestamp>,
    out: &mut Vec<u8>,
) {
    number(REASON, reason_number(reason), out);
    if *reason == Reason::NotFound {
        return;
    }
    nested(REFUSAL, out, |out| {
        for (field, range) in Fields::of(kept) {
            let held = &kept[range];
            match field {
                3 => bytes(1, held, out),
                4 => {
                    key(2, VARINT, out);
                    out.extend_from_slice(held);
                }
                5 => bytes(3, held, out),
                12 => bytes(4, held, out),
                _ => {}
            }
        }
        if let Some(revoked_at) = revoked_at {
            bytes(5, &to_timestamp(revoked_at).encode_to_vec(), out);
        }
        for scope in reason.missing_scopes() {
            bytes(6, scope.as_bytes(), out);
        }
    });
}

/// Appends that a token proves nothing that the asker may know of.
pub(crate) fn not_found(out: &mut Vec<u8>) {
    number(REASON, reason_number(&Reason::NotFound), out);
}

fn reason_number(reason: &Reason) -> u64 {
    u64::from(verification::reason_message(reason) as u32)
}

/// The fields of a message: the number of each, and where what it holds stands.
struct Fields<'a> {
    length: usize,
    rest: Reader<'a>,
}

impl<'a> Fields<'a> {
    fn of(message: &'a [u8]) -> Self {
        Self { length: message.len(), rest: Reader(message) }
    }
}

impl Iterator for Fields<'_> {
    type Item = (u64, Range<usize>);

    fn next(&mut self) -> Option<Self::Item> {
        let key = self.rest.varint()?;
        let after_key = self.rest.0.len();
        let held = match key & 7 {
            VARINT => {
                self.rest.varint()?;
                after_key - self.rest.0.len()
            }
            BYTES => self.rest.bytes()?.len(),
            _ => return None,
        };
        let end = self.length - self.rest.0.len();
        Some((key >> 3, end - held..end))
    }
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

fn key(field: u64, kind: u64, out: &mut Vec<u8>) {
    varint(field << 3 | kind, out);
}

/// Appends a number, unless it is 0, which goes without saying.
fn number(field: u64, value: u64, out: &mut Vec<u8>) {
    if value != 0 {
        key(field, VARINT, out);
        varint(value, out);
    }
}

fn bytes(field: u64, held: &[u8], out: &mut Vec<u8>) {
    nested(field, out, |out| out.extend_from_slice(held));
}

/// Appends a message, which `inner` appends.
fn nested(field: u64, out: &mut Vec<u8>, inner: impl FnOnce(&mut Vec<u8>)) {
    key(field, BYTES, out);
    let begin = out.len();
    inner(out);
    let end = out.len();
    // Its length, which is known only now, belongs before it.
    varint((end - begin) as u64, out);
    let length = out.len() - end;
    out[begin..].rotate_right(length);
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};

    use super::*;
    use crate::domain::{
        AllowedIps, Credential, CredentialId, Detail, ExternalId, Organization, Owner, Secret,
        SecretState, UserId, Workspace, WorkspaceBinding,
    };

    fn instant() -> impl Strategy<Value = Option<Timestamp>> {
        let micros = prop_oneof![
            1 => Just(0),
            1 => -62_135_596_800_000_000..0i64,
            3 => 0..253_402_300_800_000_000i64,
            1 => (0..10_000i64).prop_map(|seconds| seconds * 1_000_000),
        ];
        option::of(micros.prop_map(|micros| Timestamp::from_micros(micros).unwrap()))
    }

    fn external_id() -> impl Strategy<Value = Option<ExternalId>> {
        option::of("[a-zé日]{1,80}".prop_map(|text| text.parse().unwrap()))
    }

    fn workspace() -> impl Strategy<Value = Option<Workspace>> {
        let ids = ("[0-9a-f-]{1,36}", "[0-9a-f-]{1,36}");
        option::of((ids, external_id(), external_id()).prop_map(
            |((id, organization_id), external_id, external_organization_id)| Workspace {
                id,
                external_id,
                is_active: true,
                organization: Organization {
                    id: organization_id,
                    external_id: external_organization_id,
                    is_active: true,
                },
            },
        ))
    }

    fn detail() -> impl Strategy<Value = Detail> {
        prop_oneof![
            Just(Detail::PersonalAccessToken {
                name: "ci".parse().unwrap(),
                description: "".parse().unwrap(),
            }),
            Just(Detail::ApiClientAuthorization { api_client_id: None, created_by_ip: None }),
            Just(Detail::SystemRoot),
        ]
    }

    fn found() -> impl Strategy<Value = Found> {
        let times = (instant(), instant(), instant());
        let texts = ("[0-9a-f-]{0,140}", "[0-9a-z]{15}", vec(".{0,200}", 0..12));
        (texts, times, external_id(), workspace(), detail()).prop_map(
            |((id, user, scopes), times, external_id, workspace, detail)| {
                let user: UserId = format!("zzzzz-tpzed-{user}").parse().unwrap();
                let (expires_at, overlap, revoked_at) = times;
                Found {
                    credential: Credential {
                        id: CredentialId(id),
                        user_id: user.clone(),
                        workspace: workspace.as_ref().map(|workspace| WorkspaceBinding {
                            workspace_id: workspace.id.clone(),
                            organization_id: workspace.organization.id.clone(),
                            membership_id: "m".to_owned(),
                        }),
                        scopes,
                        allowed_ips: AllowedIps::default(),
                        created_at: Timestamp::MIN,
                        updated_at: Timestamp::MIN,
                        expires_at,
                        revoked_at,
                        ended: false,
                        created_by_user_id: user.clone(),
                        created_by_token_id: None,
                        detail,
                    },
                    secret: Secret {
                        id: "s".to_owned(),
                        state: SecretState::Current,
                        shown: String::new(),
                        created_at: Timestamp::MIN,
                        expires_at: overlap,
                        proved_at: None,
                        pepper_id: None,
                        reuse_noted: false,
                    },
                    owner: Owner {
                        id: user,
                        external_id,
                        handle: "alice".to_owned(),
                        is_admin: false,
                        is_active: true,
                    },
                    workspace,
                    required_organization_id: None,
                    member_of_required: false,
                    member_of_askers: false,
                }
            },
        )
    }

    fn reason() -> impl Strategy<Value = Reason> {
        prop_oneof![
            Just(Reason::NotFound),
            Just(Reason::Expired),
            Just(Reason::Revoked),
            Just(Reason::OwnerInactive),
            Just(Reason::WorkspaceInactive),
            Just(Reason::WrongWorkspace),
            Just(Reason::IpNotAllowed),
            vec("[a-z]{1,20}:[a-z]{0,80}", 0..5).prop_map(Reason::InsufficientScope),
        ]
    }

    fn refused(reason: &Reason, found: &Found) -> proto::VerifyResponse {
        let refusal = proto::Refusal {
            token_id: found.credential.id.0.clone(),
            kind: verification::active(found).kind,
            user_id: found.owner.id.to_string(),
            expires_at: found.expires_at().map(to_timestamp),
            revoked_at: found.credential.revoked_at.map(to_timestamp),
            missing_scopes: reason.missing_scopes().to_vec(),
        };
        proto::VerifyResponse {
            reason: verification::reason_message(reason).into(),
            refusal: (*reason != Reason::NotFound).then_some(refusal),
            ..Default::default()
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn kept_answer_is_what_the_generated_code_encodes(found in found()) {
            let kept = encode_active(&found);
            prop_assert_eq!(active_message(&kept.bytes), verification::active(&found));
            let text = |range: &Range<u16>| {
                std::str::from_utf8(&kept.bytes[usize::from(range.start)..usize::from(range.end)])
                    .unwrap()
            };
            prop_assert_eq!(text(&kept.id), &found.credential.id.0);
            let workspace = found.workspace.as_ref().map_or("", |workspace| &workspace.id);
            prop_assert_eq!(text(&kept.workspace_id), workspace);
        }

        #[test]
        fn refusal_is_what_the_generated_code_encodes(found in found(), reason in reason()) {
            let mut out = vec![7];
            let kept = encode_active(&found).bytes;
            refusal(&kept, &reason, found.credential.revoked_at, &mut out);
            prop_assert_eq!(&out[1..], refused(&reason, &found).encode_to_vec());
        }

        #[test]
        fn tail_is_what_the_generated_code_encodes(
            revision in "[0-9]{0,200}",
            max_age in option::of((prop_oneof![Just(0), 0..1_000_000u64], prop_oneof![Just(0), 0..1_000_000_000u32])),
            stale: bool,
        ) {
            let mut out = vec![7];
            let duration = max_age.map(|(seconds, nanos)| Duration::new(seconds, nanos));
            tail(&revision, duration, stale, &mut out);
            let max_age = max_age.map(|(seconds, nanos)| prost_types::Duration {
                seconds: seconds.try_into().unwrap(),
                nanos: nanos.try_into().unwrap(),
            });
            let message = proto::VerifyResponse { revision, max_age, stale, ..Default::default() };
            prop_assert_eq!(&out[1..], message.encode_to_vec());
        }
    }

    #[test]
    fn not_found_is_what_the_generated_code_encodes() {
        let mut out = Vec::new();
        not_found(&mut out);
        let reason = proto::Reason::NotFound.into();
        let message = proto::VerifyResponse { reason, ..Default::default() };
        assert_eq!(out, message.encode_to_vec());
    }
}
