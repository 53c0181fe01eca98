//! What a provider's headers say is left of its limits, and how long to wait when it is not enough.
//!
//! A header says what was left after its own request. Requests that were sent after that one are not in it, so they
//! are subtracted here; an answer to an older request than the newest one received says nothing new. After the announced
//! time the limit is taken to be whole again: if it is not, the provider says so.

use std::time::Duration;

use tokio::time::Instant;

use crate::ports::model::{Allowance, Allowances};

/// When a limit is whole again of which the provider did not say when.
const PERIOD: Duration = Duration::from_mins(1);
/// A limit that is said to be whole again later than that is asked about before.
const LONGEST_RESET: Duration = Duration::from_hours(24);

/// What one request needs of each limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Need {
    /// Tokens of the prompt.
    pub input: u64,
    /// Tokens kept for the answer.
    pub output: u64,
}

impl Need {
    /// By limit: requests, tokens, input tokens, output tokens.
    fn each(self) -> [u64; 4] {
        [1, self.input.saturating_add(self.output), self.input, self.output]
    }
}

/// Proof that something was taken; give it back with the answer's headers.
#[derive(Debug, Clone, Copy)]
pub struct QuotaTicket {
    number: u64,
    /// All that had been taken then, this included.
    taken: [u64; 4],
}

#[derive(Debug, Clone, Copy)]
struct Left {
    units: u64,
    limit: Option<u64>,
    whole_at: Instant,
    period: Duration,
    /// All that had been taken when `units` were left.
    taken: u64,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Announced {
    left: [Option<Left>; 4],
    taken: [u64; 4],
    issued: u64,
    newest: u64,
}

impl Announced {
    /// Whether any limit on tokens has been announced.
    pub fn counts_tokens(&self) -> bool {
        self.left[1..].iter().any(Option::is_some)
    }

    /// How long to wait before this much can be taken. A need for more than the whole limit is let through when the
    /// limit is whole: the provider has to say no to it.
    pub fn wait(&mut self, need: Need, now: Instant) -> Duration {
        let mut longest = Duration::ZERO;
        for ((left, taken), need) in self.left.iter_mut().zip(self.taken).zip(need.each()) {
            let Some(one) = left else { continue };
            if now >= one.whole_at {
                let Some(limit) = one.limit else {
                    *left = None;
                    continue;
                };
                *one = Left { units: limit, whole_at: now + one.period, taken, ..*one };
            }
            let units = one.units.saturating_sub(taken - one.taken);
            let needed = one.limit.map_or(need, |limit| need.min(limit));
            if units < needed {
                longest = longest.max(one.whole_at - now);
            }
        }
        longest
    }

    /// Takes what a request needs.
    pub fn take(&mut self, need: Need) -> QuotaTicket {
        self.issued += 1;
        for (taken, need) in self.taken.iter_mut().zip(need.each()) {
            *taken = taken.saturating_add(need);
        }
        QuotaTicket { number: self.issued, taken: self.taken }
    }

    /// Learns from the headers of an answer.
    pub fn update(&mut self, ticket: QuotaTicket, allowances: &Allowances, now: Instant) {
        if ticket.number < self.newest {
            return;
        }
        self.newest = ticket.number;
        let Allowances { requests, tokens, input_tokens, output_tokens } = allowances;
        let all = [requests, tokens, input_tokens, output_tokens];
        for ((left, allowance), taken) in self.left.iter_mut().zip(all).zip(ticket.taken) {
            let Allowance { limit, remaining, resets_in } = *allowance;
            let Some(units) = remaining else { continue };
            let whole_in = resets_in.unwrap_or(PERIOD).min(LONGEST_RESET);
            let period = whole_in.max(left.map_or(PERIOD, |left| left.period));
            *left = Some(Left { units, limit, whole_at: now + whole_in, period, taken });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn requests(limit: Option<u64>, remaining: u64, resets_in: Duration) -> Allowances {
        Allowances {
            requests: Allowance { limit, remaining: Some(remaining), resets_in: Some(resets_in) },
            ..Allowances::default()
        }
    }

    #[test]
    fn nothing_left_means_waiting_for_the_reset() {
        let now = Instant::now();
        let mut announced = Announced::default();
        let need = Need { input: 100, output: 100 };
        assert_eq!(announced.wait(need, now), Duration::ZERO, "nothing was announced");
        let ticket = announced.take(need);
        announced.update(ticket, &requests(None, 0, 9 * SECOND), now);
        assert_eq!(announced.wait(need, now + SECOND), 8 * SECOND);
        assert_eq!(announced.wait(need, now + 9 * SECOND), Duration::ZERO);
    }

    #[test]
    fn what_was_sent_after_the_request_is_subtracted_from_what_its_answer_says() {
        let now = Instant::now();
        let mut announced = Announced::default();
        let need = Need::default();
        let first = announced.take(need);
        let second = announced.take(need);
        announced.take(need);
        announced.update(first, &requests(None, 3, 9 * SECOND), now);
        assert_eq!(announced.wait(need, now), Duration::ZERO, "three were left, two have been sent since");
        announced.take(need);
        assert_eq!(announced.wait(need, now), 9 * SECOND);
        announced.update(second, &requests(None, 3, 9 * SECOND), now);
        assert_eq!(announced.wait(need, now), Duration::ZERO);
        announced.update(first, &requests(None, 0, 9 * SECOND), now);
        assert_eq!(
            announced.wait(need, now),
            Duration::ZERO,
            "an older answer than the newest tells nothing"
        );
    }

    #[test]
    fn tokens_are_enough_or_not_for_this_request() {
        let now = Instant::now();
        let mut announced = Announced::default();
        let ticket = announced.take(Need::default());
        let tokens = Allowance { limit: Some(1_000), remaining: Some(300), resets_in: Some(30 * SECOND) };
        announced.update(ticket, &Allowances { tokens, ..Allowances::default() }, now);
        assert!(announced.counts_tokens());
        assert_eq!(announced.wait(Need { input: 100, output: 200 }, now), Duration::ZERO);
        assert_eq!(announced.wait(Need { input: 101, output: 200 }, now), 30 * SECOND);
        let huge = Need { input: 5_000, output: 0 };
        assert_eq!(announced.wait(huge, now), 30 * SECOND);
        assert_eq!(announced.wait(huge, now + 30 * SECOND), Duration::ZERO, "the limit is whole again");
        announced.take(huge);
        assert_eq!(announced.wait(Need::default(), now + 31 * SECOND), Duration::ZERO, "no tokens, no wait");
        assert_eq!(announced.wait(Need { input: 1, output: 0 }, now + 31 * SECOND), 59 * SECOND);
    }
}
