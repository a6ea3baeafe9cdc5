//! Error kinds: the one table that maps them to HTTP status, exit code and problem type.

/// What went wrong, as a caller would act on it. Every crate's error has a `kind()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The input is wrong; the message says how to mend it.
    Invalid,
    /// Not authenticated.
    Unauthenticated,
    /// Authenticated, and not allowed.
    Denied,
    /// There is no such thing (or none that this caller may know of).
    NotFound,
    /// It is there already, or changed meanwhile.
    Conflict,
    /// The precondition of a conditional request does not hold.
    Precondition,
    /// The body is larger than the plan allows.
    TooLarge,
    /// The tenant is suspended.
    Suspended,
    /// There is no tenant for this work.
    NoTenant,
    /// The route was stale: refresh and retry.
    Moved,
    /// A limit is reached; come back later.
    Limited,
    /// Something that is needed is away; come back later.
    Unavailable,
    /// It took longer than allowed.
    Timeout,
    /// The boundary was tried: always a security event.
    Security,
    /// A fault of ours; the details stay in our log.
    Internal,
}

impl Kind {
    /// HTTP status code (RFC 9110).
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Invalid => 422,
            Self::Unauthenticated => 401,
            Self::Denied | Self::Suspended | Self::Security => 403,
            Self::NotFound | Self::NoTenant => 404,
            Self::Conflict => 409,
            Self::Precondition => 412,
            Self::TooLarge => 413,
            Self::Limited => 429,
            Self::Moved | Self::Unavailable => 503,
            Self::Timeout => 504,
            Self::Internal => 500,
        }
    }

    /// Exit code of the CLI: 2 usage, 3 not found, 4 conflict, 5 denied, 6 unavailable, 1 anything else.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Invalid | Self::TooLarge => 2,
            Self::NotFound | Self::NoTenant => 3,
            Self::Conflict | Self::Precondition => 4,
            Self::Unauthenticated | Self::Denied | Self::Suspended | Self::Security => 5,
            Self::Moved | Self::Limited | Self::Unavailable | Self::Timeout => 6,
            Self::Internal => 1,
        }
    }

    /// Stable name: the last part of a problem's `type` (RFC 9457).
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Unauthenticated => "unauthenticated",
            Self::Denied => "denied",
            Self::NotFound => "not-found",
            Self::Conflict => "conflict",
            Self::Precondition => "precondition-failed",
            Self::TooLarge => "too-large",
            Self::Suspended => "tenant-suspended",
            Self::NoTenant => "unknown-tenant",
            Self::Moved => "moved",
            Self::Limited => "limited",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Security => "refused",
            Self::Internal => "internal",
        }
    }

    /// One line for people who see nothing else.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Invalid => "The request is not valid",
            Self::Unauthenticated => "Log in first",
            Self::Denied => "Not allowed",
            Self::NotFound => "Not found",
            Self::Conflict => "In conflict with what is there",
            Self::Precondition => "It changed meanwhile",
            Self::TooLarge => "The body is too large",
            Self::Suspended => "This tenant is suspended",
            Self::NoTenant => "There is no such tenant",
            Self::Moved => "Moving; try again",
            Self::Limited => "Too much at once; try again later",
            Self::Unavailable => "Not available just now; try again later",
            Self::Timeout => "It took too long",
            Self::Security => "Refused",
            Self::Internal => "Something went wrong on our side",
        }
    }
}
