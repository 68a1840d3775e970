//! The words that keys with a choice take. Reading, showing and the schema all use these lists.

use crate::rule::policy::{
    AuthorityMatch, ErrorFormat, KeyFormat, Mode, OnBodyTooLarge, OnDuplicate, OnInFlight, OnStoreDown, OnUnknown,
};

use super::settled::{ClientCertificate, HostHeader, LogFormat};

/// A type whose values are words of the configuration.
pub(crate) trait Words: Copy + PartialEq + 'static {
    /// Every word with its value, in the order of the contract.
    const WORDS: &'static [(&'static str, Self)];

    /// The word for this value.
    fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, value)| *value == self).map(|(word, _)| *word).expect("every value has its word")
    }
}

/// The words of a type, without their values.
pub(crate) fn words<W: Words>() -> Vec<&'static str> {
    W::WORDS.iter().map(|(word, _)| *word).collect()
}

macro_rules! words {
    ($($type:ty { $($word:literal => $value:expr),+ $(,)? })+) => {$(
        impl Words for $type {
            const WORDS: &'static [(&'static str, Self)] = &[$(($word, $value)),+];
        }
    )+};
}

/// `store.kind`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Memory,
    Redis,
}

words! {
    Mode { "enforce" => Self::Enforce, "observe" => Self::Observe, "off" => Self::Off }
    KeyFormat { "any" => Self::Any, "uuid" => Self::Uuid }
    AuthorityMatch { "match" => Self::Match, "ignore" => Self::Ignore }
    OnInFlight { "wait" => Self::Wait, "reject" => Self::Reject }
    OnDuplicate { "replay" => Self::Replay, "reject" => Self::Reject, "ack" => Self::Ack }
    OnUnknown { "hold" => Self::Hold, "retry" => Self::Retry }
    OnStoreDown { "reject" => Self::Reject, "forward" => Self::Forward }
    OnBodyTooLarge { "reject" => Self::Reject, "pass" => Self::Pass }
    ErrorFormat { "problem" => Self::Problem, "stripe" => Self::Stripe }
    HostHeader { "preserve" => Self::Preserve, "upstream" => Self::Upstream }
    ClientCertificate { "required" => Self::Required, "optional" => Self::Optional }
    LogFormat { "text" => Self::Text, "json" => Self::Json }
    Kind { "memory" => Self::Memory, "redis" => Self::Redis }
    tracing::Level {
        "error" => Self::ERROR,
        "warn" => Self::WARN,
        "info" => Self::INFO,
        "debug" => Self::DEBUG,
        "trace" => Self::TRACE,
    }
}
