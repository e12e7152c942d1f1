//! `GET /healthcheck`, `/livez` and `/readyz`, and the client for the commands that ask them: images have no `curl`.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream, ToSocketAddrs as _};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use super::problem::{Detail, Problem};
use crate::endpoints::OwnService;
use crate::env::Env;
use crate::readiness::Readiness;
use crate::tls;

const TIMEOUT: Duration = Duration::from_secs(2);

/// One event reports all health checks of this period. Anyone may call `/healthcheck` at any rate, and an event for each call would fill the
/// log.
const REPORT_PERIOD: Duration = Duration::from_secs(60);

/// Counts health checks that no event has reported yet.
#[derive(Debug, Default)]
pub(super) struct HealthChecks {
    count: u64,
    reported_at: Option<Instant>,
}

impl HealthChecks {
    /// Counts one health check. Returns the number to report, if an event is due at `now`.
    fn count(&mut self, now: Instant) -> Option<u64> {
        self.count += 1;
        let is_recent = |at| now.saturating_duration_since(at) < REPORT_PERIOD;
        if self.reported_at.is_some_and(is_recent) {
            return None;
        }
        self.reported_at = Some(now);
        Some(std::mem::take(&mut self.count))
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
pub(super) async fn healthcheck(State(checks): State<Arc<Mutex<HealthChecks>>>) -> Json<()> {
    let mut checks = checks.lock().unwrap_or_else(PoisonError::into_inner);
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
    match readiness.faults().await.as_slice() {
        [] => Ok(Json(())),
        // Not `Problem::unavailable`, which would log each probe during an outage.
        faults => Err(Problem::client(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready: {}", faults.join(", ")),
        )),
    }
}

/// Asks the service that runs in this environment for `/probe`, and prints its answer, unless that is `null`, which means "well".
#[expect(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "the container engine keeps what a failed check prints"
)]
pub(crate) fn ask_own_service(probe: &str, mut env: Env) -> ExitCode {
    let service = OwnService::from_env(&mut env);
    let asked = env
        .finish(())
        .context("the environment")
        .and_then(|()| ask(&service, probe));
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

fn ask(service: &OwnService, probe: &str) -> anyhow::Result<String> {
    // For `0.0.0.0` and `::`, Linux connects to the loopback address.
    let port = match probe {
        "healthcheck" => service.port,
        _ => service.ops_port.unwrap_or(service.port),
    };
    let address = (service.host.as_str(), port)
        .to_socket_addrs()?
        .next()
        .context("the host has no address")?;
    let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let answer = if service.speaks_tls {
        let name = ServerName::from(Ipv4Addr::LOCALHOST);
        let session = ClientConnection::new(Arc::new(tls::own_service_config()?), name)?;
        exchange(StreamOwned::new(session, stream), probe)?
    } else {
        exchange(stream, probe)?
    };
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("the service did not answer")?;
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some(StatusCode::OK.as_str()) {
        bail!("the service answered {status:?} {body}");
    }
    Ok(body.to_owned())
}

fn exchange(mut stream: impl Read + Write, probe: &str) -> io::Result<String> {
    // HTTP/1.0, because its answer is not chunked and ends with the connection.
    write!(stream, "GET /{probe} HTTP/1.0\r\nhost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_health_check_is_reported_at_once_and_later_ones_together_each_minute() {
        let mut checks = HealthChecks::default();
        let start = Instant::now();
        let mut reported = |seconds| checks.count(start + Duration::from_secs(seconds));
        assert_eq!(reported(0), Some(1));
        for seconds in 1..60 {
            assert_eq!(reported(seconds), None);
        }
        assert_eq!(reported(60), Some(60));
        assert_eq!(reported(61), None);
        assert_eq!(reported(500), Some(2));
    }
}
