//! Why a request is refused before anybody looks at what it asks for.

use std::{error::Error, fmt};

use http::StatusCode;

/// A request broke a rule of framing; nothing of it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Of the answer.
    pub status: StatusCode,
    /// Which rule.
    pub reason: Reason,
    /// One sentence for the client: what is wrong with its request.
    pub detail: &'static str,
}

impl Refusal {
    /// The refusal that ended a request's body, if one did: looks along the error's chain of sources.
    #[must_use]
    pub fn of(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(refusal) = error.downcast_ref::<Self>() {
                return Some(*refusal);
            }
            // An `io::Error` gives the source of what it carries, never the carried error itself.
            if let Some(carried) = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref)
                && let Some(refusal) = carried.downcast_ref::<Self>()
            {
                return Some(*refusal);
            }
            next = error.source();
        }
        None
    }
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        let (_, status, detail) = reason.row();
        Self { status, reason, detail }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason.as_str(), self.detail)
    }
}

impl Error for Refusal {}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $label:literal $status:ident $detail:literal;)+) => {
        /// The rule that a request broke: a value of the `reason` label of `refused_total`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Reason {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            const fn row(self) -> (&'static str, StatusCode, &'static str) {
                match self {
                    $(Self::$name => ($label, StatusCode::$status, $detail),)+
                }
            }
        }
    };
}

impl Reason {
    /// The label's value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.row().0
    }

    /// Where the reason stands in [`Reason::ALL`]; metric handles are kept in arrays by it.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

reasons! {
    /// Not `METHOD SP target SP version` (RFC 9112 s3).
    RequestLine = "request-line" BAD_REQUEST "The request line is malformed.";
    /// `CONNECT` (contract: R-2).
    MethodConnect = "method-connect" METHOD_NOT_ALLOWED "CONNECT is not served here.";
    /// `PRI`: HTTP/2's preface in the wrong place (contract: R-2).
    MethodPri = "method-pri" BAD_REQUEST "PRI is not a method.";
    /// Neither origin-form, nor absolute-form with http or https, nor `*` with OPTIONS; or bytes that no URI has
    /// (RFC 9112 s3.2).
    Target = "target" BAD_REQUEST "The request target is malformed.";
    /// The request line is longer than `max_head`.
    TargetTooLong = "target-too-long" URI_TOO_LONG "The request target is too long.";
    /// Neither HTTP/1.1 nor HTTP/1.0.
    Version = "version" HTTP_VERSION_NOT_SUPPORTED "Only HTTP/1.1 and HTTP/1.0 are spoken in this form.";
    /// The head is longer than `max_head`.
    HeadTooLarge = "head-too-large" REQUEST_HEADER_FIELDS_TOO_LARGE "The request's header fields are too large.";
    /// More than 100 field lines.
    TooManyFields = "too-many-fields" REQUEST_HEADER_FIELDS_TOO_LARGE "The request has too many header fields.";
    /// A line that does not end with CR LF (RFC 9112 s2.2).
    LineEnd = "line-end" BAD_REQUEST "A line of the request does not end with CR LF.";
    /// CR, NUL or another control character within a line (RFC 9110 s5.5).
    ControlCharacter = "control-character" BAD_REQUEST "The request has a control character in its head.";
    /// A line that continues the one before (RFC 9112 s5.2).
    ObsFold = "obs-fold" BAD_REQUEST "A header field is folded over several lines.";
    /// A field name that is no token; space before the colon; no colon (RFC 9112 s5.1).
    FieldName = "field-name" BAD_REQUEST "A header field's name is malformed.";
    /// A field value that begins or ends with a space or tab, in HTTP/2 (RFC 9113 s8.2.1).
    FieldValue = "field-value" BAD_REQUEST "A header field's value begins or ends with a blank.";
    /// A name that equals a framing field's once `_` is read as `-`, as many an upstream does.
    Lookalike = "lookalike-name" BAD_REQUEST "A header field's name could be taken for that of a framing field.";
    /// No Host (RFC 9112 s3.2).
    HostMissing = "host-missing" BAD_REQUEST "The request has no Host.";
    /// Two Hosts (RFC 9112 s3.2).
    HostRepeated = "host-repeated" BAD_REQUEST "The request has more than one Host.";
    /// A Host that is not `host` or `host:port` (RFC 9110 s7.2).
    HostInvalid = "host-invalid" BAD_REQUEST "The request's Host is malformed.";
    /// The target's authority differs from Host.
    Authority = "authority-mismatch" BAD_REQUEST "The request's target and its Host name different authorities.";
    /// Content-Length with Transfer-Encoding (RFC 9112 s6.3).
    LengthWithCoding = "length-with-coding" BAD_REQUEST "The request has both Content-Length and Transfer-Encoding.";
    /// More than one Content-Length.
    LengthRepeated = "length-repeated" BAD_REQUEST "The request has more than one Content-Length.";
    /// A Content-Length that is not a canonical decimal number.
    LengthInvalid = "length-invalid" BAD_REQUEST "The request's Content-Length is not a plain decimal number.";
    /// A Transfer-Encoding other than one `chunked`, or with HTTP/1.0 (RFC 9112 s6.1).
    Coding = "coding" BAD_REQUEST "The request's Transfer-Encoding is not one chunked.";
    /// A Connection field that names a field which framing or routing reads (RFC 9110 s7.6.1).
    ConnectionNames = "connection-names-framing" BAD_REQUEST "The request's Connection names a field that is not hop-by-hop.";
    /// An Expect other than `100-continue` (RFC 9110 s10.1.1).
    Expectation = "expectation" EXPECTATION_FAILED "The request's Expect is not 100-continue.";
    /// A chunk's size line, or the end of its data, is malformed (RFC 9112 s7.1).
    Chunk = "chunk" BAD_REQUEST "The request's chunked body is malformed.";
    /// A trailer field that is malformed, or one that must not stand there (RFC 9110 s6.5.1).
    Trailer = "trailer" BAD_REQUEST "The request's trailer section is malformed.";
    /// The head did not arrive within `header_timeout`.
    HeadTimeout = "head-timeout" REQUEST_TIMEOUT "The request's head did not arrive in time.";
}
