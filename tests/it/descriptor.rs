use std::{collections::BTreeSet, fmt::Debug, fs, path::Path};

use prost::Message;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor,
    MethodDescriptor, Value,
};
use token_authority::{
    proto::{DESCRIPTORS, v1},
    rights,
};
use tonic::Code;

use crate::support::{Engine, server::TestServer};

const PACKAGE: &str = "token_authority.v1";

fn pool() -> DescriptorPool {
    DescriptorPool::decode(DESCRIPTORS).unwrap()
}

fn methods(pool: &DescriptorPool) -> Vec<MethodDescriptor> {
    let methods: Vec<_> = pool
        .services()
        .filter(|service| service.package_name() == PACKAGE)
        .flat_map(|service| service.methods().collect::<Vec<_>>())
        .collect();
    assert!(methods.len() > 50, "{} methods", methods.len());
    methods
}

/// `Service/Method`.
fn name(method: &MethodDescriptor) -> String {
    format!("{}/{}", method.parent_service().name(), method.name())
}

fn is_redacted(field: &FieldDescriptor) -> bool {
    let redact = field.options().get_field_by_name("debug_redact").map(|value| value.as_bool());
    redact.flatten().unwrap_or(false)
}

/// A message and all that it can hold.
fn reachable(message: MessageDescriptor) -> Vec<MessageDescriptor> {
    let mut found = vec![message];
    let mut at = 0;
    while at < found.len() {
        for field in found[at].clone().fields() {
            if let Kind::Message(inner) = field.kind()
                && !found.contains(&inner)
            {
                found.push(inner);
            }
        }
        at += 1;
    }
    found
}

#[test]
fn secret_is_in_no_answer_but_those_that_hand_it_out() {
    let pool = pool();
    let handing_out: BTreeSet<String> = methods(&pool)
        .into_iter()
        .flat_map(|method| reachable(method.output()))
        .flat_map(|message| message.fields().collect::<Vec<_>>())
        .filter(is_redacted)
        .map(|field| field.full_name().replace("token_authority.v1.", ""))
        .collect();
    let expected = [
        "ApiClientAuthorization.api_token",
        "CreatePersonalAccessTokenResponse.token",
        "RotatePersonalAccessTokenResponse.token",
        "WorkspaceCreatePatResponse.token",
    ];
    assert_eq!(handing_out, expected.map(ToOwned::to_owned).into());
}

#[test]
fn every_field_that_can_hold_a_token_is_redacted() {
    let pool = pool();
    let mut found = 0;
    for method in methods(&pool) {
        for message in [method.input(), method.output()].into_iter().flat_map(reachable) {
            if message.package_name() != PACKAGE {
                continue;
            }
            for field in message.fields().filter(can_hold_a_token) {
                assert!(is_redacted(&field), "{} is not debug_redact", field.full_name());
                found += 1;
            }
        }
    }
    assert!(found >= 9, "only {found} fields were found");
}

/// By its name, or because it can hold whatever a caller likes.
fn can_hold_a_token(field: &FieldDescriptor) -> bool {
    if let Kind::Message(inner) = field.kind() {
        let free = ["google.protobuf.Value", "google.protobuf.Struct", "google.protobuf.Any"];
        return free.contains(&inner.full_name()) || inner.name() == "TokenTexts";
    }
    let name = field.name();
    let last_word = name.split('_').next_back().unwrap_or_default();
    let words = ["token", "tokens", "text", "texts", "secret", "secrets", "password"];
    let named = words.contains(&last_word) && !name.ends_with("page_token");
    let is_text = matches!(field.kind(), Kind::String | Kind::Bytes);
    is_text && (named || field.parent_message().name() == "TokenTexts")
}

/// The messages that have a redacted field themselves.
fn messages_with_secrets(pool: &DescriptorPool) -> BTreeSet<String> {
    pool.all_messages()
        .filter(|message| message.package_name() == PACKAGE)
        .filter(|message| message.fields().any(|field| is_redacted(&field)))
        .map(|message| message.name().to_owned())
        .collect()
}

/// What a secret field is filled with.
const SECRET: &str = "pat_yhjskwdA6OZ1AL1YmHWZWm8LLG7HjnuCA2j5rOw8Xp13oiRF4";

#[test]
fn debug_of_a_message_with_a_secret_shows_nothing_of_it() {
    let pool = pool();
    let mut shown = BTreeSet::new();
    macro_rules! check {
        ($($message:ident),* $(,)?) => {$(
            check_debug::<v1::$message>(&pool, stringify!($message));
            shown.insert(stringify!($message).to_owned());
        )*};
    }
    check![
        ApiClientAuthorization,
        CreatePersonalAccessTokenResponse,
        Filter,
        IdentifyTokensRequest,
        ListApiClientAuthorizationsRequest,
        RevokeCredentialsRequest,
        RotatePersonalAccessTokenResponse,
        TokenTexts,
        VerifyRequest,
        WorkspaceCreatePatResponse,
    ];
    assert_eq!(shown, messages_with_secrets(&pool));
    // And within others.
    macro_rules! check_around {
        ($($message:ident),* $(,)?) => {$(
            check_debug::<v1::$message>(&pool, stringify!($message));
        )*};
    }
    check_around![
        BatchVerifyRequest,
        CreateApiClientAuthorizationResponse,
        CreateSystemAuthResponse,
        DeleteApiClientAuthorizationResponse,
        GetApiClientAuthorizationResponse,
        GetCurrentApiClientAuthorizationResponse,
        ListApiClientAuthorizationsResponse,
        StreamVerifyRequest,
        UpdateApiClientAuthorizationResponse,
    ];
}

/// Fills every text in a message, at any depth, and looks for it in its `Debug`.
fn check_debug<M: Message + Default + Debug>(pool: &DescriptorPool, name: &str) {
    let descriptor = pool.get_message_by_name(&format!("{PACKAGE}.{name}")).unwrap();
    let mut holds = false;
    for oneof_branch in 0..3 {
        let filled = filled(descriptor.clone(), oneof_branch, 0).encode_to_vec();
        holds |= filled.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
        let message = M::decode(&*filled).unwrap();
        let debug = format!("{message:?} {message:#?}");
        assert!(!debug.contains(SECRET), "{name}: {debug}");
    }
    assert!(holds, "{name} was not filled");
}

fn filled(descriptor: MessageDescriptor, oneof_branch: usize, depth: usize) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    for field in descriptor.fields() {
        let branch = field.containing_oneof().map(|oneof| {
            let count = oneof.fields().count();
            oneof.fields().nth(oneof_branch % count) == Some(field.clone())
        });
        if branch == Some(false) || depth > 3 {
            continue;
        }
        let holds_secret = is_redacted(&field) || of_free_form(&field);
        let value = if let Kind::Message(inner) = field.kind() {
            if field.is_map() {
                let Kind::Message(value) = inner.map_entry_value_field().kind() else { continue };
                let key = MapKey::String(SECRET.to_owned());
                let value = Value::Message(filled(value, 3, depth + 1));
                message.set_field(&field, Value::Map([(key, value)].into()));
                continue;
            }
            // The third branch of a free value is its text.
            let branch = if inner.name() == "Value" { 2 } else { oneof_branch };
            Value::Message(filled(inner, branch, depth + 1))
        } else if field.kind() == Kind::String && holds_secret {
            Value::String(SECRET.to_owned())
        } else {
            continue;
        };
        let value = if field.is_list() { Value::List(vec![value]) } else { value };
        message.set_field(&field, value);
    }
    message
}

/// A text in a message that can hold whatever a caller likes.
fn of_free_form(field: &FieldDescriptor) -> bool {
    field.parent_message().package_name() == "google.protobuf"
}

#[test]
fn every_rpc_of_the_descriptor_has_a_row() {
    let rights: BTreeSet<_> = rights::ALL.iter().map(|right| right.path.to_owned()).collect();
    let methods: BTreeSet<_> =
        methods(&pool()).iter().map(|method| format!("/{PACKAGE}.{}", name(method))).collect();
    assert_eq!(rights, methods);
    assert_eq!(rights.len(), rights::ALL.len(), "an RPC has two rows");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_served_is_what_the_readme_names() {
    let server = TestServer::start(Engine::Sqlite).await;
    let mut not_served = BTreeSet::new();
    for method in methods(&pool()) {
        let name = name(&method);
        let answer = server.call(&format!("/{PACKAGE}.{name}"), Some(&server.admin)).await;
        if answer.is_err_and(|status| status.code() == Code::Unimplemented) {
            not_served.insert(name);
        }
    }
    assert_eq!(not_served_by_the_readme(), not_served);
    server.stop().await;
}

/// The lines ``- `Service/Method` `` below its heading `## Not served yet`.
fn not_served_by_the_readme() -> BTreeSet<String> {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = fs::read_to_string(readme).unwrap();
    readme
        .lines()
        .skip_while(|line| *line != "## Not served yet")
        .skip(1)
        .take_while(|line| !line.starts_with("## "))
        .filter_map(|line| line.strip_prefix("- `")?.strip_suffix('`'))
        .map(ToOwned::to_owned)
        .collect()
}
