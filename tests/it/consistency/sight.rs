//! How much is told at once, and of what to whom.

use std::collections::{BTreeSet, HashSet};

use prost::Message as _;
use token_authority::{
    clock::Clock as _,
    proto::v1::{GetWorkspaceRequest, WatchPing, watch_request::Command, watch_response::Event},
};
use tokio_stream::StreamExt as _;

use super::{
    watch::{SOON, Watch},
    *,
};
use crate::support::{on_both_stores, relay::Relay, wait::until};

on_both_stores![
    what_touches_much_is_told_in_messages_of_bounded_size,
    bound_watcher_gets_pongs_while_others_change_without_end,
    bound_watchers_are_told_of_all_that_is_theirs_and_of_nothing_else,
];

/// How long a message may be: a thousand things, and a thousand more.
const LONGEST: usize = 200_000;

/// The number of a revision.
fn number(revision: &str) -> i64 {
    revision.split_once('-').unwrap().0.parse().unwrap()
}

async fn what_touches_much_is_told_in_messages_of_bounded_size(engine: Engine) {
    const TOUCHED: [i64; 10] = [1_000, 1, 999, 2, 1_000, 1_000, 1, 1_000, 1_000, 1_000];
    let server = TestServer::start_with(engine, &[LONG]).await;
    let by = client(&server);
    let (live, from) = Watch::start(&by).await;
    let id = |number: i64| format!("00000000-0000-7000-8000-{number:012}");
    let mut count = 0;
    for many in TOUCHED {
        let touched = (count..count + many).map(|at| ["user".to_owned(), id(at)]);
        count += many;
        let touched = serde_json::to_string(&touched.collect::<Vec<_>>()).unwrap();
        let sql = format!(
            "UPDATE revision SET number = number + 1, mark = 7; \
             INSERT INTO changes (revision, mark, changed_at, touched) \
             SELECT number, mark, {}, '{touched}' FROM revision",
            server.clock.now().as_micros()
        );
        server.place.sql(&sql).await;
    }
    server.follow().await;
    let last = number(&from) + i64::try_from(TOUCHED.len()).unwrap();
    let all_is_told = async |mut watch: Watch, name: &str| {
        let (mut ids, mut revisions, mut messages) = (HashSet::new(), Vec::new(), 0);
        while revisions.last() != Some(&last) {
            let message = tokio::time::timeout(SOON, watch.told.next()).await.expect("more comes");
            let message = message.unwrap().unwrap();
            messages += 1;
            assert!(message.encoded_len() <= LONGEST, "{name}: {}", message.encoded_len());
            match message.event.unwrap() {
                Event::Change(change) => {
                    ids.extend(change.user_ids);
                    revisions.extend(change.earlier_revisions.iter().map(|text| number(text)));
                    revisions.push(number(&change.revision));
                }
                other @ (Event::Progress(_) | Event::Pong(_) | Event::Resync(_)) => {
                    panic!("{name}: {other:?}")
                }
            }
        }
        assert_eq!(ids, (0..count).map(id).collect(), "{name}");
        assert_eq!(revisions, (number(&from) + 1..=last).collect::<Vec<_>>(), "{name}");
        messages
    };
    all_is_told(live, "as it happens").await;
    let resumed = Watch::resumed(&by, Some(&from)).await;
    assert_eq!(all_is_told(resumed, "resumed").await, 7, "of few things many at once");
    // A process that has just been started remembers nothing.
    let server = TestServer::start_on(server.stop().await, &[LONG]).await;
    let resumed = Watch::resumed(&client(&server), Some(&from)).await;
    assert_eq!(all_is_told(resumed, "resumed elsewhere").await, 7);
    server.stop().await;
}

/// An administrator of a workspace's own, whose token for it may watch.
async fn watcher_of(server: &TestServer, by: &Client, workspace: &str, handle: &str) -> Client {
    let owner = user(by, handle).await;
    server.join(&owner, workspace, "owner").await;
    by.presenting(&token(by, &owner, &["verify:tokens"], Some(workspace)).await.token)
}

async fn bound_watcher_gets_pongs_while_others_change_without_end(engine: Engine) {
    let server = TestServer::start(engine).await;
    let by = client(&server);
    let here = server.workspace("here").await;
    let stranger = user(&by, "stranger").await;
    let watcher = watcher_of(&server, &by, &here, "owner").await;
    let (mut watch, _) = Watch::start(&watcher).await;
    let changes = tokio::spawn({
        let by = by.clone();
        async move {
            for name in 0.. {
                let request = UpdateUserRequest {
                    user: stranger.clone(),
                    external_id: Some(format!("stranger:{name}")),
                    ..Default::default()
                };
                by.directory().update_user(request).await.unwrap();
            }
        }
    });
    let mut last = 0;
    for nonce in 0..5 {
        // What it was sure of before is too old.
        server.clock.sleep(BOUND + Duration::from_millis(1));
        let pong = tokio::time::timeout(SOON, watch.until_pong(nonce)).await;
        let (all, pong) = pong.expect("a pong comes between what goes on");
        assert!(all.user_ids.is_empty(), "{all:?}");
        let told = number(&pong.revision);
        assert!(told > last, "{told} after {last}");
        last = told;
        until("more happens", SOON, async || server.verifier.counts().applied > last).await;
    }
    changes.abort();
    assert!(changes.await.unwrap_err().is_cancelled(), "they were changed all the time");
    server.stop().await;
}

/// What belongs together, and who watches it.
struct Tenant {
    workspace: String,
    organization: String,
    /// Each with a token that is bound to the workspace, and one that is not.
    members: Vec<(String, String, String)>,
    watcher: Client,
}

impl Tenant {
    async fn new(server: &TestServer, by: &Client, name: &str) -> Self {
        let workspace = server.workspace(name).await;
        let request = GetWorkspaceRequest { workspace: workspace.clone(), organization: None };
        let organization = by.directory().get_workspace(request).await.unwrap().into_inner();
        let organization = organization.workspace.unwrap().organization_id;
        let watcher = watcher_of(server, by, &workspace, &format!("{name}-owner")).await;
        let mut members = Vec::new();
        for member in 0..STEPS.len() {
            let member = user(by, &format!("{name}-{member}")).await;
            server.join(&member, &workspace, "member").await;
            let bound = id_of(&token(by, &member, &[], Some(&workspace)).await);
            let unbound = id_of(&token(by, &member, &[], None).await);
            members.push((member, bound, unbound));
        }
        Self { workspace, organization, members, watcher }
    }

    fn ids(&self) -> BTreeSet<String> {
        let of_members =
            self.members.iter().flat_map(|(user, bound, unbound)| [user, bound, unbound]);
        of_members.chain([&self.workspace, &self.organization]).cloned().collect()
    }

    /// Does something to one of its members, or to all; which id is to be told.
    async fn does(&self, by: &Client, step: Step, member: usize) -> String {
        let (user, bound, unbound) = &self.members[member];
        let mut directory = by.directory();
        match step {
            Step::BoundRevoked => {
                by.revoke(bound).await.unwrap();
                bound.clone()
            }
            Step::UnboundRevoked => {
                by.revoke(unbound).await.unwrap();
                unbound.clone()
            }
            Step::UserTokensRevoked => {
                let target = Some(Target::User(user.clone()));
                let request = RevokeTokensRequest { target, ..Default::default() };
                directory.revoke_tokens(request).await.unwrap();
                user.clone()
            }
            Step::UserDeactivated => {
                let user = user.clone();
                let request = UpdateUserRequest {
                    user: user.clone(),
                    is_active: Some(false),
                    ..Default::default()
                };
                directory.update_user(request).await.unwrap();
                user
            }
            Step::UserDeleted => {
                directory.delete_user(DeleteUserRequest { user: user.clone() }).await.unwrap();
                user.clone()
            }
            Step::MemberLeft => {
                let container = Some(Left::Workspace(self.workspace.clone()));
                let request = DeleteMembershipRequest { user: user.clone(), container };
                directory.delete_membership(request).await.unwrap();
                user.clone()
            }
            Step::WorkspaceNamed => {
                let request = UpdateWorkspaceRequest {
                    workspace: self.workspace.clone(),
                    external_id: Some(format!("ws:{member}:{}", self.workspace)),
                    ..Default::default()
                };
                directory.update_workspace(request).await.unwrap();
                self.workspace.clone()
            }
            Step::OrganizationNamed => {
                let request = UpdateOrganizationRequest {
                    organization: self.organization.clone(),
                    external_id: Some(format!("org:{member}:{}", self.organization)),
                    ..Default::default()
                };
                directory.update_organization(request).await.unwrap();
                self.organization.clone()
            }
        }
    }
}

/// What is done to a tenant.
#[derive(Debug, Clone, Copy)]
enum Step {
    BoundRevoked,
    UnboundRevoked,
    UserTokensRevoked,
    UserDeactivated,
    UserDeleted,
    MemberLeft,
    WorkspaceNamed,
    OrganizationNamed,
}

const STEPS: [Step; 8] = [
    Step::BoundRevoked,
    Step::UnboundRevoked,
    Step::UserTokensRevoked,
    Step::UserDeactivated,
    Step::UserDeleted,
    Step::MemberLeft,
    Step::WorkspaceNamed,
    Step::OrganizationNamed,
];

/// What was done to both, in an order of chance, is told while it is done, and to who comes
/// afterwards and resumes.
async fn bound_watchers_are_told_of_all_that_is_theirs_and_of_nothing_else(engine: Engine) {
    let server = TestServer::start_with(engine, &[LONG]).await;
    let by = client(&server);
    let tenants =
        [Tenant::new(&server, &by, "here").await, Tenant::new(&server, &by, "there").await];
    server.follow().await;
    let mut live = Vec::new();
    for tenant in &tenants {
        live.push(Watch::start(&tenant.watcher).await);
    }
    let mut steps: Vec<(usize, Step, usize)> = (0..tenants.len())
        .flat_map(|tenant| (0..).zip(STEPS).map(move |(member, step)| (tenant, step, member)))
        .collect();
    steps.sort_by_cached_key(|_| token_authority::random::bytes::<8>());
    let mut expected = [BTreeSet::new(), BTreeSet::new()];
    for (tenant, step, member) in &steps {
        expected[*tenant].insert(tenants[*tenant].does(&by, *step, *member).await);
    }
    server.follow().await;
    let last = by.verify(&server.admin).await.unwrap().revision;
    for ((tenant, expected), (mut watch, from)) in tenants.iter().zip(expected).zip(live) {
        let mut resumed = Watch::resumed(&tenant.watcher, Some(&from)).await;
        for watch in [&mut watch, &mut resumed] {
            let all = watch.told_up_to(&last).await;
            assert!(!all.everything, "{steps:?}");
            let ids = [all.token_ids, all.user_ids, all.workspace_ids, all.organization_ids];
            let told: BTreeSet<String> = ids.into_iter().flatten().collect();
            assert!(told.is_subset(&tenant.ids()), "{steps:?}: {told:?}");
            let left_out: Vec<_> = expected.difference(&told).collect();
            assert_eq!(left_out, Vec::<&String>::new(), "{steps:?}");
        }
    }
    server.stop().await;
}

/// The database that is asked what may be known is one change behind that which said what
/// was changed, as another server may be.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_older_state_says_of_what_may_be_known_is_not_told() {
    const SEEN: &str = "AS kind, value ->> 1 AS id";
    let mut place = Place::new(Engine::Postgres).await;
    let direct = place.database_url.clone().unwrap();
    let (relay, through) = Relay::to(&direct);
    place.database_url = Some(through);
    let server = TestServer::start_on(place, &[LONG]).await;
    let by = client(&server);
    let here = server.workspace("here").await;
    let watcher = watcher_of(&server, &by, &here, "owner").await;
    let member = user(&by, "member").await;
    server.join(&member, &here, "member").await;
    let made = token(&by, &member, &[], None).await;
    server.follow().await;
    let (watch, from) = Watch::start(&watcher).await;
    drop(watch);
    by.revoke(&id_of(&made)).await.unwrap();
    server.follow().await;
    server
        .place
        .sql(&format!(
            "ALTER TABLE revision RENAME TO real; CREATE VIEW revision AS SELECT id, number - \
             CASE WHEN current_query() LIKE '%{SEEN}%' THEN 1 ELSE 0 END AS number, mark FROM real"
        ))
        .await;
    let asked = relay.ran(SEEN);
    let mut watch = Watch::resumed(&watcher, Some(&from)).await;
    watch.send(Command::Ping(WatchPing { nonce: 1 })).await;
    until("it was asked again", SOON, async || relay.ran(SEEN) >= asked + 3).await;
    let nothing = tokio::time::timeout(Duration::from_millis(100), watch.told.next()).await;
    assert!(nothing.is_err(), "{nothing:?}");
    server.place.sql("DROP VIEW revision; ALTER TABLE real RENAME TO revision").await;
    let Event::Change(change) = watch.event().await else { panic!("the change comes first") };
    assert_eq!(change.token_ids, [id_of(&made)]);
    assert!(matches!(watch.event().await, Event::Pong(pong) if pong.nonce == 1));
    server.stop().await;
}
