use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use token_authority::{
    proto::v1::{Reason, VerifyResponse},
    random,
};
use tokio::{sync::watch, task::JoinSet};

use crate::support::{
    Engine, client::Client, on_both_stores, process::Process, server::Place, wait,
};

const CALLERS: usize = 8;
const ROUNDS: usize = 3;

on_both_stores![what_was_acknowledged_survives_kill_9_and_nothing_is_half_done];

/// What the callers asked for and what they were told, over all rounds.
#[derive(Default)]
struct Ledger {
    /// The names of the tokens that were asked for.
    asked: BTreeSet<String>,
    /// The texts of those that were acknowledged, by id.
    created: BTreeMap<String, String>,
    /// The ids of those whose revocation was asked for, and whether it was acknowledged.
    revoked: BTreeMap<String, bool>,
}

impl Ledger {
    fn acknowledged(&self) -> usize {
        self.created.len() + self.revoked.values().filter(|acknowledged| **acknowledged).count()
    }
}

async fn what_was_acknowledged_survives_kill_9_and_nothing_is_half_done(engine: Engine) {
    let place = Place::new(engine).await;
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let mut process = start(&place).await;
    for round in 0..ROUNDS {
        use_until_killed(process, &place, round, &ledger).await;
        wait_until_cut_off(&place).await;
        process = start(&place).await;
        check_acknowledged(&process, &place, &ledger).await;
        check_whole(&place, &ledger).await;
    }
    let acknowledged = ledger.lock().unwrap().acknowledged();
    assert!(acknowledged >= 1_000, "only {acknowledged} calls were acknowledged");
    process.stop().await;
}

async fn start(place: &Place) -> Process {
    let arguments = place.arguments();
    Process::start(arguments.into_iter().chain(["--max-pats-per-user=1000000".into()])).await
}

/// Several callers create and revoke, until the server is killed in the middle.
async fn use_until_killed(
    process: Process,
    place: &Place,
    round: usize,
    ledger: &Arc<Mutex<Ledger>>,
) {
    let killed = Arc::new(AtomicBool::new(false));
    let (acknowledge, mut acknowledged) = watch::channel(0_usize);
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let caller = Caller {
            client: Client::connect(process.address, &place.admin_token()).await,
            name: format!("{round}-{caller}"),
            ledger: Arc::clone(ledger),
            acknowledge: acknowledge.clone(),
            killed: Arc::clone(&killed),
        };
        callers.spawn(caller.call_until_cut_off());
    }
    let [spread] = random::bytes();
    let enough = 340 + usize::from(spread / 2);
    let reached = acknowledged.wait_for(|count| *count >= enough);
    tokio::time::timeout(Duration::from_secs(60), reached)
        .await
        .expect("the callers get on")
        .unwrap();
    killed.store(true, Ordering::SeqCst);
    process.kill().await;
    // What a caller has not heard by then it never hears.
    let heard = async {
        while let Some(ended) = callers.join_next().await {
            ended.unwrap();
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(3), heard).await;
    callers.shutdown().await;
}

struct Caller {
    client: Client,
    name: String,
    ledger: Arc<Mutex<Ledger>>,
    acknowledge: watch::Sender<usize>,
    killed: Arc<AtomicBool>,
}

impl Caller {
    /// Creates tokens, and revokes every other.
    async fn call_until_cut_off(self) {
        for number in 0.. {
            let name = format!("{}-{number}", self.name);
            self.ledger.lock().unwrap().asked.insert(name.clone());
            let created = match self.client.create(&name).await {
                Ok(created) => created,
                Err(status) => return self.check_cut_off(&status),
            };
            let id = created.personal_access_token.unwrap().id;
            self.ledger.lock().unwrap().created.insert(id.clone(), created.token);
            self.acknowledge.send_modify(|count| *count += 1);
            if number % 2 == 1 {
                continue;
            }
            self.ledger.lock().unwrap().revoked.insert(id.clone(), false);
            match self.client.revoke(&id).await {
                Ok(_) => self.ledger.lock().unwrap().revoked.insert(id, true),
                Err(status) => return self.check_cut_off(&status),
            };
            self.acknowledge.send_modify(|count| *count += 1);
        }
    }

    fn check_cut_off(&self, status: &tonic::Status) {
        assert!(self.killed.load(Ordering::SeqCst), "refused before the kill: {status}");
    }
}

/// PostgreSQL ends what a killed process left a moment later: until then a
/// commit may still be under way.
async fn wait_until_cut_off(place: &Place) {
    if place.database_url.is_none() {
        return;
    }
    let left = "SELECT count(*) FROM pg_stat_activity \
        WHERE datname = current_database() AND application_name = 'token-authority'";
    wait::until("PostgreSQL lets the killed process go", Duration::from_secs(10), async || {
        place.number(left).await == 0
    })
    .await;
}

/// Verify says of each token what its holder was told last.
async fn check_acknowledged(process: &Process, place: &Place, ledger: &Mutex<Ledger>) {
    let client = Client::connect(process.address, &place.admin_token()).await;
    let mut asked: Vec<(String, Option<bool>)> = {
        let ledger = ledger.lock().unwrap();
        let told = |id| ledger.revoked.get(id).copied();
        ledger.created.iter().map(|(id, token)| (token.clone(), told(id))).collect()
    };
    let mut checks = JoinSet::new();
    let share = asked.len().div_ceil(CALLERS);
    while !asked.is_empty() {
        let part = asked.split_off(asked.len().saturating_sub(share));
        let client = client.clone();
        checks.spawn(async move {
            for (token, told) in part {
                let answer = client.verify(&token).await.unwrap();
                assert!(agrees(told, &answer), "told {told:?} of its revocation, now {answer:?}");
            }
        });
    }
    while let Some(checked) = checks.join_next().await {
        checked.unwrap();
    }
}

/// `told` is of the token's revocation: not asked for, or acknowledged or not.
fn agrees(told: Option<bool>, answer: &VerifyResponse) -> bool {
    let revoked = !answer.active && answer.reason() == Reason::Revoked;
    match told {
        None => answer.active,
        Some(true) => revoked,
        Some(false) => answer.active || revoked,
    }
}

/// No row is there without those that belong to it.
async fn check_whole(place: &Place, ledger: &Mutex<Ledger>) {
    let none = [
        (
            "credentials without exactly one secret, a current one",
            "SELECT count(*) FROM credentials c WHERE \
             (SELECT count(*) FROM secrets s WHERE s.credential_id = c.id) <> 1 OR \
             (SELECT count(*) FROM secrets s WHERE s.credential_id = c.id AND s.state = 'current') <> 1",
        ),
        (
            "credentials without exactly one audit row of their creation",
            "SELECT count(*) FROM credentials c WHERE c.name <> 'bootstrap' AND \
             (SELECT count(*) FROM audit a WHERE a.action = 'credential.create' \
              AND a.targets = '[\"' || c.id || '\"]' AND a.revision IS NULL) <> 1",
        ),
        (
            "audit rows of a creation without its credential",
            "SELECT count(*) - (SELECT count(*) FROM credentials WHERE name <> 'bootstrap') \
             FROM audit WHERE action = 'credential.create'",
        ),
        (
            "revoked credentials without exactly one change and the audit row of its revision",
            "SELECT count(*) FROM credentials c WHERE c.revoked_at IS NOT NULL AND \
             (SELECT count(*) FROM changes h JOIN audit a ON a.revision = h.revision \
              WHERE h.touched = '[[\"credential\",\"' || c.id || '\"]]' \
              AND a.action = 'credential.revoke' AND a.targets = '[\"' || c.id || '\"]') <> 1",
        ),
        (
            "changes beyond the first that revoked nothing",
            "SELECT count(*) - 1 - (SELECT count(*) FROM credentials WHERE revoked_at IS NOT NULL) \
             FROM changes",
        ),
        (
            "audit rows of a revocation that revoked nothing",
            "SELECT count(*) - (SELECT count(*) FROM credentials WHERE revoked_at IS NOT NULL) \
             FROM audit WHERE action = 'credential.revoke'",
        ),
        (
            "revisions that are missing between 0 and the head",
            "SELECT (SELECT number + 1 FROM revision) - count(*) FROM changes \
             WHERE revision BETWEEN 0 AND (SELECT number FROM revision)",
        ),
        (
            "heads that are not the last change",
            "SELECT count(*) FROM revision r WHERE \
             (SELECT count(*) FROM changes h WHERE h.revision = r.number AND h.mark = r.mark) <> 1",
        ),
        ("names that were given twice", "SELECT count(*) - count(DISTINCT name) FROM credentials"),
    ];
    for (what, query) in none {
        assert_eq!(place.number(query).await, 0, "{what}");
    }
    let kept = place.number("SELECT count(*) FROM credentials WHERE name <> 'bootstrap'").await;
    let ledger = ledger.lock().unwrap();
    let kept = usize::try_from(kept).unwrap();
    let possible = ledger.created.len()..=ledger.asked.len();
    assert!(possible.contains(&kept), "{kept} are kept, not {possible:?}");
}
