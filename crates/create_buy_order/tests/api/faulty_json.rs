//! Offset and message of a JSON error are those of CPython, which clients of FastAPI know.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use cluster::Service;
use serde_json::{Value, json};

use super::{answer, start_cluster};

/// Reads a JSON list of texts, and writes offset and message of the error in each, or null. Since 3.13 a comma before a closing bracket has
/// its own message and offset: the older ones are written instead.
const CPYTHON: &str = r#"
import json, sys
def fault(text):
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg.startswith("Illegal trailing comma"):
            at = next(i for i in range(error.pos + 1, len(text)) if text[i] not in " \t\n\r")
            name = "Expecting property name enclosed in double quotes"
            return [at, name if text[at] == "}" else "Expecting value"]
        return [error.pos, error.msg]
json.dump([fault(text) for text in json.load(sys.stdin)], sys.stdout)
"#;

fn by_cpython(bodies: &[String]) -> anyhow::Result<Vec<Value>> {
    let mut python = Command::new("python3")
        .args(["-c", CPYTHON])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("python3 is missing: apt-get install python3")?;
    let mut input = python.stdin.take().context("no input")?;
    input.write_all(&serde_json::to_vec(bodies)?)?;
    drop(input);
    let output = python.wait_with_output()?;
    ensure!(output.status.success(), "python3: {}", output.status);
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// A body with every kind of value, cut off at each character, and with each character replaced by others.
fn bodies() -> Vec<String> {
    const WHOLE: &str = "\n {\"currency\": \"\u{e4}\\u00dc\\n\\ud800\", \"amount\": -10.5e+3,\r\"\\ud83d\\ude00\": [1, [], {}, true, false , null]\t} ";
    let whole: Vec<char> = WHOLE.chars().collect();
    let with = |from: usize, to: usize, inserted: &str| -> String {
        let (before, after) = (&whole[..from], &whole[to..]);
        before
            .iter()
            .copied()
            .chain(inserted.chars())
            .chain(after.iter().copied())
            .collect()
    };
    let mut bodies = vec![
        "{".to_owned(),
        "{\"c\":\"U\0SD\"}".to_owned(),
        "\n\n   {\"\\ud800\":1".to_owned(),
        " ".to_owned(),
    ];
    for at in 0..whole.len() {
        bodies.push(with(at, whole.len(), ""));
        for inserted in [
            "",
            "\"",
            "\\",
            "\\u12",
            "\u{0}",
            "{",
            "}",
            "]",
            ",",
            ":",
            "0",
            "-",
            ".",
            "e",
            "\u{1f600}",
        ] {
            bodies.push(with(at, at + 1, inserted));
        }
    }
    bodies.retain(|body| !body.is_empty());
    bodies
}

#[tokio::test]
async fn a_body_that_is_no_json_is_refused_where_cpython_stops_and_in_its_words() -> anyhow::Result<()> {
    let bodies = bodies();
    let faults = by_cpython(&bodies)?;
    ensure!(faults.len() == bodies.len() && bodies.len() > 1000);
    let cluster = start_cluster().await?;
    let url = cluster.url(Service::CreateBuyOrder) + "/buy_order";
    for (body, fault) in bodies.into_iter().zip(faults) {
        let request = cluster
            .http()
            .put(&url)
            .header("content-type", "application/json");
        let refused = answer(request.body(body.clone()).send().await?).await?;
        ensure!(refused.status == 422, "{body:?}: {refused:?}");
        let first = &refused.body["detail"][0];
        if fault.is_null() {
            ensure!(first["type"] != "json_invalid", "{body:?}: {first}");
        } else {
            let told = json!([first["type"], first["loc"], first["ctx"]["error"]]);
            ensure!(
                told == json!(["json_invalid", ["body", fault[0]], fault[1]]),
                "{body:?}: {told}, not {fault}"
            );
        }
    }
    Ok(())
}
