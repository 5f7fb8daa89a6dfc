use super::*;
use crate::domain::{AllowedIps, CredentialId, Detail, WorkspaceBinding};

const NOW: i64 = 1_000_000;

fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros).unwrap()
}

fn user() -> UserId {
    "zzzzz-tpzed-000000000000001".parse().unwrap()
}

fn found(scopes: &[&str]) -> Found {
    Found {
        credential: Credential {
            id: CredentialId("1".to_owned()),
            user_id: user(),
            workspace: None,
            scopes: scopes.iter().map(ToString::to_string).collect(),
            allowed_ips: AllowedIps::default(),
            created_at: at(0),
            updated_at: at(0),
            expires_at: None,
            revoked_at: None,
            ended: false,
            created_by_user_id: user(),
            created_by_token_id: None,
            detail: Detail::PersonalAccessToken {
                name: "ci".parse().unwrap(),
                description: "".parse().unwrap(),
            },
        },
        secret: Secret {
            id: "s".to_owned(),
            state: SecretState::Current,
            shown: "pat_00000000".to_owned(),
            created_at: at(0),
            expires_at: None,
            proved_at: None,
            pepper_id: None,
            reuse_noted: false,
        },
        owner: Owner {
            id: user(),
            external_id: None,
            handle: "alice".to_owned(),
            is_admin: false,
            is_active: true,
        },
        workspace: None,
        required_organization_id: None,
        member_of_required: false,
        member_of_askers: false,
    }
}

fn bound() -> Found {
    let mut bound = found(&[]);
    bound.credential.workspace = Some(WorkspaceBinding {
        workspace_id: "w".to_owned(),
        organization_id: "o".to_owned(),
        membership_id: "m".to_owned(),
    });
    let organization = Organization { id: "o".to_owned(), external_id: None, is_active: true };
    let workspace =
        Workspace { id: "w".to_owned(), external_id: None, is_active: true, organization };
    bound.workspace = Some(workspace);
    bound
}

fn reason(found: &Found, requirement: &Requirement<'_>) -> Option<Reason> {
    match found.verdict(requirement, at(NOW)) {
        Verdict::Active => None,
        Verdict::Refused(reason) => Some(reason),
    }
}

fn anything() -> Requirement<'static> {
    Requirement::default()
}

fn requiring<'a>(texts: &[&'a str]) -> Requirement<'a> {
    let mut requirement = Requirement::default();
    texts.iter().for_each(|text| requirement.require(text).unwrap());
    requirement
}

#[test]
fn token_is_expired_from_its_expires_at_on() {
    let mut token = found(&[]);
    token.credential.expires_at = Some(at(NOW + 1));
    assert_eq!(reason(&token, &anything()), None);
    token.credential.expires_at = Some(at(NOW));
    assert_eq!(reason(&token, &anything()), Some(Reason::Expired));
    token.credential.revoked_at = Some(at(NOW + 5));
    assert_eq!(reason(&token, &anything()), Some(Reason::Revoked));
}

#[test]
fn token_made_in_the_future_is_good() {
    let mut token = found(&[]);
    token.credential.created_at = at(NOW + 1_000_000);
    assert_eq!(reason(&token, &anything()), None);
}

#[test]
fn replaced_secret_is_expired() {
    let mut superseded = found(&[]);
    superseded.secret.state = SecretState::Superseded;
    assert_eq!(reason(&superseded, &anything()), Some(Reason::Expired));
    let mut overlap = found(&[]);
    overlap.secret.expires_at = Some(at(NOW));
    assert_eq!(reason(&overlap, &anything()), Some(Reason::Expired));
    overlap.secret.expires_at = Some(at(NOW + 1));
    assert_eq!(reason(&overlap, &anything()), None);
}

#[test]
fn revoked_with_others_is_revoked_though_it_would_have_expired() {
    let mut token = found(&[]);
    token.credential.ended = true;
    assert_eq!(reason(&token, &anything()), Some(Reason::Revoked));
    token.credential.expires_at = Some(at(0));
    assert_eq!(reason(&token, &anything()), Some(Reason::Revoked));
}

#[test]
fn inactive_owner_workspace_or_organization_refuses() {
    let mut owner = found(&["admin:all"]);
    owner.owner.is_active = false;
    assert_eq!(reason(&owner, &anything()), Some(Reason::OwnerInactive));
    let mut workspace = bound();
    workspace.workspace.as_mut().unwrap().is_active = false;
    assert_eq!(reason(&workspace, &anything()), Some(Reason::WorkspaceInactive));
    let mut organization = bound();
    organization.workspace.as_mut().unwrap().organization.is_active = false;
    assert_eq!(reason(&organization, &anything()), Some(Reason::WorkspaceInactive));
}

#[test]
fn bound_token_serves_in_its_workspace_alone_and_unbound_where_its_owner_is_a_member() {
    let required =
        |id: &'static str| Requirement { workspace_id: Some(id), ..Requirement::default() };
    assert_eq!(reason(&bound(), &required("w")), None);
    assert_eq!(reason(&bound(), &required("v")), Some(Reason::WrongWorkspace));
    let mut unbound = found(&[]);
    assert_eq!(reason(&unbound, &required("w")), Some(Reason::WrongWorkspace));
    unbound.member_of_required = true;
    assert_eq!(reason(&unbound, &required("w")), None);
}

#[test]
fn bound_asker_learns_nothing_beyond_its_workspace() {
    let asker =
        |id: &'static str| Requirement { askers_workspace_id: Some(id), ..Requirement::default() };
    assert_eq!(reason(&bound(), &asker("w")), None);
    let mut revoked = bound();
    revoked.credential.revoked_at = Some(at(0));
    assert_eq!(reason(&revoked, &asker("v")), Some(Reason::NotFound));
    let mut unbound = found(&[]);
    assert_eq!(reason(&unbound, &asker("w")), Some(Reason::NotFound));
    unbound.member_of_askers = true;
    assert_eq!(reason(&unbound, &asker("w")), None);
    unbound.member_of_required = true;
    let of_another = Requirement { workspace_id: Some("v"), ..asker("w") };
    assert_eq!(reason(&unbound, &of_another), Some(Reason::WrongWorkspace));
}

#[test]
fn kinds_that_are_not_accepted_are_not_found() {
    let accepting = |kinds: &[Kind]| Requirement {
        kinds: kinds.iter().copied().collect(),
        ..Requirement::default()
    };
    let both = [Kind::ApiClientAuthorization, Kind::PersonalAccessToken];
    assert_eq!(reason(&found(&[]), &accepting(&both)), None);
    assert_eq!(reason(&found(&[]), &accepting(&both[..1])), Some(Reason::NotFound));
    assert_eq!(reason(&found(&[]), &accepting(&[])), None);
}

#[test]
fn ip_list_fails_closed_without_an_address() {
    let mut token = found(&[]);
    token.credential.allowed_ips.push("10.0.0.0/8").unwrap();
    let from = |ip: &str| Requirement { client_ip: ip.parse().ok(), ..Requirement::default() };
    assert_eq!(reason(&token, &from("10.1.1.1")), None);
    assert_eq!(reason(&token, &from("11.1.1.1")), Some(Reason::IpNotAllowed));
    assert_eq!(reason(&token, &anything()), Some(Reason::IpNotAllowed));
}

#[test]
fn every_required_scope_must_be_covered() {
    let requirement = requiring(&["read:notes", "write:notes", "verify:tokens", "read:notes"]);
    let missing = ["write:notes", "verify:tokens"].map(ToOwned::to_owned).to_vec();
    for held in [&["read:*"][..], &["write", "read:*"], &["*:*:", "read:notes"]] {
        assert_eq!(
            reason(&found(held), &requirement),
            Some(Reason::InsufficientScope(missing.clone()))
        );
    }
    assert_eq!(reason(&found(&["admin:all"]), &requirement), None);
}

#[test]
fn route_is_met_by_a_personal_access_token_only_with_scopes_beside_it() {
    let route = Some(Route { method: "GET", path: "/x" });
    let alone = Requirement { route, ..Requirement::default() };
    let beside = Requirement { route, ..requiring(&["read:x"]) };
    let token = found(&["read:*"]);
    assert_eq!(reason(&token, &alone), Some(Reason::InsufficientScope(vec![])));
    assert_eq!(reason(&token, &beside), None);
}

#[test]
fn api_client_authorization_meets_scopes_only_with_all() {
    let mut token = found(&["GET /x"]);
    token.credential.detail =
        Detail::ApiClientAuthorization { api_client_id: None, created_by_ip: None };
    let scopes = requiring(&["read:x"]);
    let route =
        Requirement { route: Some(Route { method: "GET", path: "/x" }), ..Requirement::default() };
    assert!(matches!(reason(&token, &scopes), Some(Reason::InsufficientScope(_))));
    assert_eq!(reason(&token, &route), None);
    token.credential.scopes = vec!["all".to_owned()];
    assert_eq!(reason(&token, &scopes), None);
    assert_eq!(reason(&token, &route), None);
}
