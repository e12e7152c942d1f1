//! `GET /healthcheck`, `/livez` and `/readyz`, and the program arguments that ask for them, as images without a shell have no `curl`.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream, ToSocketAddrs as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::openapi::Detail;
use super::problem::Problem;
use super::readiness::Readiness;
use crate::endpoints::Listen;
use crate::env::Env;

const TIMEOUT: Duration = Duration::from_secs(2);

/// Is the service at work?
///
/// Answers `null`, as the original does.
#[utoipa::path(
    get,
    path = "/healthcheck",
    tag = "health",
    responses((status = 200, description = "It has begun its work", body = Value, example = json!(null)))
)]
pub(super) async fn healthcheck() -> Json<()> {
    tracing::info!(event = "health_checked");
    Json(())
}

/// Does the process answer?
///
/// Asks nobody and logs nothing. Where this gets no answer, restarting the process is the remedy.
#[utoipa::path(
    get,
    path = "/livez",
    tag = "health",
    responses((status = 200, description = "It does", body = Value, example = json!(null)))
)]
pub(super) async fn livez() -> Json<()> {
    Json(())
}

/// Can the service do its work?
///
/// Asks what it cannot work without, at most once a second however often this is asked, and answers within 2 s.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "health",
    responses(
        (status = 200, description = "It can", body = Value, example = json!(null)),
        (status = 503, description = "Something that it cannot work without is away: the answer names it", body = Detail,
            example = json!({"detail": "not ready: read_model is away"})),
    )
)]
pub(super) async fn readyz(State(readiness): State<Arc<Readiness>>) -> Result<Json<()>, Problem> {
    match readiness.away().await.as_slice() {
        [] => Ok(Json(())),
        // Not `Problem::unavailable`: each probe of an outage would be an event of its own.
        away => Err(Problem::client(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready: {}", away.join(", ")),
        )),
    }
}

/// Asks the service that runs with this environment for `/question`, and prints what it answers, save for the `null` of one that is well.
#[expect(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "the container engine keeps what a failed check prints"
)]
pub(crate) fn ask_own_service(question: &str, mut env: Env) -> ExitCode {
    let listen = Listen::from_env(&mut env);
    let asked = env
        .finish(())
        .context("the environment")
        .and_then(|()| ask(&listen, question));
    match asked {
        Ok(body) => {
            if body != "null" {
                print!("{body}");
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("unhealthy: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn ask(listen: &Listen, question: &str) -> anyhow::Result<String> {
    // One that listens on all addresses is asked on this machine's own.
    let host = match listen.host.parse() {
        Ok(IpAddr::V4(address)) if address.is_unspecified() => Ipv4Addr::LOCALHOST.to_string(),
        Ok(IpAddr::V6(address)) if address.is_unspecified() => Ipv6Addr::LOCALHOST.to_string(),
        _ => listen.host.clone(),
    };
    let address = (host.as_str(), listen.port)
        .to_socket_addrs()?
        .next()
        .context("the host has no address")?;
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    // HTTP/1.0: an answer in one piece, whose end is the end of the connection.
    write!(stream, "GET /{question} HTTP/1.0\r\nhost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("the service did not answer")?;
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some(StatusCode::OK.as_str()) {
        bail!("the service answered {status:?} {body}");
    }
    Ok(body.to_owned())
}
