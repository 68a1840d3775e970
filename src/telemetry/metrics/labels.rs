//! Values of labels.

macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident => $word:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant),* }

        impl $name {
            pub(super) const WORDS: &'static [&'static str] = &[$($word),*];

            /// The label's value.
            #[must_use]
            pub const fn word(self) -> &'static str {
                Self::WORDS[self as usize]
            }
        }
    };
}

labels! {
    /// The `how` of `duplicates_prevented_total`.
    Prevented {
        /// Answered from the record at once.
        Replayed => "replayed",
        /// Waited for the owner's answer.
        Waited => "waited",
        /// Refused: in flight, or `on_duplicate = "reject"`.
        Rejected => "rejected",
        /// Refused: the outcome is unknown.
        Held => "held",
    }
}

labels! {
    /// The `why` of `unguarded_total`.
    Unguarded {
        /// The store could not be asked.
        StoreDown => "store_down",
        /// The body was larger than `max_request_body`.
        BodyTooLarge => "body_too_large",
        /// The scope's value changes with each request.
        ScopeUnstable => "scope_unstable",
        /// gRPC always passes.
        Grpc => "grpc",
    }
}

labels! {
    /// The `would` of `observed_total`.
    Would {
        /// Forwarded.
        Executed => "executed",
        /// Answered from the record.
        Replayed => "replayed",
        /// Waited for the owner, or refused.
        InFlight => "in-flight",
        /// Refused: another request had the key.
        KeyReused => "key-reused",
        /// Refused: the outcome is unknown.
        Unknown => "unknown",
        /// Refused: the answer was not kept.
        NotKept => "not-kept",
        /// Refused for another reason.
        Rejected => "rejected",
    }
}

labels! {
    /// The `change` of `operator_changes_total`.
    OperatorChange {
        /// An unknown record was executed.
        ResolvedExecuted => "resolved_executed",
        /// An unknown record was not executed: its key is free.
        ResolvedNotExecuted => "resolved_not_executed",
        /// A record is forgotten: its key is free.
        Forgotten => "forgotten",
    }
}

labels! {
    /// The `result` of `config_reloads_total`.
    Reloaded {
        /// The new configuration holds.
        Ok => "ok",
        /// It is valid, but may not be taken without a restart or consent.
        Refused => "refused",
        /// It is not valid.
        Failed => "failed",
    }
}

/// The `reason` of `released_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Released {
    /// Nothing was sent.
    NotSent,
    /// An answer of `release_on`.
    Status(u16),
}
