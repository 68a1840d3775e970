//! `secret_file`: the secrets that seal stored responses and key record ids (contract: R-5).

use std::{fmt, fs, io, path::Path};

use zeroize::Zeroizing;

/// Secrets, in the file's order; at least one.
#[derive(Clone)]
pub struct Secrets {
    secrets: Vec<Zeroizing<Vec<u8>>>,
}

/// Why a file yields no secrets.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// It has no line that is not blank.
    #[error("holds no secret")]
    Empty,
}

/// Reads one secret a line; blank lines, and blanks around a secret, are ignored.
///
/// # Errors
///
/// [`SecretsError::Unreadable`] when the file cannot be read, [`SecretsError::Empty`] when no secret is in it.
pub fn read(path: &Path) -> Result<Secrets, SecretsError> {
    Secrets::parse(&Zeroizing::new(fs::read(path)?)).ok_or(SecretsError::Empty)
}

impl Secrets {
    /// The secrets of a file's text, if it has any.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
        let secrets: Vec<_> = lines.map(|line| Zeroizing::new(line.to_vec())).collect();
        (!secrets.is_empty()).then_some(Self { secrets })
    }

    /// Seals what is stored from now on: the first.
    #[must_use]
    pub fn sealing(&self) -> &[u8] {
        self.secrets.first().expect("a secrets file without a secret is refused")
    }

    /// May have sealed what is stored: all of them.
    pub fn opening(&self) -> impl Iterator<Item = &[u8]> {
        self.secrets.iter().map(|secret| secret.as_slice())
    }

    /// Keys the record ids: the last, so that a new sealing secret is put before it and no record is lost.
    #[must_use]
    pub fn id_key(&self) -> &[u8] {
        self.secrets.last().expect("a secrets file without a secret is refused")
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets").field("count", &self.secrets.len()).finish_non_exhaustive()
    }
}
