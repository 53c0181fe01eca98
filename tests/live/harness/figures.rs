//! What became of the messages of a test that makes something fail, in figures: counted from the log, the rows and the
//! model's own count of its calls, none of which the workers keep.
//!
//! `tests/run.sh` shows those of all tests as a table, by the row of the fault matrix that each belongs to.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    io::Write,
    time::Duration,
};

use super::Log;

/// A file that figures are appended to, as lines of the table in `tests/run.sh`.
const FILE: &str = "THROUGHLINE_TEST_FIGURES";

/// The figures of one test.
#[derive(Debug)]
pub struct Figures {
    /// Of the fault matrix.
    row: u8,
    fault: String,
    faults: usize,
    /// Messages whose publisher was told that they are stored.
    sent: usize,
    /// Of these: without an end, or saved and without a row.
    lost: usize,
    /// Of these: more than one end, one result twice, or more than one row.
    doubled: usize,
    /// Turns that began before the turn before them had ended.
    out_of_order: usize,
    /// Model calls beyond one for each message.
    more_calls: Option<usize>,
    /// How long after the last fault was over the last message had ended, or what the test says instead.
    recovered: Option<Duration>,
}

impl Figures {
    /// Where messages have no workflow by which they could be counted: how many ends each of them has.
    pub fn of_ends(
        row: u8,
        fault: impl Into<String>,
        faults: usize,
        ends: impl Iterator<Item = usize> + Clone,
    ) -> Self {
        Self {
            row,
            fault: fault.into(),
            faults,
            sent: ends.clone().count(),
            lost: ends.clone().filter(|ends| *ends == 0).count(),
            doubled: ends.filter(|ends| *ends > 1).count(),
            out_of_order: 0,
            more_calls: None,
            recovered: None,
        }
    }

    /// Counts what became of `sent`, which stands in the order of publishing.
    pub fn count(row: u8, fault: impl Into<String>, faults: usize, log: &Log, sent: &[String]) -> Self {
        let mut figures = Self::of_ends(row, fault, faults, sent.iter().map(|_| 1));
        // The end of the latest turn of each session so far.
        let mut sessions: HashMap<&str, u64> = HashMap::new();
        for workflow in sent {
            let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
            for seen in log.events(workflow).filter(|seen| seen.kind() != "user_input_received") {
                let kind = seen.kind();
                let is_end = matches!(kind.as_str(), "interaction_saved" | "workflow_failed");
                *kinds.entry(if is_end { "end".to_owned() } else { kind }).or_default() += 1;
            }
            figures.lost += usize::from(!kinds.contains_key("end"));
            figures.doubled += usize::from(kinds.values().any(|count| *count > 1));
            let (Some(began), Some(end)) = (log.event(workflow, "input_validated"), log.end(workflow)) else {
                continue;
            };
            let before = sessions.insert(began.attribute("sessionid"), end.sequence);
            figures.out_of_order += usize::from(before.is_some_and(|before| before > began.sequence));
        }
        figures
    }

    /// Compares them with the rows of `interactions`, given by their workflows.
    pub fn rows(mut self, log: &Log, sent: &[String], rows: impl IntoIterator<Item = String>) -> Self {
        let mut stored: HashMap<String, usize> = HashMap::new();
        for row in rows {
            *stored.entry(row).or_default() += 1;
        }
        for workflow in sent {
            let rows = stored.remove(workflow).unwrap_or_default();
            let saved = log.event(workflow, "interaction_saved").is_some();
            self.lost += usize::from(saved && rows == 0);
            self.doubled += usize::from(rows > usize::from(saved));
        }
        self
    }

    /// Takes the calls that reached the model.
    pub fn calls(mut self, calls: u64) -> Self {
        let calls = usize::try_from(calls).expect("a count");
        self.more_calls = Some(calls.saturating_sub(self.sent));
        self
    }

    pub fn more_calls(self, more_calls: usize) -> Self {
        Self { more_calls: Some(more_calls), ..self }
    }

    pub fn out_of_order(self, out_of_order: usize) -> Self {
        Self { out_of_order, ..self }
    }

    /// As another row, under another name.
    pub fn named(self, row: u8, fault: impl Into<String>) -> Self {
        Self { row, fault: fault.into(), ..self }
    }

    pub fn recovered(mut self, after: Duration) -> Self {
        self.recovered = Some(after);
        self
    }

    /// Writes them down. Nothing may be lost, doubled or out of order.
    pub fn show(&self) {
        eprintln!("row {self}");
        if let Some(file) = std::env::var_os(FILE) {
            let mut file = std::fs::File::options().create(true).append(true).open(file).expect("a file");
            // One write: tests run side by side.
            file.write_all(format!("{self}\n").as_bytes()).expect("written");
        }
        assert_eq!((self.lost, self.doubled, self.out_of_order), (0, 0, 0), "{self}");
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_none = |figure: Option<String>| figure.unwrap_or_else(|| "-".to_owned());
        write!(
            f,
            "{:>3}  {:<58} {:>5} {:>6} {:>5} {:>7} {:>9} {:>6} {:>7}",
            self.row,
            self.fault,
            self.sent,
            self.faults,
            self.lost,
            self.doubled,
            self.out_of_order,
            or_none(self.more_calls.map(|calls| calls.to_string())),
            or_none(self.recovered.map(|after| format!("{:.1} s", after.as_secs_f64()))),
        )
    }
}
