//! An admin process: lists, shows, redrives and drops dead letters. The service may run meanwhile.

mod letter;
mod reader;

use std::collections::{BTreeMap, HashSet};
use std::io::{Write as _, stderr};
use std::time::Duration;

use anyhow::Context as _;
use common::broker::topology::BUY_ORDER_QUEUE;
use common::broker::{Connector, Publisher};
use common::endpoints::Queue;
use common::service::{Outcome, print};
use lapin::message::Delivery;
use tokio::io::{AsyncBufReadExt as _, BufReader, stdin};
use tokio_util::sync::CancellationToken;

use letter::Summary;
use reader::Reader;

/// Longer than a broker that works ever needs; one that is short of memory or disk takes no messages at all.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(30);

/// What to do with the dead letters.
#[derive(Debug, clap::Subcommand)]
pub enum Task {
    /// Show a line for each, oldest first
    List {
        /// One JSON object a line instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Show all that a letter holds: properties, headers and payload
    Show {
        /// As the list shows it
        #[arg(long, value_name = "ID", required = true, num_args = 1..)]
        id: Vec<String>,
    },
    /// Send letters back to where they came from, and remove each once the broker has confirmed that
    Redrive(Selection),
    /// Remove letters for good
    Drop {
        /// Which.
        #[command(flatten)]
        selection: Selection,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// Which letters.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct Selection {
    /// Those with these ids, as the list shows them
    #[arg(long, value_name = "ID", num_args = 1..)]
    id: Vec<String>,
    /// All that are there now
    #[arg(long)]
    all: bool,
}

/// Does the task.
///
/// # Errors
/// When the broker is away, or fails while letters are redriven. Letters that were not removed stay in the queue.
pub async fn run(queue: Queue, task: Task, stopping: CancellationToken) -> anyhow::Result<Outcome> {
    let connector = Connector {
        endpoint: queue,
        queue: BUY_ORDER_QUEUE,
        name: "read_model_sync dead-letters",
    };
    let work = async {
        match task {
            Task::List { json } => list(&connector, json).await,
            Task::Show { id } => show(&connector, Selection { id, all: false }.into()).await,
            Task::Redrive(selection) => redrive(&connector, selection.into()).await,
            Task::Drop { selection, yes } => drop_letters(&connector, selection.into(), yes).await,
        }
    };
    // If it is interrupted, letters that were not removed are requeued when the connection ends.
    stopping
        .run_until_cancelled(work)
        .await
        .unwrap_or(Ok(Outcome::NotDone))
}

/// The letters that were asked for.
struct Wanted {
    all: bool,
    /// How many letters were found of each id.
    found: BTreeMap<String, u64>,
}

impl From<Selection> for Wanted {
    fn from(Selection { id, all }: Selection) -> Self {
        let found = id.into_iter().map(|id| (id, 0)).collect();
        Self { all, found }
    }
}

impl Wanted {
    /// Whether this is one of them. Counts it.
    fn has(&mut self, id: &str) -> bool {
        if let Some(found) = self.found.get_mut(id) {
            *found += 1;
            return true;
        }
        self.all
    }

    /// Sentences about ids that no letter has or several share; and whether every id was found.
    fn report(&self) -> (String, Outcome) {
        let (mut sentences, mut outcome) = (String::new(), Outcome::Done);
        for (id, found) in &self.found {
            let id = letter::printable(id);
            match found {
                0 => {
                    sentences += &format!("no dead letter has the id {id}\n");
                    outcome = Outcome::NotDone;
                }
                1 => {}
                several => sentences += &format!("{several} dead letters share the id {id}\n"),
            }
        }
        (sentences, outcome)
    }
}

async fn list(connector: &Connector, json: bool) -> anyhow::Result<Outcome> {
    let mut reader = Reader::open(connector).await?;
    let mut summaries = Vec::new();
    while let Some(letter) = reader.next().await? {
        summaries.push(Summary::of(&letter));
    }
    // Before it prints: a pager may wait for its reader, and others need the letters.
    reader.close().await?;
    // Not in the order of the queue: a letter that arrives while a reader is connected may end up after the next one.
    summaries.sort_by(|one, other| one.first_failed_at.cmp(&other.first_failed_at));
    let mut text = String::new();
    if json {
        for summary in &summaries {
            text += &(serde_json::to_string(summary)? + "\n");
        }
    } else {
        text = table(&summaries);
    }
    print(&text).await?;
    Ok(Outcome::Done)
}

fn table(summaries: &[Summary]) -> String {
    if summaries.is_empty() {
        return "no dead letters\n".to_owned();
    }
    let row = |id: &str, first: &str, last: &str, attempts: &str, kind: &str, bytes: &str, reason: &str| {
        format!("{id:<36}  {first:<27}  {last:<27}  {attempts:>8}  {kind:<17}  {bytes:>9}  {reason}\n")
    };
    let shown = |value: &Option<String>| value.as_deref().map_or_else(|| "-".to_owned(), letter::printable);
    let (first, last) = ("FIRST FAILURE", "LAST FAILURE");
    let mut table = row("ID", first, last, "ATTEMPTS", "TYPE", "BYTES", "REASON");
    let (mut ids, mut shared) = (HashSet::new(), HashSet::new());
    for summary in summaries {
        table += &row(
            &letter::printable(&summary.id),
            &shown(&summary.first_failed_at),
            &shown(&summary.last_failed_at),
            &summary.attempts.to_string(),
            &shown(&summary.kind),
            &summary.bytes.to_string(),
            &shown(&summary.reason),
        );
        if !ids.insert(&summary.id) {
            shared.insert(&summary.id);
        }
    }
    table += &format!("letters: {}", summaries.len());
    if !shared.is_empty() {
        table += &format!("; {} ids are shared by several", shared.len());
    }
    table + "\n"
}

async fn show(connector: &Connector, mut wanted: Wanted) -> anyhow::Result<Outcome> {
    let mut reader = Reader::open(connector).await?;
    let mut shown = Vec::new();
    while let Some(letter) = reader.next().await? {
        if wanted.has(&letter::id(&letter)) {
            shown.push(letter::describe(&letter));
        }
    }
    reader.close().await?;
    let (sentences, outcome) = wanted.report();
    print(&(shown.join("\n") + &sentences)).await?;
    Ok(outcome)
}

async fn redrive(connector: &Connector, mut wanted: Wanted) -> anyhow::Result<Outcome> {
    let mut reader = Reader::open(connector).await?;
    let publisher = Connector {
        name: "read_model_sync dead-letters redrive",
        ..connector.clone()
    };
    let mut publisher = Publisher::open(&publisher)
        .await
        .context("nothing can be sent back")?;
    let (mut sent, mut kept) = (0_u64, 0_u64);
    while let Some(letter) = reader.next().await? {
        let id = letter::id(&letter);
        if !wanted.has(&id) {
            continue;
        }
        let sent_back = send_back(connector, &reader, &mut publisher, &letter)
            .await
            .with_context(|| format!("{sent} dead letters were sent back, then one could not be"))?;
        match sent_back {
            // Only after the confirm: a crash before this leaves two copies, never none.
            Ok(()) => {
                reader.remove(&letter).await?;
                sent += 1;
            }
            Err(reason) => {
                print(&format!("{} stays: {reason}\n", letter::printable(&id))).await?;
                kept += 1;
            }
        }
    }
    reader.close().await?;
    publisher.session.close().await;
    let (sentences, outcome) = wanted.report();
    print(&format!("{sentences}sent back: {sent}\n")).await?;
    Ok(if kept == 0 { outcome } else { Outcome::NotDone })
}

/// Sends back one letter; the inner error says why it stays. One at a time, because several letters may have the same id, and the broker's
/// answer has to be about this one.
async fn send_back(
    connector: &Connector,
    reader: &Reader,
    publisher: &mut Publisher,
    letter: &Delivery,
) -> anyhow::Result<Result<(), String>> {
    let message = letter::redriven(letter, connector);
    if message.exchange != connector.endpoint.exchange
        && !reader.session.has_exchange(&message.exchange).await?
    {
        let exchange = letter::printable(&message.exchange);
        return Ok(Err(format!(
            "it came from the exchange {exchange}, which is no more"
        )));
    }
    let publish = publisher.publish_all(std::slice::from_ref(&message));
    let results = tokio::time::timeout(PUBLISH_TIMEOUT, publish)
        .await
        .context("the broker takes no messages for now")??;
    let result = results.into_iter().next();
    let result = result.context("the broker said nothing about a message")?;
    Ok(result.map_err(|reason| reason.to_string()))
}

async fn drop_letters(connector: &Connector, mut wanted: Wanted, yes: bool) -> anyhow::Result<Outcome> {
    let mut reader = Reader::open(connector).await?;
    let mut chosen = Vec::new();
    while let Some(mut letter) = reader.next().await? {
        if wanted.has(&letter::id(&letter)) {
            // The body may be large, and is not needed any more.
            letter.data = Vec::new();
            chosen.push(letter);
        }
    }
    let (sentences, outcome) = wanted.report();
    print(&sentences).await?;
    if !(chosen.is_empty() || yes || confirmed(chosen.len()).await?) {
        reader.close().await?;
        print("nothing was dropped\n").await?;
        return Ok(Outcome::NotDone);
    }
    for letter in &chosen {
        reader.remove(letter).await?;
    }
    reader.close().await?;
    print(&format!("dropped: {}\n", chosen.len())).await?;
    Ok(outcome)
}

async fn confirmed(letters: usize) -> anyhow::Result<bool> {
    write!(stderr(), "Drop {letters} dead letters for good? [y/N] ")?;
    let mut answer = String::new();
    BufReader::new(stdin()).read_line(&mut answer).await?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
