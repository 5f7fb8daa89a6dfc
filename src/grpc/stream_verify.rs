//! Questions and answers on one stream.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use prost::Message as _;
use tokio::{
    task::JoinSet,
    time::{Interval, MissedTickBehavior},
};
use tonic::{Status, Streaming, codegen::tokio_stream::Stream};

use super::{MAX_REQUEST, Presented, asker_again, at_once, status, streams::Place, verification};
use crate::{
    proto::encoded::{
        StreamVerifyRequest, StreamVerifyResponse, stream_verify_response::Result as Answered,
    },
    rights,
    verifier::{Asker, Verifier},
};

/// How many questions of one stream wait for the store at once; while they do, no more
/// are read.
const MAX_WAITING: usize = 256;

/// How often the caller's own token is checked though it asks nothing.
const CHECKED: Duration = Duration::from_secs(1);

/// The answers on one stream. What is kept is answered when it is read; for the rest,
/// the stream does not wait.
pub(super) struct Answers {
    verifier: Arc<Verifier>,
    asker: Asker,
    presented: Presented,
    questions: Option<Streaming<StreamVerifyRequest>>,
    waiting: JoinSet<StreamVerifyResponse>,
    checked: Interval,
    checking: Option<Check>,
    is_over: bool,
    /// Not all was answered that might have been asked.
    ends_early: bool,
    /// When no more is asked: the service stops.
    stopped: Pin<Box<dyn Future<Output = ()> + Send>>,
}

type Check = Pin<Box<dyn Future<Output = Result<Asker, Status>> + Send>>;

impl Answers {
    pub(super) fn new(
        verifier: Arc<Verifier>,
        asker: Asker,
        presented: Presented,
        questions: Streaming<StreamVerifyRequest>,
        place: Place,
    ) -> Self {
        let mut checked = tokio::time::interval(CHECKED);
        checked.reset();
        checked.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            verifier,
            asker,
            presented,
            questions: Some(questions),
            waiting: JoinSet::new(),
            checked,
            checking: None,
            is_over: false,
            ends_early: false,
            stopped: Box::pin(place.stopped()),
        }
    }

    /// Whether the caller still may ask: what it is let in by is checked anew where it
    /// does not hold any more.
    fn poll_caller(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Status>> {
        if self.checking.is_none() {
            if self.verifier.still_holds(&self.asker, self.presented.text()) {
                return Poll::Ready(Ok(()));
            }
            let (verifier, presented) = (Arc::clone(&self.verifier), self.presented.clone());
            self.checking = Some(Box::pin(async move {
                asker_again(&verifier, &presented, &rights::STREAM_VERIFY).await
            }));
        }
        let Some(checking) = &mut self.checking else { return Poll::Ready(Ok(())) };
        match checking.as_mut().poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(checked) => {
                self.checking = None;
                self.asker = checked?;
                Poll::Ready(Ok(()))
            }
        }
    }

    fn poll_answer(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<StreamVerifyResponse, Status>>> {
        ready!(self.poll_caller(context))?;
        if let Poll::Ready(answered) = self.poll_waiting(context) {
            return Poll::Ready(Some(answered));
        }
        let stops = self.questions.is_some() && self.stopped.as_mut().poll(context).is_ready();
        if stops {
            self.questions = None;
            self.ends_early = true;
        }
        while self.waiting.len() < MAX_WAITING
            && let Some(questions) = &mut self.questions
        {
            match Pin::new(questions).poll_next(context) {
                Poll::Ready(Some(question)) => {
                    if let Some(answer) = self.answer_or_wait(question?) {
                        return Poll::Ready(Some(Ok(answer)));
                    }
                }
                Poll::Ready(None) => self.questions = None,
                Poll::Pending => break,
            }
        }
        if self.questions.is_none() && self.waiting.is_empty() {
            let end = self.ends_early.then(|| Err(status::stream_over()));
            return Poll::Ready(end);
        }
        // What was just put there has to wake this as well.
        self.poll_waiting(context).map(Some)
    }

    /// The next answer of those that wait for the store.
    fn poll_waiting(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<StreamVerifyResponse, Status>> {
        if self.waiting.is_empty() {
            return Poll::Pending;
        }
        self.waiting.poll_join_next(context).map(|answer| match answer {
            Some(Ok(answer)) => Ok(answer),
            Some(Err(_)) | None => Err(Status::internal("an answer was given up")),
        })
    }

    /// The answer, if it can be given at once; else it comes when it is there.
    fn answer_or_wait(&mut self, question: StreamVerifyRequest) -> Option<StreamVerifyResponse> {
        let StreamVerifyRequest { id, request: question } = question;
        if question.len() > MAX_REQUEST {
            let status = Status::out_of_range("the question is longer than it may be");
            return Some(response(id, Err(status)));
        }
        if let Some(look) = self.verifier.look()
            && let Some(answer) = at_once::answer(&look, self.asker.entry(), &question, 0)
        {
            return Some(response(id, Ok(answer.into())));
        }
        let request = match verification::checked(question, &self.asker) {
            Ok(request) => request,
            Err(status) => return Some(response(id, Err(status))),
        };
        let (verifier, asker) = (Arc::clone(&self.verifier), self.asker.clone());
        self.waiting.spawn(async move {
            let answer = verification::verify(&verifier, &request, &asker).await;
            response(id, answer.map(|answer| answer.encode_to_vec().into()))
        });
        None
    }
}

impl Stream for Answers {
    type Item = Result<StreamVerifyResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let mut polled = self.poll_answer(context);
        // Until a check is to come, which then wakes this.
        while polled.is_pending() && self.checked.poll_tick(context).is_ready() {
            polled = self.poll_answer(context);
        }
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.is_over = true;
            self.waiting.abort_all();
        }
        polled
    }
}

fn response(id: u64, answered: Result<Bytes, Status>) -> StreamVerifyResponse {
    let result = match answered {
        Ok(answer) => Answered::Response(answer),
        Err(status) => Answered::Error(status::in_place(&status)),
    };
    StreamVerifyResponse { id, result: Some(result) }
}
