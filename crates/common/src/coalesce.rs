//! Combines questions into shared round trips. Questions that arrive during a round trip are asked together in the next one. So at low load
//! each question is asked at once and alone, and at high load many share a round trip. An answer is never older than its question.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep};

/// Capacity of the queue. When it is full, later callers wait for a slot.
const MAX_WAITING: usize = 2_000;

/// A round trip takes about a millisecond. After this time the next one starts beside it, so that a slow one does not delay later questions.
const SLOW_AFTER: Duration = Duration::from_millis(50);

type Waiting<Q, A> = (Q, oneshot::Sender<A>);

/// Takes questions; cheap to clone.
#[derive(Debug)]
pub struct Coalesced<Q, A> {
    questions: mpsc::Sender<Waiting<Q, A>>,
}

impl<Q, A> Clone for Coalesced<Q, A> {
    fn clone(&self) -> Self {
        Self {
            questions: self.questions.clone(),
        }
    }
}

impl<Q: Send + 'static, A: Send + 'static> Coalesced<Q, A> {
    /// Answers questions with `ask`, which gets at most `max_batch` of them, and returns an answer for each, in the same order. Must be called
    /// inside the async runtime. The task that calls `ask` ends when the last clone is dropped.
    pub fn new<F>(max_batch: usize, ask: impl Fn(Vec<Q>) -> F + Send + 'static) -> Self
    where
        F: Future<Output = Vec<A>> + Send + 'static,
    {
        let (questions, waiting) = mpsc::channel(MAX_WAITING);
        tokio::spawn(answer_all(waiting, max_batch, ask));
        Self { questions }
    }

    /// The answer to a question. `None` if `ask` panicked.
    pub async fn ask(&self, question: Q) -> Option<A> {
        let (answer, answered) = oneshot::channel();
        self.questions.send((question, answer)).await.ok()?;
        answered.await.ok()
    }
}

async fn answer_all<Q, A, F>(
    mut waiting: mpsc::Receiver<Waiting<Q, A>>,
    max_batch: usize,
    ask: impl Fn(Vec<Q>) -> F,
) where
    A: Send + 'static,
    F: Future<Output = Vec<A>> + Send + 'static,
{
    let mut taken = Vec::new();
    let mut slow = pin!(sleep(SLOW_AFTER));
    while waiting.recv_many(&mut taken, max_batch).await > 0 {
        // Callers that have gone meanwhile need no answer.
        taken.retain(|(_, caller)| !caller.is_closed());
        if taken.is_empty() {
            continue;
        }
        let (questions, callers): (Vec<Q>, Vec<oneshot::Sender<A>>) = taken.drain(..).unzip();
        let asked = ask(questions);
        let round_trip = async move {
            for (caller, answer) in callers.into_iter().zip(asked.await) {
                // Fails if the caller has gone.
                let _ = caller.send(answer);
            }
        };
        // If it panics, its callers get no answer, and later questions are still asked.
        let mut round_trip = Box::pin(AssertUnwindSafe(round_trip).catch_unwind());
        // Resetting one timer costs less than a new timer each time, which wakes the thread that waits for timers.
        slow.as_mut().reset(Instant::now() + SLOW_AFTER);
        tokio::select! {
            biased;
            _ = &mut round_trip => {}
            () = &mut slow => drop(tokio::spawn(round_trip)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;
    use futures_util::poll;
    use tokio::sync::Semaphore;

    use super::*;

    /// Round trips that end only when the test adds a permit.
    struct RoundTrips {
        begun: Arc<Semaphore>,
        may_end: Arc<Semaphore>,
    }

    impl RoundTrips {
        fn new() -> Self {
            Self {
                begun: Arc::new(Semaphore::new(0)),
                may_end: Arc::new(Semaphore::new(0)),
            }
        }

        /// Answers each question with the number of its round trip.
        fn numbered(&self) -> Coalesced<u32, (u32, usize)> {
            let number = AtomicUsize::new(0);
            let (begun, may_end) = (Arc::clone(&self.begun), Arc::clone(&self.may_end));
            Coalesced::new(10, move |questions: Vec<u32>| {
                let number = number.fetch_add(1, Ordering::Relaxed);
                let (begun, may_end) = (Arc::clone(&begun), Arc::clone(&may_end));
                async move {
                    begun.add_permits(1);
                    take(&may_end).await;
                    questions.into_iter().map(|question| (question, number)).collect()
                }
            })
        }
    }

    async fn take(permits: &Semaphore) {
        if let Ok(permit) = permits.acquire().await {
            permit.forget();
        }
    }

    #[tokio::test]
    async fn questions_that_arrive_during_a_round_trip_share_the_next_and_each_gets_its_answer() {
        let round_trips = RoundTrips::new();
        let asked = round_trips.numbered();
        let mut first = pin!(asked.ask(0));
        assert!(poll!(&mut first).is_pending());
        take(&round_trips.begun).await;
        let mut others = pin!(join_all((1..4).map(|question| asked.ask(question))));
        assert!(poll!(&mut others).is_pending());
        round_trips.may_end.add_permits(2);
        assert_eq!(first.await, Some((0, 0)));
        assert_eq!(others.await, [Some((1, 1)), Some((2, 1)), Some((3, 1))]);
    }

    #[tokio::test]
    async fn a_round_trip_that_hangs_delays_no_other_question() {
        let round_trips = RoundTrips::new();
        let asked = round_trips.numbered();
        let mut hanging = pin!(asked.ask(0));
        assert!(poll!(&mut hanging).is_pending());
        take(&round_trips.begun).await;
        let mut next = pin!(asked.ask(1));
        assert!(poll!(&mut next).is_pending());
        take(&round_trips.begun).await;
        round_trips.may_end.add_permits(2);
        assert_eq!(hanging.await, Some((0, 0)));
        assert_eq!(next.await, Some((1, 1)));
    }

    #[tokio::test]
    async fn nothing_is_asked_for_a_caller_that_has_gone() {
        let round_trips = RoundTrips::new();
        let asked = round_trips.numbered();
        let mut first = pin!(asked.ask(0));
        assert!(poll!(&mut first).is_pending());
        take(&round_trips.begun).await;
        {
            let mut hung_up = pin!(asked.ask(1));
            assert!(poll!(&mut hung_up).is_pending());
        }
        round_trips.may_end.add_permits(1);
        assert_eq!(first.await, Some((0, 0)));
        // If there had been a round trip for the caller that has gone, this would be the third.
        let mut second = pin!(asked.ask(2));
        assert!(poll!(&mut second).is_pending());
        take(&round_trips.begun).await;
        round_trips.may_end.add_permits(2);
        assert_eq!(second.await, Some((2, 1)));
    }

    #[tokio::test]
    async fn after_a_panic_the_next_questions_are_answered() {
        let asked = Coalesced::new(10, async |questions: Vec<u32>| {
            assert!(!questions.contains(&0), "a panic of the test");
            questions
        });
        assert_eq!(asked.ask(0).await, None);
        assert_eq!(asked.ask(1).await, Some(1));
    }
}
