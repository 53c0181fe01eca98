//! "Did you mean": the known name closest to a mistyped one.

/// Typing slips are one or two characters; a longer name may have one more for every five characters.
fn tolerance(name: &str) -> usize {
    2.max(name.chars().count() / 5)
}

/// The closest of `known`, if one is close enough to be what was meant.
pub(super) fn closest<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    known
        .into_iter()
        .map(|candidate| (strsim::osa_distance(name, candidate), candidate))
        // A name that would have to be rewritten entirely is no suggestion.
        .filter(|(distance, candidate)| *distance <= tolerance(name) && *distance < candidate.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `; did you mean "x"?`, or nothing.
pub(crate) fn did_you_mean<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    closest(name, known).map(|found| format!("; did you mean \"{found}\"?")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_corrected_and_a_different_word_is_not() {
        let known = ["timeout_ms", "max_bytes", "url"];
        assert_eq!(closest("timout_ms", known), Some("timeout_ms"));
        assert_eq!(closest("max_byte", known), Some("max_bytes"));
        assert_eq!(closest("uri", known), Some("url"));
        assert_eq!(closest("abc", known), None);
        assert_eq!(closest("colour", known), None);
    }
}
