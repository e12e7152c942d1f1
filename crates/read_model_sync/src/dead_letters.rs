//! An admin process: what an operator does with messages that could never be applied. The service may go on meanwhile.

mod letter;
mod reader;

use std::collections::{BTreeMap, HashMap};
use std::io::{Write as _, stderr};
use std::time::Duration;

use anyhow::Context as _;
use common::broker::{Publishing, Verdict};
use common::endpoints::Queue;
use common::service::{Outcome, print};
use tokio::io::{AsyncBufReadExt as _, BufReader, stdin};
use tokio_util::sync::CancellationToken;

use letter::Summary;
use reader::{Held, Reader};

/// Longer than a broker that works ever needs; one that is short of memory or disk takes no messages at all.
const PUBLISH_LIMIT: Duration = Duration::from_secs(30);

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

/// Does it.
///
/// # Errors
/// When the broker is away, or does not take what is sent back. Letters that were not dealt with stay where they are.
pub async fn run(queue: Queue, task: Task, stopping: CancellationToken) -> anyhow::Result<Outcome> {
    let work = async {
        match task {
            Task::List { json } => list(&queue, json).await,
            Task::Show { id } => show(&queue, Wanted::these(id)).await,
            Task::Redrive(selection) => redrive(&queue, selection.into()).await,
            Task::Drop { selection, yes } => drop_letters(&queue, selection.into(), yes).await,
        }
    };
    // What is not removed goes back to its place when the connection ends.
    stopping
        .run_until_cancelled(work)
        .await
        .unwrap_or(Ok(Outcome::NotDone))
}

/// Letters that were asked for, and how many of each were found.
enum Wanted {
    All { found: u64 },
    These(BTreeMap<String, u64>),
}

impl From<Selection> for Wanted {
    fn from(selection: Selection) -> Self {
        if selection.all {
            Self::All { found: 0 }
        } else {
            Self::these(selection.id)
        }
    }
}

impl Wanted {
    fn these(ids: Vec<String>) -> Self {
        Self::These(ids.into_iter().map(|id| (id, 0)).collect())
    }

    /// Whether this is one of them; counts it.
    fn has(&mut self, id: &str) -> bool {
        let found = match self {
            Self::All { found } => Some(found),
            Self::These(ids) => ids.get_mut(id),
        };
        found.map(|found| *found += 1).is_some()
    }

    /// Sentences on ids that no letter has, or several; and whether every id was found.
    fn report(&self) -> (String, Outcome) {
        let Self::These(ids) = self else {
            return (String::new(), Outcome::Done);
        };
        let mut sentences = String::new();
        for (id, found) in ids {
            let id = letter::printable(id);
            match found {
                0 => sentences += &format!("no dead letter has the id {id}\n"),
                1 => {}
                several => sentences += &format!("{several} dead letters share the id {id}\n"),
            }
        }
        let all_found = ids.values().all(|found| *found > 0);
        (
            sentences,
            if all_found {
                Outcome::Done
            } else {
                Outcome::NotDone
            },
        )
    }
}

async fn list(queue: &Queue, json: bool) -> anyhow::Result<Outcome> {
    let mut reader = Reader::open(queue).await?;
    let mut summaries = Vec::new();
    loop {
        let letters = reader.next().await?;
        if letters.is_empty() {
            break;
        }
        summaries.extend(letters.iter().map(|held| Summary::of(&held.delivery)));
    }
    // Before anything is printed: a pager may take its time, and others want the letters.
    reader.close().await?;
    // Not the order of the queue: what arrives while somebody reads may end behind what came after it.
    summaries.sort_by(|one, other| one.first_failed_at.cmp(&other.first_failed_at));
    if json {
        let mut lines = String::new();
        for summary in &summaries {
            lines += &(serde_json::to_string(summary)? + "\n");
        }
        print(&lines).await?;
    } else {
        print(&table(&summaries)).await?;
    }
    Ok(Outcome::Done)
}

fn table(summaries: &[Summary]) -> String {
    if summaries.is_empty() {
        return "no dead letters\n".to_owned();
    }
    let row = |columns: [&str; 7]| {
        let [id, first, last, attempts, kind, bytes, reason] = columns;
        format!("{id:<36}  {first:<27}  {last:<27}  {attempts:>8}  {kind:<17}  {bytes:>9}  {reason}\n")
    };
    let mut table = row([
        "ID",
        "FIRST FAILURE",
        "LAST FAILURE",
        "ATTEMPTS",
        "TYPE",
        "BYTES",
        "REASON",
    ]);
    for summary in summaries {
        let shown =
            |value: &Option<String>| value.as_deref().map_or_else(|| "-".to_owned(), letter::printable);
        table += &row([
            &letter::printable(&summary.id),
            &shown(&summary.first_failed_at),
            &shown(&summary.last_failed_at),
            &summary.attempts.to_string(),
            &shown(&summary.kind),
            &summary.bytes.to_string(),
            &shown(&summary.reason),
        ]);
    }
    let mut by_id: HashMap<&str, u64> = HashMap::new();
    for summary in summaries {
        *by_id.entry(&summary.id).or_default() += 1;
    }
    let shared = by_id.values().filter(|letters| **letters > 1).count();
    table += &format!("letters: {}", summaries.len());
    if shared > 0 {
        table += &format!("; {shared} ids are shared by several");
    }
    table + "\n"
}

async fn show(queue: &Queue, mut wanted: Wanted) -> anyhow::Result<Outcome> {
    let mut reader = Reader::open(queue).await?;
    let mut shown = Vec::new();
    loop {
        let letters = reader.next().await?;
        if letters.is_empty() {
            break;
        }
        for held in letters {
            if wanted.has(&letter::id(&held.delivery)) {
                shown.push(letter::described(&held.delivery));
            }
        }
    }
    reader.close().await?;
    let (sentences, outcome) = wanted.report();
    print(&(shown.join("\n") + &sentences)).await?;
    Ok(outcome)
}

async fn redrive(queue: &Queue, mut wanted: Wanted) -> anyhow::Result<Outcome> {
    let mut reader = Reader::open(queue).await?;
    let mut publishing = Publishing::open(queue, "read_model_sync dead-letters redrive")
        .await
        .context("nothing can be sent back")?;
    let (mut sent, mut kept) = (0_u64, 0_u64);
    loop {
        let letters = reader.next().await?;
        if letters.is_empty() {
            break;
        }
        for held in letters {
            if !wanted.has(&letter::id(&held.delivery)) {
                continue;
            }
            let told = send_back(queue, &reader, &mut publishing, &held)
                .await
                .with_context(|| format!("{sent} dead letters were sent back, then one could not be"))?;
            match told {
                // Only now: a crash before this leaves two copies, never none.
                Verdict::Confirmed => {
                    reader.remove(&held).await?;
                    sent += 1;
                }
                Verdict::NotConfirmed(why) => {
                    let id = letter::printable(&letter::id(&held.delivery));
                    print(&format!("{id} stays: {why}\n")).await?;
                    kept += 1;
                }
            }
        }
    }
    reader.close().await?;
    publishing.session.close().await;
    let (sentences, outcome) = wanted.report();
    print(&format!("{sentences}sent back: {sent}\n")).await?;
    Ok(if kept == 0 { outcome } else { Outcome::NotDone })
}

/// One at a time: then what the broker says can be about no other letter, whatever ids they have.
async fn send_back(
    queue: &Queue,
    reader: &Reader,
    publishing: &mut Publishing,
    held: &Held,
) -> anyhow::Result<Verdict> {
    let message = letter::returned(&held.delivery, queue);
    if message.exchange != queue.exchange && !reader.session().has_exchange(&message.exchange).await? {
        let exchange = letter::printable(&message.exchange);
        return Ok(Verdict::NotConfirmed(format!(
            "it came from the exchange {exchange}, which is no more"
        )));
    }
    let publish = publishing.publisher.publish_all(std::slice::from_ref(&message));
    let verdicts = tokio::time::timeout(PUBLISH_LIMIT, publish)
        .await
        .context("the broker takes no messages for now")??;
    verdicts
        .into_iter()
        .next()
        .context("the broker said nothing about a message")
}

async fn drop_letters(queue: &Queue, mut wanted: Wanted, yes: bool) -> anyhow::Result<Outcome> {
    let mut reader = Reader::open(queue).await?;
    let mut chosen = Vec::new();
    loop {
        let letters = reader.next().await?;
        if letters.is_empty() {
            break;
        }
        for held in letters {
            if wanted.has(&letter::id(&held.delivery)) {
                chosen.push(held.without_body());
            }
        }
    }
    let (sentences, outcome) = wanted.report();
    print(&sentences).await?;
    if !(chosen.is_empty() || yes || confirmed(chosen.len()).await?) {
        reader.close().await?;
        print("nothing was dropped\n").await?;
        return Ok(Outcome::NotDone);
    }
    for held in &chosen {
        reader.remove(held).await?;
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
