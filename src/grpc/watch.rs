//! Changes, told on a stream.

use std::{collections::BTreeSet, pin::pin, sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, Interval, MissedTickBehavior},
};
use tonic::{
    Code, Status, Streaming,
    codegen::{
        BoxStream,
        tokio_stream::{StreamExt as _, wrappers::ReceiverStream},
    },
};

use super::{Presented, asker_again, parse::Fields, status, streams::Place, to_timestamp};
use crate::{
    clock::Uptime,
    domain::Revision,
    proto::v1::{
        WatchChange, WatchPong, WatchProgress, WatchRequest, WatchResponse, WatchResync,
        WatchStart, watch_request::Command, watch_response::Event,
    },
    random, rights,
    store::Touched,
    verifier::{Asker, Told, Verifier, Watcher},
};

/// How many messages wait for who watches to read them.
const WAITING: usize = 4;

/// How often the caller's own token is checked though nothing happens.
const CHECKED: Duration = Duration::from_secs(1);

/// How long the first message is waited for.
const START: Duration = Duration::from_secs(10);

/// How long a stream lives at least, and at most so much longer.
const AGE: Duration = Duration::from_hours(1);
const AGE_SPREAD: Duration = Duration::from_mins(10);

/// Tells who calls what changes, until it or the service ends that.
pub(super) fn start(
    verifier: Arc<Verifier>,
    asker: Asker,
    presented: Presented,
    messages: Streaming<WatchRequest>,
    place: Place,
) -> BoxStream<WatchResponse> {
    // One more for how it ends, for which there is always room.
    let (out, told) = mpsc::channel(WAITING + 1);
    let mut checked = tokio::time::interval(CHECKED);
    checked.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tokio::spawn(async move {
        let Ok(end) = out.clone().reserve_owned().await else { return };
        let mut watch = Watch { verifier, asker, presented, messages, out, checked };
        let mut ended = pin!(watch.run());
        let stopped = pin!(place.stopped());
        let [spread] = random::bytes::<1>();
        let age = AGE + AGE_SPREAD * u32::from(spread) / 256;
        let ended = tokio::select! {
            ended = &mut ended => ended,
            () = stopped => Err(status::stream_over()),
            () = tokio::time::sleep(age) => Err(status::stream_over()),
        };
        if let Err(status) = ended {
            end.send(Err(status));
        }
    });
    Box::pin(ReceiverStream::new(told))
}

struct Watch {
    verifier: Arc<Verifier>,
    asker: Asker,
    presented: Presented,
    messages: Streaming<WatchRequest>,
    out: mpsc::Sender<Result<WatchResponse, Status>>,
    checked: Interval,
}

/// What a client asked that is not answered yet.
struct Ping {
    nonce: u64,
    came_at: Uptime,
}

impl Watch {
    /// Tells what changes, until the client ends the stream.
    async fn run(&mut self) -> Result<(), Status> {
        let Some(since) = self.start().await? else { return Ok(()) };
        let mut watcher = self.verifier.watch(since, &self.asker);
        if since.is_none() {
            let revision = watcher.revision().to_string();
            let progress = WatchProgress { revision, ..WatchProgress::default() };
            self.tell(&watcher, Event::Progress(progress)).await?;
        }
        let mut ping = None;
        loop {
            if self.may_go_on().await? {
                match watcher.next().await {
                    Ok(Told::Changed(revisions, touched)) => {
                        self.tell(&watcher, changed(&revisions, touched)).await?;
                        self.answer(&watcher, &mut ping).await?;
                        continue;
                    }
                    Ok(Told::Nothing) => self.answer(&watcher, &mut ping).await?,
                    Ok(Told::StartOver(revision)) => {
                        let revision = revision.to_string();
                        return self.tell(&watcher, Event::Resync(WatchResync { revision })).await;
                    }
                    Ok(Told::TooSlow) => return Err(status::slow_consumer()),
                    Err(error) => pass_if_away(error.into())?,
                }
            }
            tokio::select! {
                () = watcher.news() => {}
                _ = self.checked.tick() => {}
                () = self.out.closed() => return Ok(()),
                message = self.messages.next(), if ping.is_none() => {
                    let Some(message) = message else { return Ok(()) };
                    let came_at = self.verifier.now().1;
                    ping = Some(Ping { nonce: nonce(message?)?, came_at });
                }
            }
        }
    }

    /// From where on it is to be told; `None`: nothing comes any more.
    async fn start(&mut self) -> Result<Option<Option<Revision>>, Status> {
        let first = tokio::time::timeout_at(Instant::now() + START, self.messages.next()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("the first message is late"))?;
        let Some(first) = first.transpose()? else { return Ok(None) };
        let mut fields = Fields::default();
        let since = match first.command {
            Some(Command::Start(WatchStart { since_revision })) => since_revision,
            Some(Command::Ping(_)) | None => {
                fields.wrong("start", "must be the first message");
                None
            }
        };
        let since = since.and_then(|text| match text.parse::<Revision>() {
            Ok(revision) => Some(revision),
            Err(invalid) => {
                fields.wrong("start.since_revision", invalid.to_string());
                None
            }
        });
        fields.check()?;
        Ok(Some(since))
    }

    /// Whether the caller is known to be one who may watch. It is not, for the time being,
    /// while the store can't be asked.
    async fn may_go_on(&mut self) -> Result<bool, Status> {
        if self.verifier.still_holds(&self.asker, self.presented.text()) {
            return Ok(true);
        }
        match asker_again(&self.verifier, &self.presented, &rights::WATCH).await {
            Ok(asker) => {
                self.asker = asker;
                Ok(true)
            }
            Err(status) => pass_if_away(status).map(|()| false),
        }
    }

    /// Has it sent as soon as there is room, unless that takes too long.
    async fn tell(&mut self, watcher: &Watcher, event: Event) -> Result<(), Status> {
        let out = self.out.clone();
        let mut room = pin!(out.reserve());
        loop {
            tokio::select! {
                biased;
                room = &mut room => {
                    if let Ok(room) = room {
                        room.send(Ok(WatchResponse { event: Some(event) }));
                    }
                    return Ok(());
                }
                _ = self.checked.tick() => {
                    self.may_go_on().await?;
                    if watcher.is_too_slow() {
                        return Err(status::slow_consumer());
                    }
                }
            }
        }
    }

    /// Answers a ping, if the watcher can be sure of what it was told.
    async fn answer(&mut self, watcher: &Watcher, asked: &mut Option<Ping>) -> Result<(), Status> {
        let Some(sure_at) = watcher.sure_at() else { return Ok(()) };
        let Some(ping) = asked.take() else { return Ok(()) };
        let pong = WatchPong {
            nonce: ping.nonce,
            revision: watcher.revision().to_string(),
            age: prost_types::Duration::try_from(ping.came_at.since(sure_at)).ok(),
            now: Some(to_timestamp(self.verifier.now().0)),
        };
        self.tell(watcher, Event::Pong(pong)).await
    }
}

/// While the store is away nothing is told, and who watches may stay.
fn pass_if_away(status: Status) -> Result<(), Status> {
    if status.code() == Code::Unavailable { Ok(()) } else { Err(status) }
}

fn nonce(message: WatchRequest) -> Result<u64, Status> {
    match message.command {
        Some(Command::Ping(ping)) => Ok(ping.nonce),
        Some(Command::Start(_)) | None => {
            let mut fields = Fields::default();
            fields.wrong("ping", "must be in every message but the first");
            fields.check()?;
            Err(Status::internal("a wrong field was let pass"))
        }
    }
}

/// What is told of changes, by kinds of things.
fn changed(revisions: &[Revision], touched: BTreeSet<Touched>) -> Event {
    let mut earlier_revisions: Vec<String> = revisions.iter().map(Revision::to_string).collect();
    let revision = earlier_revisions.pop().unwrap_or_default();
    if touched.is_empty() {
        return Event::Progress(WatchProgress { revision, earlier_revisions });
    }
    let mut change = WatchChange { revision, earlier_revisions, ..WatchChange::default() };
    for touched in touched {
        match touched {
            Touched::Credential(id) => change.token_ids.push(id),
            Touched::User(id) => change.user_ids.push(id),
            Touched::Member { user_id, .. } => change.user_ids.push(user_id),
            Touched::Workspace(id) => change.workspace_ids.push(id),
            Touched::Organization(id) => change.organization_ids.push(id),
            Touched::Everything => change.everything = true,
        }
    }
    Event::Change(change)
}
