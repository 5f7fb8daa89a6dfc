use std::fmt::Arguments;

use smallvec::SmallVec;

use super::reader::Reader;
use crate::{
    domain::{Kind, Requirement, Route, may_be_workspace_id},
    proto::v1 as proto,
};

/// A `VerifyRequest` but for its `consistency`, borrowed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Question<'a> {
    pub(crate) token: &'a str,
    required_scopes: SmallVec<[&'a str; 8]>,
    request_method: Option<&'a str>,
    request_path: Option<&'a str>,
    workspace_id: Option<&'a str>,
    client_ip: Option<&'a str>,
    kinds: SmallVec<[i32; 4]>,
}

impl<'a> Question<'a> {
    /// The question in a message of the usual form: fields that are known, each but
    /// the lists at most once, without `consistency`. `None` of what has another form,
    /// or is no message: the generated code decides on that.
    pub(crate) fn decode(message: &'a [u8]) -> Option<Self> {
        let mut rest = Reader(message);
        let (mut required_scopes, mut kinds) = (SmallVec::new(), SmallVec::new());
        // By number, those that are there once.
        let mut texts: [Option<&str>; 7] = [None; 7];
        while !rest.is_empty() {
            let key = rest.varint()?;
            let number = usize::try_from(key >> 3).ok()?;
            match (number, key & 7) {
                (1 | 3..=6, 2) if texts[number].is_none() => texts[number] = Some(rest.text()?),
                (2, 2) => required_scopes.push(rest.text()?),
                (7, 0) => kinds.push(kind_number(&mut rest)?),
                (7, 2) => {
                    let mut packed = Reader(rest.bytes()?);
                    while !packed.is_empty() {
                        kinds.push(kind_number(&mut packed)?);
                    }
                }
                _ => return None,
            }
        }
        let [_, token, _, request_method, request_path, workspace_id, client_ip] = texts;
        Some(Self {
            token: token.unwrap_or_default(),
            required_scopes,
            request_method,
            request_path,
            workspace_id,
            client_ip,
            kinds,
        })
    }

    /// The question that the generated code has decoded.
    pub(crate) fn of(request: &'a proto::VerifyRequest) -> Self {
        Self {
            token: &request.token,
            required_scopes: request.required_scopes.iter().map(String::as_str).collect(),
            request_method: request.request_method.as_deref(),
            request_path: request.request_path.as_deref(),
            workspace_id: request.workspace_id.as_deref(),
            client_ip: request.client_ip.as_deref(),
            kinds: SmallVec::from_slice(&request.kinds),
        }
    }

    /// What the token must be good for; `None` if anything is wrong with the question.
    pub(crate) fn requirement(&self) -> Option<Requirement<'a>> {
        let mut is_right = true;
        let requirement = self.check(&mut |_, _| is_right = false);
        is_right.then_some(requirement)
    }

    /// What the token must be good for. What is wrong with the question is told to
    /// `wrong`, a field and the reason each time; then it means nothing.
    pub(crate) fn check(
        &self,
        wrong: &mut impl FnMut(Arguments<'_>, Arguments<'_>),
    ) -> Requirement<'a> {
        if self.token.is_empty() {
            wrong(format_args!("token"), format_args!("must not be empty"));
        }
        let mut requirement = Requirement {
            route: self.route(wrong),
            client_ip: self.client_ip.and_then(|text| text.parse().ok()),
            workspace_id: self.workspace_id,
            ..Requirement::default()
        };
        if self.client_ip.is_some() && requirement.client_ip.is_none() {
            wrong(format_args!("client_ip"), format_args!("must be an IP address"));
        }
        if self.workspace_id.is_some_and(|id| !may_be_workspace_id(id)) {
            wrong(format_args!("workspace_id"), format_args!("must be the id of a workspace"));
        }
        for (at, text) in self.required_scopes.iter().enumerate() {
            if let Err(error) = requirement.require(text) {
                wrong(format_args!("required_scopes[{at}]"), format_args!("{error}"));
            }
        }
        for (at, number) in self.kinds.iter().enumerate() {
            match kind(*number) {
                Some(kind) => requirement.kinds.insert(kind),
                None => wrong(format_args!("kinds[{at}]"), format_args!("is not a kind of token")),
            }
        }
        requirement
    }

    fn route(&self, wrong: &mut impl FnMut(Arguments<'_>, Arguments<'_>)) -> Option<Route<'a>> {
        let (method, path) = match (self.request_method, self.request_path) {
            (None, None) => return None,
            (Some(method), Some(path)) => (method, path),
            (Some(_), None) => {
                let reason = format_args!("must be set where request_method is");
                wrong(format_args!("request_path"), reason);
                return None;
            }
            (None, Some(_)) => {
                let reason = format_args!("must be set where request_path is");
                wrong(format_args!("request_method"), reason);
                return None;
            }
        };
        let route = Route { method, path };
        let checks =
            [("request_method", route.check_method()), ("request_path", route.check_path())];
        let mut is_right = true;
        for (field, check) in checks {
            if let Err(error) = check {
                is_right = false;
                wrong(format_args!("{field}"), format_args!("{error}"));
            }
        }
        is_right.then_some(route)
    }
}

fn kind_number(rest: &mut Reader<'_>) -> Option<i32> {
    i32::try_from(rest.varint()?).ok()
}

fn kind(number: i32) -> Option<Kind> {
    match proto::TokenKind::try_from(number) {
        Ok(proto::TokenKind::PersonalAccessToken) => Some(Kind::PersonalAccessToken),
        Ok(proto::TokenKind::ApiClientAuthorization) => Some(Kind::ApiClientAuthorization),
        Ok(proto::TokenKind::SystemRoot) => Some(Kind::SystemRoot),
        Ok(proto::TokenKind::Unspecified) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};
    use prost::Message as _;

    use super::*;

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            4 => "[a-z/:_*.0-9]{0,40}",
            1 => ".{0,200}",
            1 => Just("read:notes".to_owned()),
            1 => Just("10.0.0.1".to_owned()),
        ]
    }

    fn request() -> impl Strategy<Value = proto::VerifyRequest> {
        let consistency = prop_oneof![
            9 => Just(None),
            1 => Just(Some(proto::Consistency::default())),
        ];
        let texts =
            (option::of(text()), option::of(text()), option::of(text()), option::of(text()));
        let kinds = vec(prop_oneof![0..5i32, any::<i32>()], 0..6);
        (text(), vec(text(), 0..12), texts, kinds, consistency).prop_map(
            |(token, required_scopes, texts, kinds, consistency)| {
                let (request_method, request_path, workspace_id, client_ip) = texts;
                proto::VerifyRequest {
                    token,
                    required_scopes,
                    request_method,
                    request_path,
                    workspace_id,
                    client_ip,
                    kinds,
                    consistency,
                }
            },
        )
    }

    /// What is decoded here is what the generated code decodes.
    fn agrees(message: &[u8]) -> bool {
        let generated = proto::VerifyRequest::decode(message);
        let Some(question) = Question::decode(message) else { return true };
        let _ = question.requirement();
        generated
            .as_ref()
            .is_ok_and(|request| request.consistency.is_none() && question == Question::of(request))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn usual_question_is_decoded_as_the_generated_code_does(request in request()) {
            let message = request.encode_to_vec();
            let is_usual = request.consistency.is_none() && request.kinds.iter().all(|kind| *kind >= 0);
            prop_assert_eq!(Question::decode(&message).is_some(), is_usual);
            prop_assert!(agrees(&message));
        }

        #[test]
        fn garbled_question_is_decoded_as_the_generated_code_does_or_not_at_all(
            request in request(),
            changes in vec((any::<proptest::sample::Index>(), any::<u8>(), 0..3u8), 1..6),
            more in vec(any::<u8>(), 0..8),
        ) {
            let mut message = request.encode_to_vec();
            message.extend(more);
            for (at, byte, how) in changes {
                if message.is_empty() {
                    break;
                }
                let at = at.index(message.len());
                match how {
                    0 => message[at] = byte,
                    1 => message.insert(at, byte),
                    _ => message.truncate(at),
                }
            }
            prop_assert!(agrees(&message));
        }

        #[test]
        fn numbers_and_keys_are_decoded_as_the_generated_code_does(
            message in vec(prop_oneof![0..0x48u8, Just(0x80), Just(0x81), any::<u8>()], 0..24),
        ) {
            prop_assert!(agrees(&message));
        }
    }

    #[test]
    fn unusual_forms_are_left_to_the_generated_code() {
        for message in [
            // A field twice, one that is not known, one of another type.
            &[0x0a, 1, b'a', 0x0a, 1, b'b'][..],
            &[0x2a, 0, 0x2a, 0],
            &[0x50, 1],
            &[0x08, 1],
            &[0x42, 0],
            &[0x12, 1, 0xff],
            &[0x38, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
            &[0x3a, 1, 0x80],
            &[0x0a, 2, b'a'],
        ] {
            assert!(Question::decode(message).is_none(), "{message:?}");
        }
        let kinds = Question::decode(&[0x38, 1, 0x3a, 2, 2, 3, 0x38, 1]).unwrap().kinds;
        assert_eq!(&kinds[..], [1, 2, 3, 1]);
    }
}
