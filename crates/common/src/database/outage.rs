//! What passes: failures of a database that time or an operator mends, without a change of our code or of the request. One list, by
//! SQLSTATE, for the services and `migration` alike. A request that meets one is told to come again (`503`), a message is tried again,
//! and `migration` waits; anything else is a fault of ours (`500`), or of a message.
//!
//! The classes of [PostgreSQL's appendix](https://www.postgresql.org/docs/current/errcodes-appendix.html):
//!
//! | class | passes | why |
//! |---|---|---|
//! | 08 connection | yes | also what PgBouncer says while its server is away |
//! | 0A not supported | `0A000` | a kept plan whose columns a migration changed; a new session makes a new plan |
//! | 25 transaction state | `25006`, `25P03`, `25P04` | a server that only reads for now; a transaction that the server gave up. The others are wrong statements of ours |
//! | 26 statement name | yes | a prepared statement that the session, or the pooler behind it, has forgotten; a new session prepares it anew |
//! | 28 authorization | yes | the password was changed, or `pg_hba.conf` |
//! | 3D, 3F no such database, no such schema | yes | renamed, or being restored |
//! | 40 rolled back | yes | a conflict with others |
//! | 42 syntax and access | `42501`, `42P05` | a privilege that was revoked; a statement that the pooler's session has by another's hand. A table or column that is not there stays a fault: services wait for `migration`, so that waiting longer does not bring it |
//! | 53 resources, 55 not in the right state, 57 operator, 58 system | yes | a full disk, a lock not to be had, a stop, `statement_timeout` |
//! | 54 program limits | `54000` | no numbers of transactions are left before a `VACUUM`. The others are statements that are too large |
//! | 72 snapshot too old, F0 configuration file, XX internal | yes | time; the operator's file; damaged data, or a fault of the server: its operator's, not ours |
//! | 00 to 03, 09, 0B to 0P, 10, 20 to 24, 27, 2B, 2D, 2F, 34, 38, 39, 3B, 44, HV, P0 | no | values, constraints, and statements that are wrong whenever they are sent |
//!
//! Besides, whatever ends the session (`FATAL`, `PANIC`) or keeps one from beginning passes: the server did not speak of the statement.

use sqlx::postgres::{PgDatabaseError, PgSeverity};

use super::MOST_CONNECTIONS;

/// Classes that pass as a whole.
const CLASSES: [&str; 13] = [
    "08", "26", "28", "3D", "3F", "40", "53", "55", "57", "58", "72", "F0", "XX",
];

/// States of other classes that pass.
const STATES: [&str; 7] = ["0A000", "25006", "25P03", "25P04", "42501", "42P05", "54000"];

/// The server has ended the session: stopped, terminated it, or found it idle.
const ENDED: [&str; 5] = ["57P01", "57P02", "57P05", "25P03", "25P04"];

/// The session keeps, or has lost, what was prepared before.
const OUTDATED: [&str; 3] = ["0A000", "26000", "42P05"];

/// Whether a refusal of PostgreSQL with this SQLSTATE passes; `ends_session` where its severity is `FATAL` or `PANIC`.
fn passes(sqlstate: &str, ends_session: bool) -> bool {
    ends_session || STATES.contains(&sqlstate) || CLASSES.iter().any(|class| sqlstate.starts_with(class))
}

/// Whether the same statement can succeed later: the server cannot be reached, or what it says passes. Everything else, for example a
/// column that is not there, is a fault of ours.
#[must_use]
pub fn is_away(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(_) => refusal(error).is_some_and(|refusal| {
            let ends_session = matches!(refusal.severity(), PgSeverity::Fatal | PgSeverity::Panic);
            passes(refusal.code(), ends_session)
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

/// Whether PostgreSQL refused the values themselves, so that trying again cannot help: of rows that are written together one is to blame.
#[must_use]
pub fn is_fault_of_a_row(error: &sqlx::Error) -> bool {
    const DATA_EXCEPTION: &str = "22";
    const INTEGRITY_VIOLATION: &str = "23";
    match error {
        sqlx::Error::Encode(_) => true,
        sqlx::Error::Database(_) => {
            !is_away(error) && {
                let code = refusal(error).map(PgDatabaseError::code).unwrap_or_default();
                code.starts_with(DATA_EXCEPTION) || code.starts_with(INTEGRITY_VIOLATION)
            }
        }
        _ => false,
    }
}

fn refusal(error: &sqlx::Error) -> Option<&PgDatabaseError> {
    error.as_database_error()?.try_downcast_ref()
}

/// Tries of work that may be done once more: it left nothing behind when it failed, or doing it twice is as doing it once.
#[derive(Debug, Default)]
pub struct Tries {
    lost: u32,
    outdated: u32,
}

impl Tries {
    /// Whether the session was to blame for the failure, and not the server, so that it is worth another try on another session: once where
    /// the session was lost, and as often as there may be connections where what it had prepared was outdated, as that of others may be, too.
    /// The connection that failed must be closed, as [`super::with_connection`] does.
    pub fn once_more(&mut self, error: &sqlx::Error) -> bool {
        let code = refusal(error).map(PgDatabaseError::code).unwrap_or_default();
        let is_lost = match error {
            // Our own limit: there is no time for another.
            sqlx::Error::Io(error) => error.kind() != std::io::ErrorKind::TimedOut,
            sqlx::Error::Protocol(_) => true,
            _ => ENDED.contains(&code),
        };
        if is_lost {
            self.lost += 1;
            self.lost <= 1
        } else if OUTDATED.contains(&code) {
            self.outdated += 1;
            self.outdated <= MOST_CONNECTIONS
        } else {
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_away_is_told_from_a_fault_of_ours() {
        assert!(is_away(&sqlx::Error::PoolTimedOut));
        assert!(is_away(&sqlx::Error::Io(
            std::io::ErrorKind::ConnectionReset.into()
        )));
        assert!(!is_away(&sqlx::Error::ColumnNotFound("id".to_owned())));
    }

    #[test]
    fn what_an_operator_mends_passes() {
        for state in [
            "08006", "08P01", "0A000", "25006", "25P03", "26000", "28000", "28P01", "3D000", "3F000",
            "40001", "40P01", "42501", "42P05", "53100", "53300", "54000", "55P03", "57014", "57P01",
            "57P03", "58030", "72000", "F0000", "XX000", "XX001",
        ] {
            assert!(passes(state, false), "{state}");
        }
        // For example a setting of the role that the server does not take: no session begins.
        assert!(passes("22023", true));
    }

    #[test]
    fn wrong_values_and_wrong_statements_do_not_pass() {
        for state in [
            "", "02000", "22003", "22P02", "23505", "23514", "25P02", "42601", "42703", "42P01", "54001",
            "54023", "P0001",
        ] {
            assert!(!passes(state, false), "{state}");
        }
    }

    #[test]
    fn a_lost_session_is_worth_one_more_and_our_own_limit_none() {
        let broken = |kind: std::io::ErrorKind| sqlx::Error::Io(kind.into());
        let mut tries = Tries::default();
        assert!(!tries.once_more(&broken(std::io::ErrorKind::TimedOut)));
        assert!(!tries.once_more(&sqlx::Error::PoolTimedOut));
        assert!(tries.once_more(&broken(std::io::ErrorKind::ConnectionReset)));
        assert!(!tries.once_more(&broken(std::io::ErrorKind::ConnectionReset)));
    }
}
