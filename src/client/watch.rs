//! Watches the authority's changes, as long as the client lives.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval, sleep},
};
use tonic::{Code, Status, codegen::tokio_stream::wrappers::ReceiverStream};

use super::{Inner, answer::to_timestamp, news::News, options::Own};
use crate::{
    clock::{Clock, Uptime},
    domain::Touched,
    proto::v1::{
        WatchChange, WatchPing, WatchPong, WatchRequest, WatchResponse, WatchStart,
        watch_request::Command, watch_response::Event,
    },
    random,
};

/// How long is waited after a stream ended, at first and at most; where the own token is
/// refused, longer.
const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(5);
const REFUSED: Duration = Duration::from_secs(15);

/// How many pings are waited for: the last ones, since what an older one proves is too old.
const PINGS: usize = 64;

/// The longest time without a pong before another address is tried, where there is one
/// and staleness is not longer.
const SILENCE: Duration = Duration::from_secs(3);

/// Why a stream ended.
enum Ended {
    /// It was open, and is to be resumed.
    Broken(Option<Status>),
    /// Everything is to be started over, which was noted.
    Resync,
}

/// Watches until aborted.
pub(super) async fn watch(inner: Arc<Inner>) {
    let news = &inner.keeping.news;
    let mut pause = FIRST;
    loop {
        let mut was_confirmed = false;
        // Before the own token is taken to be presented.
        let caller = news.caller();
        let own = inner.remote.own.value();
        let ended = once(&inner, caller, &own, &mut was_confirmed).await;
        news.set_watching(false);
        if was_confirmed {
            pause = FIRST;
        }
        let is_refused = match &ended {
            Ended::Resync => {
                tracing::warn!("everything kept is dropped, as the authority asks");
                inner.keeping.forget();
                false
            }
            Ended::Broken(None) => false,
            Ended::Broken(Some(status)) => {
                tracing::info!(code = ?status.code(), "changes are not received");
                matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied)
            }
        };
        let [byte] = random::bytes();
        // Half of it to all of it.
        sleep(pause.mul_f64(0.5 + f64::from(byte) / 512.0)).await;
        pause = (pause * 2).min(if is_refused { REFUSED } else { LONGEST });
        inner.is_another_caller(&own).await;
    }
}

/// One stream, from its start to its end.
async fn once(inner: &Inner, caller: u64, own: &Own, was_confirmed: &mut bool) -> Ended {
    let news = &inner.keeping.news;
    let (sender, receiver) = mpsc::channel(4);
    let since_revision = news.position().revision.clone();
    send(&sender, Command::Start(WatchStart { since_revision }));
    let (mut stream, place) = match inner.remote.watch(own, ReceiverStream::new(receiver)).await {
        Ok(opened) => opened,
        Err(status) => return Ended::Broken(Some(status)),
    };
    news.set_watching(true);
    let mut pings = Pings::default();
    let mut tick = interval(inner.max_staleness / 4);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let silence = SILENCE.max(inner.max_staleness * 2);
    let mut heard_at = inner.clock.uptime();
    while caller == news.caller() {
        tokio::select! {
            received = stream.message() => match received {
                Ok(Some(WatchResponse { event: Some(event) })) => {
                    if matches!(event, Event::Pong(_)) {
                        heard_at = inner.clock.uptime();
                    }
                    if caller != news.caller() {
                        break;
                    }
                    match apply(news, &mut pings, event, &*inner.clock, caller) {
                        Applied::Confirmed => *was_confirmed = true,
                        Applied::Noted => {}
                        Applied::StartedOver => return Ended::Resync,
                    }
                }
                Ok(Some(WatchResponse { event: None })) => {
                    news.start_over(None);
                    return Ended::Resync;
                }
                Ok(None) => return Ended::Broken(None),
                Err(status) => return Ended::Broken(Some(status)),
            },
            _ = tick.tick() => {
                // The instant before it is sent.
                let now = inner.clock.uptime();
                // A server without its store is silent, too: another one may have it.
                if now.since(heard_at) > silence && inner.remote.has_others() {
                    inner.remote.pass_over(place);
                    return Ended::Broken(Some(Status::unavailable("no pong came")));
                }
                send(&sender, Command::Ping(pings.next(now)));
            }
        }
    }
    Ended::Broken(None)
}

fn send(sender: &mpsc::Sender<WatchRequest>, command: Command) {
    // Where there is no room, the next ping will do.
    let _ = sender.try_send(WatchRequest { command: Some(command) });
}

/// The pings that are not answered yet, and the instant before each was sent.
#[derive(Default)]
struct Pings {
    sent: VecDeque<(u64, Uptime)>,
    last: u64,
}

impl Pings {
    /// One more. Of too many the first is no longer waited for.
    fn next(&mut self, now: Uptime) -> WatchPing {
        if self.sent.len() == PINGS {
            self.sent.pop_front();
        }
        self.last += 1;
        self.sent.push_back((self.last, now));
        WatchPing { nonce: self.last }
    }

    /// When the ping was sent that this answers. Those before it are no longer waited for.
    fn answered(&mut self, nonce: u64) -> Option<Uptime> {
        let at = self.sent.iter().position(|(sent, _)| *sent == nonce)?;
        self.sent.drain(..=at).next_back().map(|(_, sent_at)| sent_at)
    }
}

/// What became of a message.
#[derive(Debug, PartialEq, Eq)]
enum Applied {
    Confirmed,
    Noted,
    StartedOver,
}

fn apply(news: &News, pings: &mut Pings, event: Event, clock: &dyn Clock, caller: u64) -> Applied {
    match event {
        Event::Change(change) => {
            let (touched, revision, earlier) = touched(change);
            news.change(&touched, revision);
            news.pass(&earlier);
            Applied::Noted
        }
        Event::Progress(progress) => {
            news.progress(&progress.revision);
            news.pass(&progress.earlier_revisions);
            Applied::Noted
        }
        Event::Pong(WatchPong { nonce, revision, age, now }) => {
            news.progress(&revision);
            let Some(sent_at) = pings.answered(nonce) else { return Applied::Noted };
            if let Some(now) = now.and_then(|now| to_timestamp(now).ok()) {
                news.tell_time(now, sent_at, clock.uptime());
            }
            let Ok(age) = Duration::try_from(age.unwrap_or_default()) else {
                return Applied::Noted;
            };
            news.confirm(Uptime(sent_at.0.saturating_sub(age)), caller);
            Applied::Confirmed
        }
        Event::Resync(resync) => {
            news.start_over(Some(resync.revision));
            Applied::StartedOver
        }
    }
}

/// What a change touches: everything, if it does not say what in words that are known.
fn touched(change: WatchChange) -> (Vec<Touched>, String, Vec<String>) {
    let WatchChange {
        revision,
        token_ids,
        user_ids,
        workspace_ids,
        organization_ids,
        everything,
        earlier_revisions,
    } = change;
    let mut touched: Vec<Touched> = token_ids.into_iter().map(Touched::Credential).collect();
    touched.extend(user_ids.into_iter().map(Touched::User));
    touched.extend(workspace_ids.into_iter().map(Touched::Workspace));
    touched.extend(organization_ids.into_iter().map(Touched::Organization));
    if everything || touched.is_empty() {
        touched = vec![Touched::Everything];
    }
    (touched, revision, earlier_revisions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_pings_are_waited_for() {
        let mut pings = Pings::default();
        for second in 1..=200 {
            assert_eq!(pings.next(Uptime(Duration::from_secs(second))).nonce, second);
        }
        assert_eq!(pings.answered(200 - PINGS as u64), None);
        let sent_at = Uptime(Duration::from_secs(199));
        assert_eq!(pings.answered(199), Some(sent_at));
        assert_eq!(pings.answered(198), None);
        assert!(pings.answered(200).is_some());
    }
}
