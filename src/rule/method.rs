//! A method's class, from the IANA HTTP Method Registry (contract: R-2).
//!
//! [RFC 9110 s9.2](https://www.rfc-editor.org/rfc/rfc9110#section-9.2) defines *safe* and *idempotent*, and s16.1.1 the
//! registry. The table is kept here whole, so that what a method means depends on nothing outside.

use http::Method;

use super::policy::{Guard, Mode, Policy};

/// What the registry says of a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Read-only (RFC 9110 s9.2.1), and so idempotent.
    Safe,
    /// Twice is as once (RFC 9110 s9.2.2).
    Idempotent,
    /// Neither, or not registered.
    NonIdempotent,
}

impl Class {
    /// Every class, in the order of the contract.
    pub const ALL: [Self; 3] = [Self::Safe, Self::Idempotent, Self::NonIdempotent];

    /// The `class` label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Safe => "safe",
            Self::Idempotent => "idempotent",
            Self::NonIdempotent => "non-idempotent",
        }
    }
}

/// The class of a method. Names are case-sensitive (RFC 9110 s9.1): `get` is not registered.
#[must_use]
pub fn classify(method: &Method) -> Class {
    match *method {
        // The common ones, which `http` compares without looking at text.
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE => Class::Safe,
        Method::PUT | Method::DELETE => Class::Idempotent,
        Method::POST | Method::PATCH => Class::NonIdempotent,
        _ => registered(method.as_str()).unwrap_or(Class::NonIdempotent),
    }
}

/// Whether the route deduplicates requests of this method, `mode = "observe"` included.
#[must_use]
pub fn guards(policy: &Policy, method: &Method) -> bool {
    if policy.mode == Mode::Off {
        return false;
    }
    match &policy.guard {
        Guard::NonIdempotent => classify(method) == Class::NonIdempotent,
        Guard::Methods(methods) => methods.contains(method),
    }
}

fn registered(name: &str) -> Option<Class> {
    REGISTRY.iter().find(|(registered, _)| *registered == name).map(|(_, class)| *class)
}

/// [The registry](https://www.iana.org/assignments/http-methods/http-methods.xhtml), with `QUERY` of RFC 10008.
/// Every method registered as safe is registered as idempotent too.
const REGISTRY: [(&str, Class); 41] = {
    use Class::{Idempotent, NonIdempotent, Safe};
    [
        ("*", NonIdempotent),              // RFC 9110 s18.2: reserved
        ("ACL", Idempotent),               // RFC 3744 s8.1
        ("BASELINE-CONTROL", Idempotent),  // RFC 3253 s12.6
        ("BIND", Idempotent),              // RFC 5842 s4
        ("CHECKIN", Idempotent),           // RFC 3253 s4.4, s9.4
        ("CHECKOUT", Idempotent),          // RFC 3253 s4.3, s8.8
        ("CONNECT", NonIdempotent),        // RFC 9110 s9.3.6
        ("COPY", Idempotent),              // RFC 4918 s9.8
        ("DELETE", Idempotent),            // RFC 9110 s9.3.5
        ("GET", Safe),                     // RFC 9110 s9.3.1
        ("HEAD", Safe),                    // RFC 9110 s9.3.2
        ("LABEL", Idempotent),             // RFC 3253 s8.2
        ("LINK", Idempotent),              // RFC 2068 s19.6.1.2
        ("LOCK", NonIdempotent),           // RFC 4918 s9.10
        ("MERGE", Idempotent),             // RFC 3253 s11.2
        ("MKACTIVITY", Idempotent),        // RFC 3253 s13.5
        ("MKCALENDAR", Idempotent),        // RFC 4791 s5.3.1, RFC 8144 s2.3
        ("MKCOL", Idempotent),             // RFC 4918 s9.3, RFC 5689 s3, RFC 8144 s2.3
        ("MKREDIRECTREF", Idempotent),     // RFC 4437 s6
        ("MKWORKSPACE", Idempotent),       // RFC 3253 s6.3
        ("MOVE", Idempotent),              // RFC 4918 s9.9
        ("OPTIONS", Safe),                 // RFC 9110 s9.3.7
        ("ORDERPATCH", Idempotent),        // RFC 3648 s7
        ("PATCH", NonIdempotent),          // RFC 5789 s2
        ("POST", NonIdempotent),           // RFC 9110 s9.3.3
        ("PRI", Safe),                     // RFC 9113 s3.4
        ("PROPFIND", Safe),                // RFC 4918 s9.1, RFC 8144 s2.1
        ("PROPPATCH", Idempotent),         // RFC 4918 s9.2, RFC 8144 s2.2
        ("PUT", Idempotent),               // RFC 9110 s9.3.4
        ("QUERY", Safe),                   // RFC 10008
        ("REBIND", Idempotent),            // RFC 5842 s6
        ("REPORT", Safe),                  // RFC 3253 s3.6, RFC 8144 s2.1
        ("SEARCH", Safe),                  // RFC 5323 s2
        ("TRACE", Safe),                   // RFC 9110 s9.3.8
        ("UNBIND", Idempotent),            // RFC 5842 s5
        ("UNCHECKOUT", Idempotent),        // RFC 3253 s4.5
        ("UNLINK", Idempotent),            // RFC 2068 s19.6.1.3
        ("UNLOCK", Idempotent),            // RFC 4918 s9.11
        ("UPDATE", Idempotent),            // RFC 3253 s7.1
        ("UPDATEREDIRECTREF", Idempotent), // RFC 4437 s7
        ("VERSION-CONTROL", Idempotent),   // RFC 3253 s3.5
    ]
};

#[cfg(test)]
mod tests {
    use super::*;

    fn class(name: &str) -> Class {
        classify(&Method::from_bytes(name.as_bytes()).unwrap())
    }

    // contract: R-2
    #[test]
    fn every_registered_method_has_the_registrys_class() {
        for (name, expected) in REGISTRY {
            assert_eq!(class(name), expected, "{name}");
        }
        assert!(REGISTRY.is_sorted_by_key(|(name, _)| *name));
    }

    // contract: R-2
    #[test]
    fn query_is_safe() {
        assert_eq!(class("QUERY"), Class::Safe);
    }

    // contract: R-2
    #[test]
    fn names_are_case_sensitive_and_an_unregistered_one_is_neither() {
        for name in ["get", "Put", "PURGE", "QUERIES"] {
            assert_eq!(class(name), Class::NonIdempotent, "{name}");
        }
    }

    // contract: R-3
    #[test]
    fn a_list_guards_exactly_its_methods_and_off_guards_none() {
        let listed = Policy { guard: Guard::Methods(vec![Method::PUT]), ..Policy::default() };
        assert!(guards(&listed, &Method::PUT) && !guards(&listed, &Method::POST));
        let default = Policy::default();
        assert!(guards(&default, &Method::POST) && !guards(&default, &Method::PUT));
        let off = Policy { mode: Mode::Off, ..Policy::default() };
        assert!(!guards(&off, &Method::POST));
        let observe = Policy { mode: Mode::Observe, ..Policy::default() };
        assert!(guards(&observe, &Method::POST));
    }

    #[test]
    fn classes_are_named_as_the_metric_labels() {
        assert_eq!(Class::ALL.map(Class::as_str), ["safe", "idempotent", "non-idempotent"]);
    }
}
