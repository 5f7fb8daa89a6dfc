//! Protects a service of tonic's where a layer can't be used.

use std::{borrow::Cow, fmt, net::IpAddr, sync::Arc};

use smallvec::SmallVec;
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    task::block_in_place,
};
use tonic::{Request, Status, service::Interceptor};

use super::{
    Answer, Client, Identity, Question,
    layer::{Refusal, Stale},
};
use crate::bearer::only_bearer;

/// How many wait at once for an answer: few against tokio's 512 threads for what blocks.
pub(super) const MAX_WAITING: usize = 64;

impl Client {
    /// Lets only calls through that present a token which is good and covers these scopes.
    ///
    /// As [`layer`](Self::layer) does, which is to be preferred: an interceptor can't wait.
    /// What is kept is answered at once; where the authority has to be asked, the thread is
    /// given to that meanwhile, which takes tokio's runtime of many threads. On another,
    /// such a call is UNAVAILABLE; so it is where 64 of a client wait already.
    ///
    /// # Panics
    ///
    /// Where the authority has to be asked within a `LocalSet`: threads can't be given away
    /// there, and that can't be told beforehand.
    pub fn interceptor(&self, scopes: impl IntoIterator<Item: Into<Cow<'static, str>>>) -> Guard {
        Guard {
            client: self.clone(),
            scopes: scopes.into_iter().map(Into::into).collect(),
            client_ip: |_| None,
        }
    }
}

/// Protects a service, as [`Client::interceptor`] says.
#[derive(Clone)]
pub struct Guard {
    client: Client,
    scopes: Arc<[Cow<'static, str>]>,
    client_ip: fn(&Request<()>) -> Option<IpAddr>,
}

impl Guard {
    /// From where the token is presented. Unless this is called, tokens that are limited to
    /// addresses are refused.
    #[must_use]
    pub fn client_ip_of(mut self, client_ip: fn(&Request<()>) -> Option<IpAddr>) -> Self {
        self.client_ip = client_ip;
        self
    }

    fn identity(&self, request: &Request<()>) -> Result<(Arc<Identity>, bool), Status> {
        let token = only_bearer(request.metadata().as_ref());
        let token = token.ok_or_else(|| Refusal::Missing.status())?;
        let scopes: SmallVec<[&str; 8]> = self.scopes.iter().map(Cow::as_ref).collect();
        let question = Question::new(token).scopes(&scopes).client_ip((self.client_ip)(request));
        let answer = match self.client.kept(question) {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => match Handle::try_current() {
                Ok(runtime) if runtime.runtime_flavor() == RuntimeFlavor::MultiThread => {
                    let may_block = self.client.0.inner.may_block.try_acquire();
                    let _may_block = may_block.map_err(|_| {
                        Status::unavailable("too many tokens are being asked about")
                    })?;
                    block_in_place(|| runtime.block_on(self.client.verify(question)))
                }
                Ok(_) | Err(_) => {
                    let reason = "an interceptor can't ask on this runtime: use the layer";
                    return Err(Status::unavailable(reason));
                }
            },
            Err(error) => Err(error),
        };
        match answer {
            Ok(Answer::Active { identity, stale }) => Ok((identity, stale)),
            Ok(Answer::Refused { reason, .. }) => {
                Err(Refusal::Refused(reason, Vec::new()).status())
            }
            Err(error) => Err(Refusal::Error(error).status()),
        }
    }
}

impl Interceptor for Guard {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let (identity, stale) = self.identity(&request)?;
        if stale {
            request.extensions_mut().insert(Stale);
        }
        request.metadata_mut().remove("authorization");
        request.extensions_mut().insert(identity);
        Ok(request)
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").finish_non_exhaustive()
    }
}
