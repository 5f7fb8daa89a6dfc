//! Questions that come while others are being answered are gathered, and answered
//! together.

use std::{
    collections::VecDeque,
    ops::RangeInclusive,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

/// How many questions are answered together, at the least and at most. To answer several
/// takes as long as to answer about ten one by one.
const TOGETHER: RangeInclusive<usize> = 16..=100;

/// Questions of many, answered on a few lines. Whoever finds a line free is answered at
/// once, and alone; who comes while all are taken waits for the first that is free again,
/// which takes what waits, all of it where that is worth it.
pub(super) struct Gathering<A, R>(Mutex<Gathered<A, R>>);

struct Gathered<A, R> {
    waiting: VecDeque<(A, oneshot::Sender<R>)>,
    lines: usize,
    free: usize,
}

impl<A: Send + 'static, R: Send + 'static> Gathering<A, R> {
    pub(super) fn on(lines: usize) -> Arc<Self> {
        let waiting = VecDeque::new();
        Arc::new(Self(Mutex::new(Gathered { waiting, lines, free: lines })))
    }

    /// What `answer` says of this question; of several it gives the answers in their order.
    /// It is called no earlier than this, and goes on though who asked hung up.
    /// `None`: it was given up.
    pub(super) async fn ask<F>(
        self: &Arc<Self>,
        asked: A,
        answer: impl Fn(Vec<A>) -> F + Send + 'static,
    ) -> Option<R>
    where
        F: Future<Output = Vec<R>> + Send,
    {
        let (tell, told) = oneshot::channel();
        let line = {
            let mut gathered = self.lock();
            gathered.waiting.push_back((asked, tell));
            let takes_line = gathered.free > 0;
            gathered.free -= usize::from(takes_line);
            takes_line.then(|| Line { of: Arc::clone(self), is_taken: true })
        };
        if let Some(mut line) = line {
            tokio::spawn(async move {
                while let Some((asked, tell)) = line.next() {
                    for (answer, tell) in answer(asked).await.into_iter().zip(tell) {
                        let _ = tell.send(answer);
                    }
                }
            });
        }
        told.await.ok()
    }
}

impl<A, R> Gathering<A, R> {
    fn lock(&self) -> MutexGuard<'_, Gathered<A, R>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A line that answers.
struct Line<A, R> {
    of: Arc<Gathering<A, R>>,
    is_taken: bool,
}

impl<A, R> Line<A, R> {
    /// The questions at the front, of those who still wait; `None`: there are none, and the
    /// line is free.
    fn next(&mut self) -> Option<(Vec<A>, Vec<oneshot::Sender<R>>)> {
        let mut gathered = self.of.lock();
        let is_worth_it = gathered.waiting.len() >= *TOGETHER.start();
        let most = if is_worth_it { *TOGETHER.end() } else { 1 };
        let (mut asked, mut tell) = (Vec::new(), Vec::new());
        while asked.len() < most
            && let Some((question, asker)) = gathered.waiting.pop_front()
        {
            if !asker.is_closed() {
                asked.push(question);
                tell.push(asker);
            }
        }
        if asked.is_empty() {
            gathered.free += 1;
            self.is_taken = false;
            return None;
        }
        Some((asked, tell))
    }
}

impl<A, R> Drop for Line<A, R> {
    /// It was given up in the middle. If it was the only one, nobody else would answer
    /// those who wait.
    fn drop(&mut self) {
        if self.is_taken {
            let mut gathered = self.of.lock();
            gathered.free += 1;
            if gathered.free == gathered.lines {
                gathered.waiting.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, Ordering},
        time::Duration,
    };

    use tokio::{sync::Semaphore, task::JoinSet, time::timeout};

    use super::*;

    /// Answers each number with the next, once it may.
    struct Answers {
        may: Semaphore,
        together: Mutex<Vec<usize>>,
    }

    impl Answers {
        fn new() -> Arc<Self> {
            Arc::new(Self { may: Semaphore::new(0), together: Mutex::default() })
        }

        async fn of(self: Arc<Self>, asked: Vec<usize>) -> Vec<usize> {
            self.together.lock().unwrap().push(asked.len());
            self.may.acquire().await.unwrap().forget();
            asked.into_iter().map(|number| number + 1).collect()
        }

        /// How many were asked together, each time.
        fn together(&self) -> Vec<usize> {
            self.together.lock().unwrap().clone()
        }
    }

    fn ask(
        gathering: &Arc<Gathering<usize, usize>>,
        answers: &Arc<Answers>,
        number: usize,
    ) -> impl Future<Output = Option<usize>> + use<> {
        let (gathering, answers) = (Arc::clone(gathering), Arc::clone(answers));
        async move { gathering.ask(number, move |asked| Arc::clone(&answers).of(asked)).await }
    }

    async fn settled() {
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn who_comes_while_all_lines_are_taken_is_answered_with_the_others_who_wait() {
        let (gathering, answers) = (Gathering::on(2), Answers::new());
        let mut asking = JoinSet::new();
        for number in 0..252 {
            let answered = ask(&gathering, &answers, number);
            asking.spawn(async move { assert_eq!(answered.await, Some(number + 1)) });
            if number < 2 {
                settled().await;
            }
        }
        settled().await;
        assert_eq!(answers.together(), [1, 1]);
        answers.may.add_permits(1);
        settled().await;
        assert_eq!(answers.together(), [1, 1, 100]);
        answers.may.add_permits(100);
        while let Some(asked) = asking.join_next().await {
            asked.unwrap();
        }
        let together = answers.together();
        assert_eq!((together.len(), together.iter().sum::<usize>()), (5, 252), "{together:?}");
        assert_eq!(gathering.lock().free, 2);
        assert_eq!(ask(&gathering, &answers, 7).await, Some(8));
    }

    #[tokio::test]
    async fn nobody_is_asked_for_who_hung_up() {
        let (gathering, answers) = (Gathering::on(1), Answers::new());
        let first = tokio::spawn(ask(&gathering, &answers, 0));
        settled().await;
        let short = Duration::ZERO;
        assert!(timeout(short, ask(&gathering, &answers, 1)).await.is_err());
        let last = tokio::spawn(ask(&gathering, &answers, 2));
        settled().await;
        answers.may.add_permits(2);
        assert_eq!((first.await.unwrap(), last.await.unwrap()), (Some(1), Some(3)));
        assert_eq!(answers.together(), [1, 1]);
    }

    #[tokio::test]
    async fn line_that_was_given_up_answers_again() {
        let (gathering, is_over) = (Gathering::on(1), Arc::new(AtomicBool::new(false)));
        let ask = async |number: usize| {
            let is_over = Arc::clone(&is_over);
            let answer = move |asked: Vec<usize>| {
                assert!(is_over.load(Ordering::Relaxed), "it is given up");
                std::future::ready(asked)
            };
            gathering.ask(number, answer).await
        };
        assert_eq!(ask(1).await, None);
        is_over.store(true, Ordering::Relaxed);
        assert_eq!(ask(2).await, Some(2));
    }
}
