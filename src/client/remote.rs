//! The authority, at one or several addresses.

use std::{
    ptr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tonic::{
    Code, Request, Status, Streaming,
    codegen::tokio_stream::wrappers::ReceiverStream,
    metadata::MetadataValue,
    transport::{Channel, ClientTlsConfig, Endpoint},
};

use super::{
    Error, Options,
    options::{Own, Presented},
};
use crate::{
    clock::{Clock, Uptime},
    proto::v1::{
        ReportUseRequest, VerifyRequest, VerifyResponse, WatchRequest, WatchResponse,
        verification_client::VerificationClient,
    },
    random,
};

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(2);

/// How long an address is passed over that failed, if there are others.
const PASSED_OVER: Duration = Duration::from_secs(1);

/// How long is waited before the same address is tried again.
const AGAIN: Duration = Duration::from_millis(50);

/// When a connection that is silent is asked for a sign of life, and how long it has.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// The authority's addresses, taken in turn.
pub(super) struct Remote {
    places: Box<[Place]>,
    next: AtomicUsize,
    pub(super) own: Presented,
    timeout: Duration,
    clock: Arc<dyn Clock>,
}

/// One of the addresses.
pub(super) struct Place {
    channel: Channel,
    failed_at: AtomicU64,
}

impl Remote {
    pub(super) fn new(options: &Options) -> Result<Self, Error> {
        let place = |address: &String| {
            let wrong = |error: tonic::transport::Error| {
                Error::Options(format!("{address} is no endpoint: {error}"))
            };
            let mut endpoint = Endpoint::from_shared(address.clone()).map_err(wrong)?;
            if endpoint.uri().scheme_str() == Some("https") {
                let tls = options.tls.clone();
                let tls = tls.unwrap_or_else(|| ClientTlsConfig::new().with_enabled_roots());
                endpoint = endpoint.tls_config(tls).map_err(wrong)?;
            }
            let channel = endpoint
                .connect_timeout(CONNECT)
                .http2_keep_alive_interval(KEEP_ALIVE)
                .keep_alive_timeout(KEEP_ALIVE)
                .connect_lazy();
            Ok(Place { channel, failed_at: AtomicU64::new(0) })
        };
        Ok(Self {
            places: options.endpoints.iter().map(place).collect::<Result<_, Error>>()?,
            next: AtomicUsize::new(usize::from_ne_bytes(random::bytes())),
            own: Presented::read(options.own_token.clone())?,
            timeout: options.timeout,
            clock: Arc::clone(&options.clock),
        })
    }

    /// The next address in turn: one that this call did not try yet, and that did not fail
    /// a moment ago, as far as there is one.
    fn place(&self, tried: &[&Place]) -> &Place {
        let now = self.clock.uptime();
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        let turn = || {
            (0..self.places.len()).map(|at| &self.places[next.wrapping_add(at) % self.places.len()])
        };
        let is_new = |place: &Place| !tried.iter().any(|tried| ptr::eq(*tried, place));
        let new = || turn().filter(|place| is_new(place));
        new()
            .find(|place| place.is_well(now))
            .or_else(|| new().next())
            .or_else(|| turn().find(|place| place.is_well(now)))
            .or_else(|| turn().next())
            .expect("there is one")
    }

    /// Asks as who presents this, at each address until one has answered, and then once
    /// more. It takes no longer than a call may.
    pub(super) async fn verify(
        &self,
        own: &Own,
        request: VerifyRequest,
    ) -> Result<VerifyResponse, Status> {
        let all = async {
            let mut tried = Vec::new();
            loop {
                let place = self.place(&tried);
                let status = match self.verify_at(place, own, request.clone()).await {
                    Ok(answer) => return Ok(answer),
                    Err(status) => status,
                };
                if !is_gone(&status) || tried.len() == self.places.len() {
                    return Err(status);
                }
                self.pass_over(place);
                tried.push(place);
                if tried.len() == self.places.len() {
                    tokio::time::sleep(AGAIN).await;
                }
            }
        };
        match tokio::time::timeout(self.timeout, all).await {
            Ok(answered) => answered,
            Err(_) => Err(too_late()),
        }
    }

    async fn verify_at(
        &self,
        place: &Place,
        own: &Own,
        request: VerifyRequest,
    ) -> Result<VerifyResponse, Status> {
        // Where there are others, one that does not answer gets only a part of the time.
        let patience = if self.places.len() > 1 { self.timeout / 2 } else { self.timeout };
        let mut request = presenting(own, request);
        request.set_timeout(patience);
        let mut client = VerificationClient::new(place.channel.clone());
        match tokio::time::timeout(patience, client.verify(request)).await {
            Ok(answer) => answer.map(tonic::Response::into_inner),
            Err(_) => Err(Status::unavailable("it did not answer in time")),
        }
    }

    /// Reports uses.
    pub(super) async fn report_use(&self, request: ReportUseRequest) -> Result<(), Status> {
        let request = presenting(&self.own.value(), request);
        let mut client = VerificationClient::new(self.place(&[]).channel.clone());
        match tokio::time::timeout(self.timeout, client.report_use(request)).await {
            Ok(answer) => answer.map(drop),
            Err(_) => Err(too_late()),
        }
    }

    /// Watches changes as who presents this, at the next address: which that is.
    pub(super) async fn watch(
        &self,
        own: &Own,
        requests: ReceiverStream<WatchRequest>,
    ) -> Result<(Streaming<WatchResponse>, &Place), Status> {
        let place = self.place(&[]);
        let mut client = VerificationClient::new(place.channel.clone());
        let opened = client.watch(presenting(own, requests));
        let (opened, is_gone) = match tokio::time::timeout(self.timeout, opened).await {
            Ok(opened) => {
                let is_gone = opened.as_ref().is_err_and(is_gone);
                (opened.map(tonic::Response::into_inner), is_gone)
            }
            Err(_) => (Err(too_late()), true),
        };
        if is_gone {
            self.pass_over(place);
        }
        opened.map(|stream| (stream, place))
    }

    /// Others are preferred for a moment.
    pub(super) fn pass_over(&self, place: &Place) {
        place.fail(self.clock.uptime());
    }

    /// Whether there is more than one address.
    pub(super) fn has_others(&self) -> bool {
        self.places.len() > 1
    }
}

fn presenting<T>(own: &Own, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", MetadataValue::clone(own));
    request
}

impl Place {
    fn is_well(&self, now: Uptime) -> bool {
        let failed_at = self.failed_at.load(Ordering::Relaxed);
        failed_at == 0 || now.since(Uptime::from_nanos(failed_at)) >= PASSED_OVER
    }

    fn fail(&self, now: Uptime) {
        self.failed_at.store(now.as_nanos(), Ordering::Relaxed);
    }
}

fn too_late() -> Status {
    Status::deadline_exceeded("it did not answer in time")
}

/// Whether the call was not answered, or by somebody who can't answer now: another may.
fn is_gone(status: &Status) -> bool {
    status.code() == Code::Unavailable || std::error::Error::source(status).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::OwnToken;

    #[tokio::test]
    async fn a_call_tries_each_address_though_all_failed_a_moment_ago() {
        let endpoints = ["http://one:1", "http://two:1", "http://three:1"];
        let remote = Remote::new(&Options::new(endpoints, OwnToken::text("own"))).unwrap();
        let [one, two, three] = &*remote.places else { panic!("there are three") };
        for place in [one, two] {
            remote.pass_over(place);
        }
        for _ in 0..6 {
            assert!(ptr::eq(remote.place(&[]), three));
            assert!(ptr::eq(remote.place(&[one, three]), two));
        }
        remote.pass_over(three);
        for _ in 0..6 {
            // Others took their turn meanwhile.
            assert!(ptr::eq(remote.place(&[two, three]), one));
        }
    }
}
