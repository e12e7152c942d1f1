//! Combines questions into shared round trips. Questions that arrive during a round trip are asked together in the next one. So at low load
//! each question is asked at once and alone, and at high load many share a round trip. An answer is never older than its question.

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

/// Takes questions; cheap to clone.
#[derive(Debug)]
pub struct Coalesced<Q, A> {
    questions: mpsc::Sender<(Q, oneshot::Sender<A>)>,
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
    mut waiting: mpsc::Receiver<(Q, oneshot::Sender<A>)>,
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
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::pin::pin;

    use futures_util::future::join_all;
    use futures_util::poll;

    use super::*;

    type RoundTrip = (Vec<u32>, oneshot::Sender<Vec<u32>>);

    /// Round trips that the test answers: the questions of each, and where its answers go.
    fn answered_by_hand() -> (Coalesced<u32, u32>, mpsc::UnboundedReceiver<RoundTrip>) {
        let (begun, round_trips) = mpsc::unbounded_channel();
        let asked = Coalesced::new(10, move |questions: Vec<u32>| {
            let (answer, answers) = oneshot::channel();
            begun.send((questions, answer)).unwrap();
            async move { answers.await.unwrap() }
        });
        (asked, round_trips)
    }

    #[tokio::test]
    async fn questions_that_arrive_during_a_round_trip_share_the_next_and_each_gets_its_answer() {
        let (asked, mut round_trips) = answered_by_hand();
        let mut first = pin!(asked.ask(0));
        assert!(poll!(&mut first).is_pending());
        let (_, answer) = round_trips.recv().await.unwrap();
        let mut others = pin!(join_all((1..4).map(|question| asked.ask(question))));
        assert!(poll!(&mut others).is_pending());
        answer.send(vec![10]).unwrap();
        assert_eq!(first.await, Some(10));
        let (questions, answer) = round_trips.recv().await.unwrap();
        assert_eq!(questions, [1, 2, 3]);
        answer.send(vec![11, 12, 13]).unwrap();
        assert_eq!(others.await, [Some(11), Some(12), Some(13)]);
    }

    #[tokio::test]
    async fn a_round_trip_that_hangs_delays_no_other_question() {
        let (asked, mut round_trips) = answered_by_hand();
        let mut hanging = pin!(asked.ask(0));
        assert!(poll!(&mut hanging).is_pending());
        let (_, late_answer) = round_trips.recv().await.unwrap();
        let mut next = pin!(asked.ask(1));
        assert!(poll!(&mut next).is_pending());
        let (_, answer) = round_trips.recv().await.unwrap();
        answer.send(vec![11]).unwrap();
        assert_eq!(next.await, Some(11));
        late_answer.send(vec![10]).unwrap();
        assert_eq!(hanging.await, Some(10));
    }

    #[tokio::test]
    async fn nothing_is_asked_for_a_caller_that_has_gone() {
        let (asked, mut round_trips) = answered_by_hand();
        let mut first = pin!(asked.ask(0));
        assert!(poll!(&mut first).is_pending());
        let (_, answer) = round_trips.recv().await.unwrap();
        {
            let mut hung_up = pin!(asked.ask(1));
            assert!(poll!(&mut hung_up).is_pending());
        }
        answer.send(vec![10]).unwrap();
        assert_eq!(first.await, Some(10));
        let mut second = pin!(asked.ask(2));
        assert!(poll!(&mut second).is_pending());
        let (questions, answer) = round_trips.recv().await.unwrap();
        assert_eq!(questions, [2]);
        answer.send(vec![12]).unwrap();
        assert_eq!(second.await, Some(12));
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
