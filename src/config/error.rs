//! What is wrong with a configuration: every problem at once, each with the place to fix it.

use std::fmt;
use std::sync::Arc;

/// Where a value was set. Ordered as the layers are: a later one wins.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// The configuration file.
    File {
        /// The path as the user gave it.
        file: Arc<str>,
        /// Counted from 1.
        line: usize,
    },
    /// An environment variable.
    Env(Arc<str>),
    /// A command line flag.
    Flag(Arc<str>),
}

impl Origin {
    /// The file as a whole.
    pub(super) fn whole_file(file: &Arc<str>) -> Self {
        Self::File { file: Arc::clone(file), line: 0 }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { file, line: 0 } => f.write_str(file),
            Self::File { file, line } => write!(f, "{file}:{line}"),
            Self::Env(name) | Self::Flag(name) => f.write_str(name),
        }
    }
}

/// One mistake: where it was made, which key it is about, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The file and line, the variable or the flag to change.
    pub place: Origin,
    /// The key in full, such as `sources[1].timeout_ms`; empty when the problem is not about one key.
    pub key: String,
    /// What is wrong; never repeats a secret.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.place != Origin::Default {
            write!(f, "{}: ", self.place)?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// Everything that is wrong with a configuration, in the order of the file, then variables, then flags.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors {
    problems: Vec<Problem>,
}

impl ConfigErrors {
    pub(super) fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort();
        problems.dedup();
        Self { problems }
    }

    /// The problems, in the order in which they are printed.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

/// One line per problem.
impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}
