//! Who starts, and who is held.

use std::collections::BTreeSet;

use throughline_schemas::{SessionId, Timestamp, UserId, WorkflowId};

use super::state::{Place, State};
use crate::ports::store::{Admission, HELD_USERS, HeldQuery, HeldStarted, Share, TurnState};

impl State {
    fn running_of(&self, user: Option<&UserId>) -> usize {
        self.turns
            .values()
            .filter(|turn| turn.state == TurnState::Running && turn.user.as_ref() == user)
            .count()
    }

    fn running_of_all(&self) -> usize {
        self.turns.values().filter(|turn| turn.state == TurnState::Running).count()
    }

    fn held(&self) -> impl Iterator<Item = (&WorkflowId, &super::state::Entry)> {
        self.turns.iter().filter(|(_, turn)| turn.state == TurnState::Waiting && turn.held)
    }

    /// Whether the user of an input has as many open turns as it may have; an interruption would end one of them.
    pub(super) fn has_too_many(&self, admission: &Admission, ends: Option<&WorkflowId>) -> bool {
        let Some(most) = admission.limits.open else { return false };
        let open = self.turns.iter().filter(|(workflow, turn)| {
            turn.is_open() && turn.user.as_ref() == Some(&admission.user_id) && Some(*workflow) != ends
        });
        open.count() >= most.get() as usize
    }

    /// The session's first waiting turn, if none is running.
    fn first_waiting(&self, session: &SessionId) -> Option<Place> {
        let open = self.open.get(session)?;
        if open.values().any(|running| *running) {
            return None;
        }
        open.first_key_value().map(|(place, _)| place.clone())
    }

    /// The same, unless it is held.
    fn startable(&self, session: &SessionId) -> Option<Place> {
        self.first_waiting(session)
            .filter(|(_, workflow)| !self.turns.get(workflow).is_none_or(|turn| turn.held))
    }

    fn start(&mut self, place: &Place, at: Timestamp) {
        let Some(turn) = self.turns.get_mut(&place.1) else { return };
        turn.state = TurnState::Running;
        turn.updated_at = at;
        if let Some(open) = self.open.get_mut(&turn.session) {
            open.insert(place.clone(), true);
        }
    }

    fn start_or_hold(&mut self, place: &Place, share: Option<Share>, at: Timestamp) {
        let Some(turn) = self.turns.get(&place.1) else { return };
        let starts = share.is_none_or(|share| {
            let of_all = if self.held().next().is_some() { usize::MAX } else { self.running_of_all() + 1 };
            share.has_room(self.running_of(turn.user.as_ref()) + 1, of_all)
        });
        if starts {
            self.start(place, at);
        } else if let Some(turn) = self.turns.get_mut(&place.1) {
            turn.held = true;
        }
    }

    /// Starts the first waiting turns of the sessions of a run, in the order of the stream, as far as there is room.
    pub(super) fn start_admitted(&mut self, run: &[Admission]) {
        let Some(first) = run.first() else { return };
        let at = run.iter().map(|admission| admission.at).max().unwrap_or(first.at);
        let sessions: BTreeSet<&SessionId> = run.iter().map(|admission| &admission.session_id).collect();
        let mut places: Vec<Place> =
            sessions.into_iter().filter_map(|session| self.startable(session)).collect();
        places.sort();
        for place in &places {
            self.start_or_hold(place, first.limits.share, at);
        }
    }

    /// Starts the session's next turn after one has ended. While others are held, it does not overtake them.
    pub(super) fn start_next(&mut self, session: &SessionId, at: Timestamp) {
        if let Some(place) = self.startable(session) {
            self.start_or_hold(&place, Some(Share::of(u32::MAX)), at);
        }
    }

    /// Starts the session's next turn, if it is not held.
    pub(super) fn start_anyway(&mut self, session: &SessionId, at: Timestamp) {
        if let Some(place) = self.startable(session) {
            self.start(&place, at);
        }
    }

    /// The turns of a user that are held and first in their sessions, in the order of the stream.
    fn first_held_of(&self, user: &UserId) -> Vec<Place> {
        let mut places: Vec<Place> = self
            .held()
            .filter(|(_, turn)| turn.user.as_ref() == Some(user))
            .map(|(workflow, turn)| (turn, (turn.input_sequence, workflow.clone())))
            .filter(|(turn, place)| self.first_waiting(&turn.session).as_ref() == Some(place))
            .map(|(_, place)| place)
            .collect();
        places.sort();
        places
    }

    pub(super) fn start_held(&mut self, query: &HeldQuery) -> HeldStarted {
        let is_asked_for = |user: &&UserId| query.behind.as_ref().is_none_or(|behind| *user > behind);
        let users: BTreeSet<&UserId> =
            self.held().filter_map(|(_, turn)| turn.user.as_ref()).filter(is_asked_for).collect();
        let behind = users.iter().nth(HELD_USERS - 1).map(|user| (*user).clone());
        let running = self.running_of_all();
        let may_start = |of_user| query.share.is_none_or(|share| share.has_room(of_user, running + 1));
        // Each with the number of running turns that its user has when it runs, too.
        let mut candidates: Vec<(usize, Place)> = Vec::new();
        for user in users.into_iter().take(HELD_USERS) {
            let of_user = self.running_of(Some(user));
            // Most of the time nobody's next turn may start.
            if !may_start(of_user + 1) {
                continue;
            }
            let places = self.first_held_of(user);
            candidates.extend(places.into_iter().enumerate().map(|(n, place)| (of_user + n + 1, place)));
        }
        candidates.sort();
        let mut openings = Vec::new();
        for (n, (of_user, place)) in candidates.iter().enumerate().take(query.most) {
            if query.share.is_none_or(|share| share.has_room(*of_user, running + n + 1)) {
                self.start(place, query.at);
                openings.extend(self.opening_of(&place.1));
            }
        }
        HeldStarted { openings, behind, left: self.held().next().is_some() }
    }
}
