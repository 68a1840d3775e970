//! What can go wrong with a command, and what that says about whether it ran.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::store::StoreError;

/// Why a command brought no answer to its question.
#[derive(Debug, Clone)]
pub(super) enum Trouble {
    /// It was not handed to any connection: it did not run.
    NotSent(String),
    /// The server refused it (contract: S-7): it did not run.
    Refused(RedisError),
    /// It was sent, and no answer came: nobody can tell whether it ran, or will.
    Doubt(String),
}

/// What a refusal asks of the one who sent the command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Remedy {
    /// The slot is another server's now.
    Moved,
    /// This key, this time, is at another server (`HOST:PORT`).
    Ask(String),
    /// The cluster is changing: once more, soon.
    Again,
    /// The server is no master (any more).
    Elsewhere,
    /// The server does not know the script.
    SendScript,
    /// Nothing can be done.
    None,
}

impl Trouble {
    /// Reads an error of the client library. Only what the server itself said promises that nothing was done.
    pub(super) fn of(error: RedisError) -> Self {
        if error.code().is_some() { Self::Refused(error) } else { Self::Doubt(told(&error)) }
    }

    /// Whether the server would refuse every write so: whichever record it is about.
    pub(super) fn is_of_the_server(&self) -> bool {
        let Self::Refused(error) = self else { return false };
        match error.code() {
            Some("NOREPLICAS" | "MISCONF" | "NOPERM") => true,
            // How Redis 7.0, and later ones, say NOPERM of a command within a script.
            Some("ERR") => error.detail().is_some_and(|detail| {
                ["executing the script", "ACL failure in script"].iter().any(|sign| detail.contains(sign))
            }),
            Some(_) | None => false,
        }
    }

    pub(super) fn remedy(&self) -> Remedy {
        let Self::Refused(error) = self else { return Remedy::None };
        match (error.kind(), error.redirect_node()) {
            (ErrorKind::Server(ServerErrorKind::Ask), Some((address, _))) => Remedy::Ask(address.to_owned()),
            (ErrorKind::Server(ServerErrorKind::Moved), _) => Remedy::Moved,
            (ErrorKind::Server(ServerErrorKind::TryAgain | ServerErrorKind::ClusterDown), _) => Remedy::Again,
            (ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown), _) => Remedy::Elsewhere,
            (ErrorKind::Server(ServerErrorKind::NoScript), _) => Remedy::SendScript,
            _ => Remedy::None,
        }
    }
}

impl From<Trouble> for StoreError {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::NotSent(why) => Self::Refused(why),
            Trouble::Refused(error) if error.code() == Some("OOM") => Self::Full,
            // A record is a string: what stands in its place was put there by somebody else.
            Trouble::Refused(error) if error.code() == Some("WRONGTYPE") => Self::Damaged(told(&error)),
            Trouble::Refused(error) => Self::Refused(told(&error)),
            Trouble::Doubt(why) => Self::Unknown(why),
        }
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotSent(why) | Self::Doubt(why) => f.write_str(why),
            Self::Refused(error) => f.write_str(&told(error)),
        }
    }
}

/// What an error says, without what it was about.
pub(super) fn told(error: &RedisError) -> String {
    match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        (Some(code), None) => code.to_owned(),
        (None, _) => error.to_string(),
    }
}
