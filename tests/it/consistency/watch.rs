//! What a client that keeps answers of its own is told.

use std::collections::BTreeSet;

use token_authority::{
    clock::Clock as _,
    proto::v1::{
        StreamVerifyRequest, UpdateApiClientAuthorizationRequest, WatchChange, WatchPing,
        WatchPong, WatchRequest, WatchResponse, WatchStart, watch_request::Command,
        watch_response::Event,
    },
};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Code, Streaming};

use super::*;
use crate::support::{
    on_both_stores,
    relay::Relay,
    server::{refused, wrong_fields},
    wait::until,
};

on_both_stores![
    each_change_is_told_before_the_pong_that_answers_for_it,
    watcher_resumes_where_it_was_told_last,
    watcher_whose_history_is_not_the_stores_starts_over,
    bound_watcher_is_told_of_its_workspace_alone,
    messages_out_of_order_are_refused,
    watch_ends_when_its_caller_is_revoked_though_nothing_happens,
    streams_end_when_the_server_stops,
    watcher_that_does_not_read_is_cut_and_resumes,
];

pub(super) const SOON: Duration = Duration::from_secs(20);

/// Somebody who watches.
pub(super) struct Watch {
    tell: mpsc::Sender<WatchRequest>,
    pub(super) told: Streaming<WatchResponse>,
}

impl Watch {
    /// From `since` on; nothing is read yet.
    pub(super) async fn open(by: &Client, since: Option<&str>) -> Result<Self, Status> {
        let (tell, asked) = mpsc::channel(16);
        let told = by.verification().watch(ReceiverStream::new(asked)).await?.into_inner();
        let since_revision = since.map(ToOwned::to_owned);
        let this = Self { tell, told };
        this.send(Command::Start(WatchStart { since_revision })).await;
        Ok(this)
    }

    pub(super) async fn resumed(by: &Client, since: Option<&str>) -> Self {
        Self::open(by, since).await.unwrap()
    }

    /// From now on, and from where that is.
    pub(super) async fn start(by: &Client) -> (Self, String) {
        let mut this = Self::resumed(by, None).await;
        let first = this.event().await;
        let Event::Progress(progress) = first else { panic!("{first:?}") };
        (this, progress.revision)
    }

    pub(super) async fn send(&self, command: Command) {
        self.tell.send(WatchRequest { command: Some(command) }).await.unwrap();
    }

    pub(super) async fn next(&mut self) -> Option<Result<Event, Status>> {
        let next = tokio::time::timeout(SOON, self.told.next()).await.expect("something comes");
        next.map(|message| message.map(|message| message.event.unwrap()))
    }

    pub(super) async fn event(&mut self) -> Event {
        self.next().await.expect("it goes on").unwrap()
    }

    /// What is told before a ping is answered: all that was changed together, and the pong.
    pub(super) async fn until_pong(&mut self, nonce: u64) -> (WatchChange, WatchPong) {
        let mut all = WatchChange::default();
        let pong = self.gather(nonce, &mut all).await;
        (all, pong)
    }

    async fn gather(&mut self, nonce: u64, all: &mut WatchChange) -> WatchPong {
        self.send(Command::Ping(WatchPing { nonce })).await;
        loop {
            match self.event().await {
                Event::Change(change) => {
                    all.revision = change.revision;
                    all.token_ids.extend(change.token_ids);
                    all.user_ids.extend(change.user_ids);
                    all.workspace_ids.extend(change.workspace_ids);
                    all.organization_ids.extend(change.organization_ids);
                    all.everything |= change.everything;
                }
                Event::Progress(progress) => all.revision = progress.revision,
                Event::Pong(pong) => {
                    assert_eq!(pong.nonce, nonce);
                    return pong;
                }
                Event::Resync(resync) => panic!("{resync:?}"),
            }
        }
    }

    /// What was changed up to a revision, as soon as that is told of.
    pub(super) async fn told_up_to(&mut self, revision: &str) -> WatchChange {
        let mut all = WatchChange::default();
        for nonce in 0.. {
            if self.gather(nonce, &mut all).await.revision == revision {
                break;
            }
        }
        all
    }

    /// How it ends, which it does soon.
    pub(super) async fn end(mut self) -> Result<Option<Event>, Status> {
        let mut last = None;
        while let Some(event) = self.next().await {
            last = Some(event?);
        }
        Ok(last)
    }
}

fn sorted(mut ids: Vec<String>) -> Vec<String> {
    ids.sort_unstable();
    ids.dedup();
    ids
}

async fn each_change_is_told_before_the_pong_that_answers_for_it(engine: Engine) {
    let server = TestServer::start_with(engine, &[LONG]).await;
    let by = client(&server);
    let mut subjects = Vec::new();
    for (number, change) in super::Change::ALL.into_iter().enumerate() {
        subjects.push((change, Subject::of(change, &by, &format!("of{number}")).await));
    }
    server.follow().await;
    let (mut watch, from) = Watch::start(&by).await;
    assert_eq!(from, by.verify(&server.admin).await.unwrap().revision);
    for (change, subject) in subjects {
        subject.change(&by).await;
        // The pong comes once the server has made sure that there is nothing newer.
        server.follow().await;
        let told = by.verify(&subject.question.token).await.unwrap();
        let ids = told.refusal.map_or(told.token_id.clone(), |refusal| refusal.token_id);
        let revision = by.verify(&server.admin).await.unwrap().revision;
        let all = watch.told_up_to(&revision).await;
        let touched: BTreeSet<&String> = all.token_ids.iter().chain(&all.user_ids).collect();
        let touches = all.everything
            || !all.workspace_ids.is_empty()
            || !all.organization_ids.is_empty()
            || touched.contains(&ids)
            || touched.contains(&subject.user);
        assert!(touches, "{change:?}: {all:?}");
    }
    // Nothing came, so the answer is that of before, and no older than the last look.
    let (all, pong) = watch.until_pong(7).await;
    assert_eq!(all, WatchChange::default());
    let now = pong.now.unwrap();
    assert_eq!((now.seconds, now.nanos), server.clock.now().to_seconds_and_nanos());
    server.stop().await;
}

async fn watcher_resumes_where_it_was_told_last(engine: Engine) {
    let server = TestServer::start_with(engine, &[LONG]).await;
    let by = client(&server);
    let user = user(&by, "alice").await;
    let mut tokens = Vec::new();
    for _ in 0..6 {
        tokens.push(token(&by, &user, &[], None).await);
    }
    let revoke =
        async |by: &Client, at: usize| by.revoke(&id_of(&tokens[at])).await.unwrap().revision;
    let (mut watch, _) = Watch::start(&by).await;
    let first = revoke(&by, 0).await;
    assert_eq!(watch.told_up_to(&first).await.token_ids, [id_of(&tokens[0])]);
    drop(watch);
    let second = revoke(&by, 1).await;
    let third = revoke(&by, 2).await;
    for _ in 0..2 {
        let mut watch = Watch::resumed(&by, Some(&first)).await;
        let all = watch.told_up_to(&third).await;
        assert_eq!(sorted(all.token_ids), sorted(vec![id_of(&tokens[1]), id_of(&tokens[2])]));
        assert!(watch.until_pong(1).await.0 == WatchChange::default(), "each is told once");
    }
    let mut watch = Watch::resumed(&by, Some(&second)).await;
    assert_eq!(watch.told_up_to(&third).await.token_ids, [id_of(&tokens[2])]);
    drop(watch);

    // A process that has just been started remembers nothing.
    let server = TestServer::start_on(server.stop().await, &[LONG]).await;
    let by = client(&server);
    let mut watch = Watch::resumed(&by, Some(&first)).await;
    let fourth = revoke(&by, 3).await;
    let all = watch.told_up_to(&fourth).await;
    assert_eq!(all.token_ids.len(), 3, "{all:?}");
    assert!(all.token_ids.contains(&id_of(&tokens[3])));
    server.stop().await;
}

async fn watcher_whose_history_is_not_the_stores_starts_over(engine: Engine) {
    let server = TestServer::start_with(engine, &[LONG]).await;
    let by = client(&server);
    let user = user(&by, "alice").await;
    let (a, b) = (token(&by, &user, &[], None).await, token(&by, &user, &[], None).await);
    let first = by.revoke(&id_of(&a)).await.unwrap().revision;
    let last = by.revoke(&id_of(&b)).await.unwrap().revision;
    server.follow().await;
    let [first_number, last_number] = [&first, &last].map(|text| text.split_once('-').unwrap().0);
    let foreign = format!("{first_number}-00000000000000ff");
    let beyond = format!("{}-00000000000000ff", last_number.parse::<u64>().unwrap() + 1);
    for since in [foreign, beyond, "99999999-0000000000000000".to_owned()] {
        let end = Watch::resumed(&by, Some(&since)).await.end().await.unwrap();
        let Some(Event::Resync(resync)) = end else { panic!("{since}: {end:?}") };
        assert_eq!(resync.revision, last, "{since}");
        assert_eq!(
            Watch::resumed(&by, Some(&resync.revision)).await.told_up_to(&last).await.token_ids,
            Vec::<String>::new()
        );
    }

    // While it watches.
    for rewrite in [
        "UPDATE revision SET mark = 7".to_owned(),
        format!(
            "DELETE FROM changes WHERE revision = {last_number}; UPDATE revision SET number = \
             {first_number}, mark = (SELECT mark FROM changes WHERE revision = {first_number})"
        ),
    ] {
        let (watch, _) = Watch::start(&by).await;
        server.place.sql(&rewrite).await;
        server.follow().await;
        let end = watch.end().await.unwrap();
        assert!(matches!(end, Some(Event::Resync(_))), "{end:?}");
    }

    // What it missed is kept no longer.
    server.change("SELECT 1").await;
    let place = server.stop().await;
    place.sql(&format!("DELETE FROM changes WHERE revision <= {first_number}")).await;
    let server = TestServer::start_on(place, &[LONG]).await;
    let by = client(&server);
    let end = Watch::resumed(&by, Some(&first)).await.end().await.unwrap();
    assert!(matches!(end, Some(Event::Resync(_))), "{end:?}");
    server.stop().await;
}

async fn bound_watcher_is_told_of_its_workspace_alone(engine: Engine) {
    let server = TestServer::start_with(engine, &[LONG]).await;
    let by = client(&server);
    let (here, there) = (server.workspace("here").await, server.workspace("there").await);
    let member = server.administrator("member").await.id;
    let [owner, leaves, dies, stranger] =
        ["owner", "leaves", "dies", "stranger"].map(|handle| user(&by, handle));
    let (owner, leaves, dies, stranger) = (owner.await, leaves.await, dies.await, stranger.await);
    server.join(&owner, &here, "owner").await;
    for user in [&member, &leaves, &dies] {
        server.join(user, &here, "member").await;
    }
    server.join(&stranger, &there, "member").await;
    let watcher = token(&by, &owner, &["verify:tokens"], Some(&here)).await;
    let bound = token(&by, &member, &[], Some(&here)).await;
    let unbound = token(&by, &member, &[], None).await;
    let elsewhere = token(&by, &stranger, &[], Some(&there)).await;
    let strangers = token(&by, &stranger, &[], None).await;
    let given = server.authorization_of(&member, None).await;
    let by_itself = server.authorizations(&v2(&given));
    server.follow().await;

    let (mut watch, _) = Watch::start(&by.presenting(&watcher.token)).await;
    let mut told = async |revision: &str| {
        server.follow().await;
        let revision = if revision.is_empty() {
            by.verify(&server.admin).await.unwrap().revision
        } else {
            revision.to_owned()
        };
        let all = watch.told_up_to(&revision).await;
        (sorted(all.token_ids), sorted(all.user_ids), all.workspace_ids, all.organization_ids)
    };
    let none = || (vec![], vec![], vec![], vec![]);
    let revoked = async |made: &CreatePersonalAccessTokenResponse| {
        by.revoke(&id_of(made)).await.unwrap().revision
    };
    let tokens = |id: String| (vec![id], vec![], vec![], vec![]);
    let users = |id: &str| (vec![], vec![id.to_owned()], vec![], vec![]);

    assert_eq!(told(&revoked(&elsewhere).await).await, none());
    assert_eq!(told(&revoked(&strangers).await).await, none());
    assert_eq!(told(&revoked(&bound).await).await, tokens(id_of(&bound)));
    assert_eq!(told(&revoked(&unbound).await).await, tokens(id_of(&unbound)));

    // What was a member's, and is another's afterwards.
    let number = format!("SELECT number FROM users WHERE id = '{stranger}'");
    let update = UpdateApiClientAuthorizationRequest {
        uuid: given.uuid().to_owned(),
        user_id: Some(server.place.number(&number).await),
        ..Default::default()
    };
    by_itself.clone().update_api_client_authorization(update).await.unwrap();
    assert_eq!(told("").await, users(&member));

    server.leave(&leaves, &here).await;
    assert_eq!(told("").await, users(&leaves));
    server.leave(&stranger, &there).await;
    assert_eq!(told("").await, none());
    let delete = |user: &str| DeleteUserRequest { user: user.to_owned() };
    by.directory().delete_user(delete(&dies)).await.unwrap();
    assert_eq!(told("").await, users(&dies));
    by.directory().delete_user(delete(&stranger)).await.unwrap();
    assert_eq!(told("").await, none());

    let revoke = |target| RevokeTokensRequest { target: Some(target), ..Default::default() };
    let all_of = async |target| by.directory().revoke_tokens(revoke(target)).await.unwrap();
    all_of(Target::User(member.clone())).await;
    assert_eq!(told("").await, users(&member));
    all_of(Target::Workspace(there.clone())).await;
    assert_eq!(told("").await, none());
    all_of(Target::Organization("org-of-there".to_owned())).await;
    assert_eq!(told("").await, none());

    // Its own token goes with the rest of the workspace.
    all_of(Target::Workspace(here.clone())).await;
    assert_eq!(watch.end().await.unwrap_err().code(), Code::Unauthenticated);
    server.stop().await;
}

async fn messages_out_of_order_are_refused(engine: Engine) {
    let server = TestServer::start(engine).await;
    let by = client(&server);
    let asked = async |commands: Vec<Option<Command>>| {
        let messages = commands.into_iter().map(|command| WatchRequest { command });
        let messages = tokio_stream::iter(messages).chain(tokio_stream::pending());
        let told = by.verification().watch(messages).await.unwrap().into_inner();
        Watch { tell: mpsc::channel(1).0, told }.end().await
    };
    let ping = || Some(Command::Ping(WatchPing { nonce: 1 }));
    let start = |since: Option<&str>| {
        Some(Command::Start(WatchStart { since_revision: since.map(ToOwned::to_owned) }))
    };
    assert_eq!(wrong_fields(asked(vec![ping()]).await), ["start"]);
    assert_eq!(wrong_fields(asked(vec![None]).await), ["start"]);
    for since in ["", "1", "-", "99999999999999999999-0000000000000000"] {
        let told = asked(vec![start(Some(since))]).await;
        assert_eq!(wrong_fields(told), ["start.since_revision"], "{since}");
    }
    assert_eq!(wrong_fields(asked(vec![start(None), start(None)]).await), ["ping"]);
    assert_eq!(wrong_fields(asked(vec![start(None), None]).await), ["ping"]);
    // Who says nothing any more ends it well.
    let only = tokio_stream::iter([WatchRequest { command: start(None) }]);
    let mut told = by.verification().watch(only).await.unwrap().into_inner();
    while let Some(message) = told.next().await {
        message.unwrap();
    }
    server.stop().await;
}

async fn watch_ends_when_its_caller_is_revoked_though_nothing_happens(engine: Engine) {
    let server = TestServer::start_with(engine, &["--max-open-streams=1"]).await;
    let by = client(&server);
    let chief = server.administrator("chief").await;
    let caller = token(&by, &chief.id, &["verify:tokens"], None).await;
    let (watch, _) = Watch::start(&by.presenting(&caller.token)).await;
    let full = (Code::ResourceExhausted, "STREAM_LIMIT".to_owned());
    let another = async || by.verification().watch(tokio_stream::pending()).await;
    assert_eq!(refused(another().await), full);
    by.revoke(&id_of(&caller)).await.unwrap();
    assert_eq!(watch.end().await.unwrap_err().code(), Code::Unauthenticated);
    until("its place is free", SOON, async || another().await.is_ok()).await;
    server.stop().await;
}

async fn streams_end_when_the_server_stops(engine: Engine) {
    let server = TestServer::start(engine).await;
    let by = client(&server);
    let (watch, _) = Watch::start(&by).await;
    let (ask, asked) = mpsc::channel(1);
    let mut answers =
        by.verification().stream_verify(ReceiverStream::new(asked)).await.unwrap().into_inner();
    let request = Some(question(&server.admin));
    ask.send(StreamVerifyRequest { id: 1, request }).await.unwrap();
    assert!(answers.next().await.unwrap().is_ok());
    let ended = async {
        let over = (Code::Unavailable, "STREAM_OVER".to_owned());
        assert_eq!(refused(answers.next().await.unwrap()), over);
        assert_eq!(refused(watch.end().await), over);
    };
    // Neither keeps it from stopping.
    tokio::join!(server.stop(), ended);
}

async fn watcher_that_does_not_read_is_cut_and_resumes(engine: Engine) {
    const ROUNDS: i64 = 24;
    const EACH: i64 = 2_000;
    let server = TestServer::start_with(engine, &[LONG, "--max-open-streams=1"]).await;
    let by = client(&server);
    let (mut watch, from) = Watch::start(&by).await;
    let happens = async || {
        let changes = format!(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {EACH}) \
             INSERT INTO changes (revision, mark, changed_at, touched) \
             SELECT r.number + i, 7, 0, '[[\"credential\",\"' || (r.number + i) || '{long}\"]]' \
             FROM n CROSS JOIN revision r; \
             UPDATE revision SET number = number + {EACH}, mark = 7",
            long = "-of-nobody".repeat(25),
        );
        server.place.sql(&changes).await;
        server.follow().await;
    };
    for _ in 0..ROUNDS {
        happens().await;
    }
    // It has to give up its place though nothing of it was read.
    let other = async || Watch::open(&by, None).await.is_ok();
    until("its place is free", SOON, other).await;
    let (mut told, mut last) = (0, from);
    let end = loop {
        match watch.next().await.expect("it ends with a reason") {
            Ok(Event::Change(change)) => {
                told += change.token_ids.len();
                last = change.revision;
            }
            Ok(other) => panic!("{other:?}"),
            Err(status) => break status,
        }
    };
    let slow = (Code::ResourceExhausted, "SLOW_CONSUMER".to_owned());
    assert_eq!(refused(Err::<(), _>(end)), slow);

    let head = by.verify(&server.admin).await.unwrap().revision;
    let mut resumed = None;
    until("there is room again", SOON, async || {
        resumed = Watch::open(&by, Some(&last)).await.ok();
        resumed.is_some()
    })
    .await;
    let rest = resumed.unwrap().told_up_to(&head).await.token_ids.len();
    assert_eq!(i64::try_from(told + rest).unwrap(), ROUNDS * EACH, "nothing is left out");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_pong_comes_while_the_store_is_away_and_the_stream_goes_on() {
    let mut place = Place::new(Engine::Postgres).await;
    let (mut relay, through) = Relay::to(place.database_url.as_ref().unwrap());
    place.database_url = Some(through);
    let server = TestServer::start_on(place, &["--database-wait=500ms"]).await;
    let by = client(&server);
    let user = user(&by, "alice").await;
    let made = token(&by, &user, &[], None).await;
    let (mut watch, _) = Watch::start(&by).await;
    let (_, pong) = watch.until_pong(1).await;
    let age: Duration = pong.age.unwrap().try_into().unwrap();
    assert!(age <= BOUND, "{age:?}");
    relay.cut().await;
    server.clock.sleep(BOUND);
    watch.send(Command::Ping(WatchPing { nonce: 2 })).await;
    until("the server knows that it is away", SOON, async || !server.verifier.is_answering()).await;
    let nothing = tokio::time::timeout(Duration::from_millis(100), watch.told.next()).await;
    assert!(nothing.is_err(), "{nothing:?}");
    relay.mend();
    let mut revision = None;
    until("it is back", SOON, async || {
        revision = by.revoke(&id_of(&made)).await.ok().map(|revoked| revoked.revision);
        revision.is_some()
    })
    .await;
    let mut revoked = false;
    loop {
        match watch.event().await {
            Event::Change(change) => revoked |= change.token_ids.contains(&id_of(&made)),
            Event::Pong(pong) => {
                assert_eq!(pong.nonce, 2);
                break;
            }
            other @ (Event::Progress(_) | Event::Resync(_)) => panic!("{other:?}"),
        }
    }
    let all = watch.told_up_to(&revision.unwrap()).await;
    assert!(revoked || all.token_ids.contains(&id_of(&made)));
    server.stop().await;
}
