//! Questions that come while one is being answered are asked together next: at a low load each is asked at once and alone, at a high one
//! many share a round trip. An answer is never older than the question.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep};

/// Questions that wait to be taken; who comes then waits to wait.
const MOST_WAITING: usize = 2_000;

/// Round trips take a millisecond or so. One that takes longer than this holds up nobody: those who came after it are asked for beside it.
const PATIENCE: Duration = Duration::from_millis(50);

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
    /// Has questions answered by `ask`, which is given `most_together` at most, and answers each of them, in their order. Must be called
    /// inside the async runtime; the task that asks ends with the last clone.
    pub fn new<F>(most_together: usize, ask: impl Fn(Vec<Q>) -> F + Send + 'static) -> Self
    where
        F: Future<Output = Vec<A>> + Send + 'static,
    {
        let (questions, waiting) = mpsc::channel(MOST_WAITING);
        tokio::spawn(answer_all(waiting, most_together, ask));
        Self { questions }
    }

    /// The answer to a question; nothing where asking came to no end.
    pub async fn ask(&self, question: Q) -> Option<A> {
        let (answer, answered) = oneshot::channel();
        self.questions.send((question, answer)).await.ok()?;
        answered.await.ok()
    }
}

async fn answer_all<Q, A, F>(
    mut waiting: mpsc::Receiver<Waiting<Q, A>>,
    most_together: usize,
    ask: impl Fn(Vec<Q>) -> F,
) where
    A: Send + 'static,
    F: Future<Output = Vec<A>> + Send + 'static,
{
    let mut taken = Vec::new();
    let mut patience = pin!(sleep(PATIENCE));
    while waiting.recv_many(&mut taken, most_together).await > 0 {
        // Who hung up meanwhile needs no answer.
        taken.retain(|(_, asker)| !asker.is_closed());
        if taken.is_empty() {
            continue;
        }
        let (questions, askers): (Vec<Q>, Vec<oneshot::Sender<A>>) = taken.drain(..).unzip();
        let asked = ask(questions);
        let round_trip = async move {
            for (asker, answer) in askers.into_iter().zip(asked.await) {
                // Who asked may have hung up.
                let _ = asker.send(answer);
            }
        };
        // Where it panics its askers get no answer, and the next are asked for all the same.
        let mut round_trip = Box::pin(AssertUnwindSafe(round_trip).catch_unwind());
        // One timer that is put off costs less than a new one each time, which wakes the thread that waits for timers.
        patience.as_mut().reset(Instant::now() + PATIENCE);
        tokio::select! {
            biased;
            _ = &mut round_trip => {}
            () = &mut patience => drop(tokio::spawn(round_trip)),
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

    /// Round trips that each wait for a permit to end.
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
    async fn those_who_come_meanwhile_are_asked_for_together_and_each_gets_its_answer() {
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
    async fn one_that_hangs_holds_up_nobody() {
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
    async fn for_who_hung_up_nothing_is_asked() {
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
        // Were there a round trip for the one who hung up, this would be the third.
        let mut second = pin!(asked.ask(2));
        assert!(poll!(&mut second).is_pending());
        take(&round_trips.begun).await;
        round_trips.may_end.add_permits(2);
        assert_eq!(second.await, Some((2, 1)));
    }

    #[tokio::test]
    async fn after_a_panic_the_next_are_answered() {
        let asked = Coalesced::new(10, async |questions: Vec<u32>| {
            assert!(!questions.contains(&0), "as it should be");
            questions
        });
        assert_eq!(asked.ask(0).await, None);
        assert_eq!(asked.ask(1).await, Some(1));
    }
}
