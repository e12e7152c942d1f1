//! Which errors of a database are transient: time or an operator ends them, without a change of our code or of the request. One list, by
//! SQLSTATE, for the services and `migration`. After a transient error a request is answered `503`, a message is tried again and `migration`
//! waits. Any other error is a bug of ours (`500`), or the fault of a message.
//!
//! The classes of [PostgreSQL's appendix](https://www.postgresql.org/docs/current/errcodes-appendix.html):
//!
//! | class | transient | why |
//! |---|---|---|
//! | 08 connection | yes | also PgBouncer's errors while its server is away |
//! | 0A not supported | `0A000` | a migration changed the columns of a cached plan; a new session makes a new plan |
//! | 25 transaction state | `25006`, `25P03`, `25P04` | a server that is read-only for now; a transaction that timed out at the server. The others are wrong statements of ours |
//! | 26 statement name | yes | a prepared statement that the session, or the pooler, has lost; a new session prepares it again |
//! | 28 authorization | yes | the password was changed, or `pg_hba.conf` |
//! | 3D, 3F no such database, no such schema | yes | renamed, or being restored |
//! | 40 rolled back | yes | a conflict with others |
//! | 42 syntax and access | `42501`, `42P05` | a revoked privilege; a statement name that another client has used in the pooler's session. A missing table or column is a bug: services start after `migration`, so more waiting does not help |
//! | 53 resources, 55 not in the right state, 57 operator, 58 system | yes | a full disk, a lock timeout, a shutdown, `statement_timeout` |
//! | 54 program limits | `54000` | transaction ids run out until a `VACUUM`. The others are statements that are too large |
//! | 72 snapshot too old, F0 configuration file, XX internal | yes | time; a fault in the configuration file; damaged data, or a fault of the server: the operator's work, not ours |
//! | 00 to 03, 09, 0B to 0P, 10, 20 to 24, 27, 2B, 2D, 2F, 34, 38, 39, 3B, 44, HV, P0 | no | values, constraints, and statements that are wrong whenever they are sent |
//!
//! An error that ends the session (`FATAL`, `PANIC`) or prevents it is transient, too: it is not about the statement.

use std::borrow::Cow;

use sqlx::postgres::{PgDatabaseError, PgSeverity};

use super::MAX_CONNECTIONS;

/// Transient as a whole.
const TRANSIENT_CLASSES: [&str; 13] = [
    "08", "26", "28", "3D", "3F", "40", "53", "55", "57", "58", "72", "F0", "XX",
];

/// Transient states of other classes.
const TRANSIENT_STATES: [&str; 7] = ["0A000", "25006", "25P03", "25P04", "42501", "42P05", "54000"];

/// The server has ended the session: it shut down, terminated the session, or the session was idle.
const SESSION_ENDED: [&str; 5] = ["57P01", "57P02", "57P05", "25P03", "25P04"];

/// A prepared statement or cached plan of the session is outdated or lost.
const PLAN_OUTDATED: [&str; 3] = ["0A000", "26000", "42P05"];

/// `ends_session`: whether the severity is `FATAL` or `PANIC`.
fn is_transient_state(sqlstate: &str, ends_session: bool) -> bool {
    ends_session
        || TRANSIENT_STATES.contains(&sqlstate)
        || TRANSIENT_CLASSES.iter().any(|class| sqlstate.starts_with(class))
}

/// The kind of an error, for spans: the SQLSTATE where the server has answered.
#[must_use]
pub fn error_type(error: &sqlx::Error) -> Cow<'static, str> {
    match error {
        sqlx::Error::Io(_) => "io".into(),
        sqlx::Error::Tls(_) => "tls".into(),
        sqlx::Error::PoolTimedOut => "pool_timed_out".into(),
        _ => refusal(error).map_or("_OTHER".into(), |refusal| refusal.code().to_owned().into()),
    }
}

/// Whether the same statement can succeed later: the server cannot be reached, or its error is transient. Every other error, for example a
/// missing column, is a bug of ours.
#[must_use]
pub fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(_) => refusal(error).is_some_and(|refusal| {
            let ends_session = matches!(refusal.severity(), PgSeverity::Fatal | PgSeverity::Panic);
            is_transient_state(refusal.code(), ends_session)
        }),
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        _ => false,
    }
}

/// Whether PostgreSQL refused a value, so that a retry cannot help. Of rows that are written together, one is to blame.
#[must_use]
pub fn is_invalid_value(error: &sqlx::Error) -> bool {
    const DATA_EXCEPTION: &str = "22";
    const INTEGRITY_VIOLATION: &str = "23";
    let code = refusal(error).map(PgDatabaseError::code).unwrap_or_default();
    let is_of_values = code.starts_with(DATA_EXCEPTION) || code.starts_with(INTEGRITY_VIOLATION);
    matches!(error, sqlx::Error::Encode(_)) || is_of_values && !is_transient(error)
}

fn refusal(error: &sqlx::Error) -> Option<&PgDatabaseError> {
    error.as_database_error()?.try_downcast_ref()
}

/// Decides on retries of work that is idempotent, or leaves nothing behind when it fails.
#[derive(Debug, Default)]
pub struct Retries {
    lost: u32,
    outdated: u32,
}

impl Retries {
    /// Whether the session failed and not the server, so that a retry on another session makes sense. A lost session is retried once. An
    /// outdated plan is retried as often as there may be connections, because each may have an outdated plan. The caller must close the
    /// connection that failed, as [`super::with_connection`] does.
    pub fn allow(&mut self, error: &sqlx::Error) -> bool {
        let code = refusal(error).map(PgDatabaseError::code).unwrap_or_default();
        let is_lost = match error {
            // Our own timeout: no time is left for a retry.
            sqlx::Error::Io(error) => error.kind() != std::io::ErrorKind::TimedOut,
            sqlx::Error::Protocol(_) => true,
            _ => SESSION_ENDED.contains(&code),
        };
        if is_lost {
            self.lost += 1;
            self.lost <= 1
        } else if PLAN_OUTDATED.contains(&code) {
            self.outdated += 1;
            self.outdated <= MAX_CONNECTIONS
        } else {
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_away_differs_from_a_bug_of_ours() {
        assert!(is_transient(&sqlx::Error::PoolTimedOut));
        assert!(is_transient(&sqlx::Error::Io(
            std::io::ErrorKind::ConnectionReset.into()
        )));
        assert!(!is_transient(&sqlx::Error::ColumnNotFound("id".to_owned())));
    }

    #[test]
    fn errors_that_an_operator_ends_are_transient() {
        for state in [
            "08006", "08P01", "0A000", "25006", "25P03", "26000", "28000", "28P01", "3D000", "3F000",
            "40001", "40P01", "42501", "42P05", "53100", "53300", "54000", "55P03", "57014", "57P01",
            "57P03", "58030", "72000", "F0000", "XX000", "XX001",
        ] {
            assert!(is_transient_state(state, false), "{state}");
        }
        // For example an invalid setting of the role: no session begins.
        assert!(is_transient_state("22023", true));
    }

    #[test]
    fn wrong_values_and_wrong_statements_are_not_transient() {
        for state in [
            "", "02000", "22003", "22P02", "23505", "23514", "25P02", "42601", "42703", "42P01", "54001",
            "54023", "P0001",
        ] {
            assert!(!is_transient_state(state, false), "{state}");
        }
    }

    #[test]
    fn a_lost_session_is_retried_once_and_our_own_timeout_never() {
        let broken = |kind: std::io::ErrorKind| sqlx::Error::Io(kind.into());
        let mut retries = Retries::default();
        assert!(!retries.allow(&broken(std::io::ErrorKind::TimedOut)));
        assert!(!retries.allow(&sqlx::Error::PoolTimedOut));
        assert!(retries.allow(&broken(std::io::ErrorKind::ConnectionReset)));
        assert!(!retries.allow(&broken(std::io::ErrorKind::ConnectionReset)));
    }
}
