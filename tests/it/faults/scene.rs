//! Servers on one PostgreSQL, each with a way to it that can be disturbed.

use std::time::Instant;

use super::witness::{BOUND, SOON, Witness};
use crate::support::{
    Engine, client::Client, postgres, process::Process, relay::Relay, server::Place, wait::until,
};

/// Servers on one PostgreSQL, each with a way to it that can be disturbed, and who holds
/// them to what they say.
pub(super) struct Scene {
    pub(super) servers: Vec<Server>,
    pub(super) witness: Witness,
    pub(super) place: Place,
    /// Where the database is.
    pub(super) url: String,
    arguments: Vec<String>,
}

pub(super) struct Server {
    pub(super) process: Process,
    pub(super) relay: Relay,
    /// The URL of the database by way of the relay.
    through: String,
}

impl Scene {
    /// So many servers on a new database.
    pub(super) async fn start(servers: usize) -> Self {
        Self::start_on(&postgres::empty_database().await, servers, &[]).await
    }

    /// The same on this database, with more arguments of `serve`.
    pub(super) async fn start_on(url: &str, count: usize, more: &[&str]) -> Self {
        let bound = format!("--max-staleness={}ms", BOUND.as_millis());
        let arguments = [&bound, "--max-pats-per-user=1000000", "--database-wait=500ms"];
        let arguments: Vec<String> =
            arguments.into_iter().chain(more.iter().copied()).map(str::to_owned).collect();
        let mut place = Place::new(Engine::Sqlite).await;
        let mut servers = Vec::new();
        let mut clients = Vec::new();
        for _ in 0..count {
            let (relay, through) = Relay::to(url);
            let process = start(&mut place, &through, &arguments).await;
            clients.push(Client::connect(process.address, &place.admin_token()).await);
            servers.push(Server { process, relay, through });
        }
        place.database_url = Some(url.to_owned());
        let witness = Witness::of(clients);
        witness.settle().await;
        Self { servers, witness, place, url: url.to_owned(), arguments }
    }

    /// Starts a server that has ended; it is reached from now on.
    pub(super) async fn start_again(&mut self, server: usize) {
        let through = self.servers[server].through.clone();
        let process = start(&mut self.place, &through, &self.arguments).await;
        self.place.database_url = Some(self.url.clone());
        let client = Client::connect(process.address, &self.place.admin_token()).await;
        self.servers[server].process = process;
        self.witness.reach(server, client);
    }

    /// Has all servers find the database here from now on.
    pub(super) async fn turn_to(&mut self, url: &str) {
        for server in &mut self.servers {
            server.relay.turn_to(url).await;
        }
        self.url = url.to_owned();
        self.place.database_url = Some(self.url.clone());
    }

    /// Waits until changes were acknowledged, and longer than the bound after that.
    pub(super) async fn outlast_the_bound(&self) {
        self.witness.changes(15).await;
        let since = Instant::now();
        until("the bound is over", SOON, async || since.elapsed() > 3 * BOUND).await;
    }

    /// Waits until each server says that the database knows less than before.
    pub(super) async fn reports_a_loss(&self) {
        until("the loss is reported", SOON, async || {
            self.servers.iter().all(|server| server.process.log().contains("history was rewritten"))
        })
        .await;
    }

    /// Waits until all get on again without help, and sees to it that all was right.
    pub(super) async fn end(self, what: &str, since: Instant) {
        self.witness.recovered(what, since).await;
        let new = Process::start(
            self.place.arguments().into_iter().chain(self.arguments.iter().map(Into::into)),
        );
        let new = new.await;
        let client = Client::connect(new.address, &self.place.admin_token()).await;
        self.witness.finish(what, client).await;
        for (what, query) in WHOLE {
            assert_eq!(self.place.number(query).await, 0, "{what}");
        }
    }
}

async fn start(place: &mut Place, through: &str, more: &[String]) -> Process {
    place.database_url = Some(through.to_owned());
    Process::start(place.arguments().into_iter().chain(more.iter().map(Into::into))).await
}

/// What must not be there, whatever happened: halves of changes.
const WHOLE: [(&str, &str); 5] = [
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
    (
        "tokens without exactly one current secret",
        "SELECT count(*) FROM credentials c WHERE \
         (SELECT count(*) FROM secrets s WHERE s.credential_id = c.id AND s.state = 'current') <> 1",
    ),
    (
        "revoked tokens without exactly one audit row of that, and its change",
        "SELECT count(*) FROM credentials c WHERE c.revoked_at IS NOT NULL AND \
         (SELECT count(*) FROM changes h JOIN audit a ON a.revision = h.revision \
          WHERE h.touched = '[[\"credential\",\"' || c.id || '\"]]' \
          AND a.action = 'credential.revoke' AND a.targets = '[\"' || c.id || '\"]') <> 1",
    ),
    (
        "audit rows of a revocation that revoked nothing",
        "SELECT count(*) - (SELECT count(*) FROM credentials WHERE revoked_at IS NOT NULL) \
         FROM audit WHERE action = 'credential.revoke'",
    ),
];
