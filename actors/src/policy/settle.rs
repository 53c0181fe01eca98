//! How a delivery ends, as a pure function of what became of the work.

use std::time::Duration;

use throughline_schemas::FailureCode;

use super::limits::DeliveryLimits;

/// What became of the work on one delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Its result is durable, or there was nothing (more) to do.
    Done,
    /// It could not be done now, through no fault of the message.
    Later {
        /// How long to wait.
        after: Duration,
        /// Why, for the log.
        reason: String,
    },
    /// The message itself can never be handled.
    Unusable {
        /// Why, for a machine.
        code: FailureCode,
        /// Why, for a person.
        error: String,
    },
    /// The worker ended without reporting: it panicked, or was killed for exceeding its time limit.
    Died {
        /// The panic message, or which limit.
        reason: String,
        /// How many workers have died of this message, this one included.
        deaths: u32,
    },
    /// Another worker has the message now, and answers for it.
    TakenOver,
}

/// What to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Acknowledge.
    Acknowledge,
    /// Hand back, with a delay.
    HandBack {
        /// The delay.
        after: Duration,
    },
    /// Store a dead letter, end the workflow, terminate.
    DeadLetter {
        /// Why, for a machine.
        code: FailureCode,
        /// Why, for a person.
        error: String,
    },
    /// Say nothing: it is not ours any more.
    Leave,
}

/// Decides how the `delivered`-th delivery of a message ends (counted from 1, crashes included).
pub fn settle(outcome: Outcome, delivered: u32, limits: &DeliveryLimits) -> Decision {
    match outcome {
        Outcome::Done => Decision::Acknowledge,
        Outcome::Unusable { code, error } => Decision::DeadLetter { code, error },
        Outcome::Later { reason, .. } if delivered >= limits.max_deliveries => Decision::DeadLetter {
            code: FailureCode::Internal,
            error: format!("handed back {delivered} times, the last time because {reason}"),
        },
        Outcome::Later { after, .. } => Decision::HandBack { after },
        Outcome::Died { reason, deaths } if deaths >= limits.max_deaths => {
            Decision::DeadLetter { code: FailureCode::Poison, error: reason }
        }
        Outcome::Died { .. } => Decision::HandBack { after: limits.delay_after_death },
        Outcome::TakenOver => Decision::Leave,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_kills_its_worker_is_retried_then_dead_lettered() {
        let limits = DeliveryLimits::default();
        let died = |deaths| Outcome::Died { reason: "index out of bounds".to_owned(), deaths };
        for deaths in 1..limits.max_deaths {
            // However often it was handed back before, for reasons that were not its own.
            for delivered in [deaths, deaths + 50] {
                assert_eq!(
                    settle(died(deaths), delivered, &limits),
                    Decision::HandBack { after: limits.delay_after_death }
                );
            }
        }
        assert_eq!(
            settle(died(limits.max_deaths), limits.max_deaths, &limits),
            Decision::DeadLetter { code: FailureCode::Poison, error: "index out of bounds".to_owned() }
        );
    }

    #[test]
    fn a_message_that_somebody_else_has_is_left_alone_however_often_it_came() {
        let limits = DeliveryLimits::default();
        for delivered in [1, limits.max_deliveries, u32::MAX] {
            assert_eq!(settle(Outcome::TakenOver, delivered, &limits), Decision::Leave);
        }
    }

    #[test]
    fn a_message_that_waits_is_handed_back_until_the_server_s_limit_comes_near() {
        let limits = DeliveryLimits::default();
        let later =
            || Outcome::Later { after: Duration::from_secs(5), reason: "the database is away".to_owned() };
        assert_eq!(settle(later(), 1, &limits), Decision::HandBack { after: Duration::from_secs(5) });
        assert!(matches!(settle(later(), limits.max_deliveries, &limits), Decision::DeadLetter { .. }));
    }
}
