//! Who starts, and who is held.

use std::collections::{BTreeMap, BTreeSet};

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

    pub(super) fn start_held(&mut self, query: &HeldQuery) -> HeldStarted {
        let mut by_user: BTreeMap<UserId, Vec<Place>> = BTreeMap::new();
        for (workflow, turn) in self.held() {
            let Some(user) = turn.user.as_ref() else { continue };
            if query.behind.as_ref().is_none_or(|behind| user > behind) {
                let place = (turn.input_sequence, workflow.clone());
                let is_first = self.first_waiting(&turn.session).as_ref() == Some(&place);
                by_user.entry(user.clone()).or_default().extend(is_first.then_some(place));
            }
        }
        let behind = by_user.keys().nth(HELD_USERS - 1).filter(|_| by_user.len() >= HELD_USERS).cloned();
        // Each with the number of running turns that its user has when it runs, too.
        let mut candidates: Vec<(usize, Place)> = Vec::new();
        for (user, mut places) in by_user.into_iter().take(HELD_USERS) {
            let running = self.running_of(Some(&user));
            places.sort();
            candidates.extend(places.into_iter().enumerate().map(|(n, place)| (running + n + 1, place)));
        }
        candidates.sort();
        let running = self.running_of_all();
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
