//! `GET /healthcheck`, and the program argument `healthcheck` that asks for it, as images without a shell have no `curl`.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use axum::Json;

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

/// Asks the service that runs with this environment for its health.
#[expect(
    clippy::print_stderr,
    reason = "the container engine keeps what a failed check prints"
)]
pub(crate) fn probe(mut env: Env) -> ExitCode {
    let listen = Listen::from_env(&mut env);
    let asked = env.finish(()).context("healthcheck").and_then(|()| ask(&listen));
    match asked {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("unhealthy: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn ask(listen: &Listen) -> anyhow::Result<()> {
    let host = if listen.host == "0.0.0.0" {
        "127.0.0.1"
    } else {
        &listen.host
    };
    let address = (host, listen.port)
        .to_socket_addrs()?
        .next()
        .context("the host has no address")?;
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(b"GET /healthcheck HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(
        answer.starts_with("HTTP/1.1 200 "),
        "the service answered {:?}",
        answer.lines().next().unwrap_or_default()
    );
    Ok(())
}
