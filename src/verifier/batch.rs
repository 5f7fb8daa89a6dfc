//! Several questions at once, as of one instant.

use std::sync::Arc;

use super::{Asker, Consistency, Decision, Event, Verifier, freshness::Fresh};
use crate::{
    clock::Uptime,
    domain::{CredentialId, Requirement, Revision, Timestamp, Token, TokenRef},
    error::Error,
    hashing::Source,
    store::Workspaces,
};

/// A question: what was presented, and what it must be good for.
pub type Question<'q> = (&'q str, Requirement<'q>);

/// What came of a question, as far as that is known.
type Answered = Option<Result<Decision, Error>>;

impl Verifier {
    /// The answers to several questions, as of one instant and of the revision that is
    /// returned. What is not kept is read by one statement. What is wrong with one of
    /// them is an error in its place.
    ///
    /// # Errors
    ///
    /// None of the questions could be answered.
    pub async fn verify_all(
        self: &Arc<Self>,
        questions: &[Question<'_>],
        asker: &Asker,
        consistency: Consistency,
    ) -> Result<(Vec<Result<Decision, Error>>, Revision), Error> {
        let decided = self.decide_all(questions, asker, consistency).await;
        match &decided {
            Ok((decisions, _)) => {
                decisions.iter().for_each(|decision| self.counters.decided(decision.as_ref()));
            }
            Err(error) => questions.iter().for_each(|_| self.counters.decided(Err(error))),
        }
        decided
    }

    async fn decide_all(
        self: &Arc<Self>,
        questions: &[Question<'_>],
        asker: &Asker,
        consistency: Consistency,
    ) -> Result<(Vec<Result<Decision, Error>>, Revision), Error> {
        let fresh = self.fresh_for(asker, consistency).await?;
        let (mut answers, mut revision, now) = self.kept_all(questions, fresh);
        if !fresh.is_stale && answers.iter().any(Option::is_none) {
            let head = self.read_missing(questions, &mut answers, asker, now).await?;
            if head != revision {
                // What is kept is of another revision than what was read: all of it anew.
                answers.fill_with(|| None);
                revision = self.read_missing(questions, &mut answers, asker, now).await?;
            }
        }
        let answers = answers.into_iter().map(|answer| {
            let decision = answer.unwrap_or_else(|| Err(super::nothing_kept()));
            decision.map(|decision| Decision {
                revision: decision.revision.map(|_| revision),
                ..decision
            })
        });
        Ok((answers.collect(), revision))
    }

    fn kept_all(
        &self,
        questions: &[Question<'_>],
        fresh: Fresh,
    ) -> (Vec<Answered>, Revision, Timestamp) {
        let look = super::Look::new(self, fresh.trusts_unknown);
        let answers = questions.iter().map(|(presented, requirement)| {
            let outcome = look.outcome(presented, requirement)?;
            Some(Ok(self.decided(&look, outcome, fresh.is_stale)))
        });
        (answers.collect(), look.revision(), look.now())
    }

    /// Answers what is not answered yet from what the store says, all of one instant;
    /// returns of which revision that is.
    async fn read_missing(
        self: &Arc<Self>,
        questions: &[Question<'_>],
        answers: &mut [Answered],
        asker: &Asker,
        now: Timestamp,
    ) -> Result<Revision, Error> {
        let workspaces = |place: usize| Workspaces {
            required: questions[place].1.workspace_id,
            askers: questions[place].1.askers_workspace_id,
        };
        let mut missing: Vec<(usize, TokenRef<'_>, Token)> = Vec::new();
        for (place, (presented, requirement)) in questions.iter().enumerate() {
            if answers[place].is_some() {
                continue;
            }
            match self.without_the_store(presented, requirement, now) {
                Ok(decision) => answers[place] = Some(Ok(decision)),
                Err(token) => missing.push((place, token, token.to_token())),
            }
        }
        let wanted: Vec<(&Token, Workspaces<'_>)> =
            missing.iter().map(|(place, _, token)| (token, workspaces(*place))).collect();
        let (era, asked_at): (u32, Uptime) = (self.history.era(), self.clock.uptime());
        let applied = self.history.applied().revision;
        self.counters.happened(Event::Read, wanted.len());
        let all = self.reader.read_all(&wanted).await?;
        self.not_before(applied, all.head)?;
        for ((place, token, owned), read) in missing.iter().zip(all.reads) {
            let requirement = &questions[*place].1;
            let workspaces = workspaces(*place);
            let read = match read {
                Some(read) => read,
                None => {
                    let id = CredentialId(asker.token_id().to_owned());
                    let source = Source::new(Some(id), requirement.client_ip);
                    match self.reader.read(owned, workspaces, &source).await {
                        Ok(read) => read,
                        Err(error @ Error::Busy(_)) => {
                            answers[*place] = Some(Err(error));
                            continue;
                        }
                        Err(error) => return Err(error),
                    }
                }
            };
            let filled = self.keep(self.keys.of_token(token), &read, workspaces, era, asked_at);
            answers[*place] = Some(Ok(self.judged(&filled, requirement, now)));
        }
        Ok(all.head)
    }
}
