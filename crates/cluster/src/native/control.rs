//! The socket over which scripts/part.sh asks for the parts of a running cluster: HTTP, each answer in lines of text.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use axum::Router;
use axum::extract::{Path as UrlPath, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use futures_util::future::join_all;
use tokio::net::{UnixListener, UnixSocket};

use super::supervisor::{Action, Supervised};

const BACKLOG: u32 = 16;
/// As many bytes as the kernel allows in the path of a socket.
const MAX_PATH_BYTES: usize = 107;

/// The socket, which is removed with this.
pub(crate) struct ControlSocket {
    listener: UnixListener,
    _file: SocketFile,
}

struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

impl ControlSocket {
    /// Listens at `path`, for this user only.
    ///
    /// # Errors
    /// When the path is too long, or nothing can be created there.
    pub(crate) fn bind(path: PathBuf) -> anyhow::Result<Self> {
        let length = path.as_os_str().len();
        ensure!(
            length <= MAX_PATH_BYTES,
            "the path {} has {length} bytes, and that of a socket may have {MAX_PATH_BYTES}: use a shorter --folder, or a relative one",
            path.display()
        );
        let file = SocketFile(path);
        let context = || format!("could not listen at {}", file.0.display());
        // A cluster that was killed has left its socket. No other cluster runs here, as this one has the lock.
        let _ = fs::remove_file(&file.0);
        let socket = UnixSocket::new_stream().with_context(context)?;
        socket.bind(&file.0).with_context(context)?;
        // Before it listens, so that no other user can connect in between.
        fs::set_permissions(&file.0, Permissions::from_mode(0o600)).with_context(context)?;
        let listener = socket.listen(BACKLOG).with_context(context)?;
        Ok(Self {
            listener,
            _file: file,
        })
    }

    /// Answers requests without end.
    pub(crate) async fn serve(self, parts: Vec<Supervised>) -> std::io::Result<()> {
        let Self { listener, _file } = self;
        let router = Router::new()
            .route("/parts", get(list))
            .route("/parts/{part}/{action}", post(act))
            .with_state(parts);
        axum::serve(listener, router).await
    }
}

async fn list(State(parts): State<Vec<Supervised>>) -> String {
    let lines = join_all(parts.iter().map(Supervised::line)).await;
    lines.join("\n") + "\n"
}

async fn act(
    State(parts): State<Vec<Supervised>>,
    UrlPath((name, action)): UrlPath<(String, Action)>,
) -> (StatusCode, String) {
    let Some(part) = parts.iter().find(|part| part.name() == name) else {
        let names: Vec<_> = parts.iter().map(Supervised::name).collect();
        let message = format!("there is no part {name:?}; the parts are {}\n", names.join(", "));
        return (StatusCode::NOT_FOUND, message);
    };
    match part.act(action).await {
        Ok(line) => (StatusCode::OK, line + "\n"),
        Err(error) => (StatusCode::CONFLICT, format!("{error:#}\n")),
    }
}
