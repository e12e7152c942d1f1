//! `GET /healthcheck`, `/livez` and `/readyz`, and the program arguments that ask for them, as images without a shell have no `curl`.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream, ToSocketAddrs as _};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

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

/// Anyone may ask `/healthcheck`, as often as a connection bears: an event for each would fill the log.
const REPORT_PERIOD: Duration = Duration::from_secs(60);

/// The health checks that no event has told of yet.
#[derive(Debug, Default)]
pub(super) struct HealthChecks(Mutex<Unreported>);

#[derive(Debug, Default)]
struct Unreported {
    count: u64,
    reported_at: Option<Instant>,
}

impl HealthChecks {
    /// Counts one, at `now`. How many an event should tell of, where it is time for one.
    fn count(&self, now: Instant) -> Option<u64> {
        let mut unreported = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        unreported.count = unreported.count.saturating_add(1);
        let is_recent = |at| now.saturating_duration_since(at) < REPORT_PERIOD;
        if unreported.reported_at.is_some_and(is_recent) {
            return None;
        }
        unreported.reported_at = Some(now);
        Some(std::mem::take(&mut unreported.count))
    }
}

/// Is the service at work?
///
/// Asks nobody.
#[utoipa::path(
    get,
    path = "/healthcheck",
    tag = "health",
    responses((status = 200, description = "It has begun its work", body = Value, example = json!(null)))
)]
pub(super) async fn healthcheck(State(checks): State<Arc<HealthChecks>>) -> Json<()> {
    if let Some(count) = checks.count(Instant::now()) {
        tracing::info!(event = "health_checked", count);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_health_check_is_told_of_at_once_and_those_of_each_minute_after_it_together() {
        let checks = HealthChecks::default();
        let start = Instant::now();
        let told = |seconds| checks.count(start + Duration::from_secs(seconds));
        assert_eq!(told(0), Some(1));
        for seconds in 1..60 {
            assert_eq!(told(seconds), None);
        }
        assert_eq!(told(60), Some(60));
        assert_eq!(told(61), None);
        assert_eq!(told(500), Some(2));
    }
}
