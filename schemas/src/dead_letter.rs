//! Headers of a dead letter. Its body is the original message, byte for byte, and the original headers are kept
//! beside these.

/// The stage that buried it.
pub const STAGE: &str = "Throughline-Stage";
/// The failure code, as in `workflow_failed`.
pub const CODE: &str = "Throughline-Code";
/// What was wrong, on one line, for a person.
pub const ERROR: &str = "Throughline-Error";
/// How often the message had been delivered.
pub const ATTEMPTS: &str = "Throughline-Attempts";
/// The subject it came from.
pub const SUBJECT: &str = "Throughline-Subject";
/// Its sequence in the event stream.
pub const SEQUENCE: &str = "Throughline-Sequence";
/// When it was buried, RFC 3339.
pub const TIME: &str = "Throughline-Time";
/// The stream that it is in.
pub const STREAM: &str = "Throughline-Stream";
/// The consumer that delivered it.
pub const CONSUMER: &str = "Throughline-Consumer";
/// The process that buried it, as its connection is called.
pub const WORKER: &str = "Throughline-Worker";
/// On an input that repeats a buried one: the dead letter's sequence in its stream.
pub const RETRY_OF: &str = "Throughline-Retry-Of";
/// How long the original body is, in bytes, where only its beginning is kept: there was no room for all of it.
pub const BODY_BYTES: &str = "Throughline-Body-Bytes";
