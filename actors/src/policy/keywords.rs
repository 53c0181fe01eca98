//! Whether a text mentions a keyword, which decides about sources and routes.

/// Whether `text` mentions `keyword`: anywhere, whatever the case, but not in the middle of a word, so that
/// "orders" mentions "order" and "border" does not.
pub fn mentions(text: &str, keyword: &str) -> bool {
    let text = text.to_lowercase();
    let keyword = keyword.to_lowercase();
    if keyword.is_empty() {
        return false;
    }
    text.match_indices(&keyword).any(|(at, _)| {
        let before = text.get(..at).and_then(|head| head.chars().next_back());
        // Scripts without upper and lower case (Chinese, Thai …) put no space between words.
        let inside_word = |c: char| c.is_lowercase() || c.is_numeric();
        let starts_word = keyword.starts_with(|c: char| !inside_word(c));
        starts_word || !before.is_some_and(inside_word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyword_is_mentioned_at_the_start_of_a_word_in_any_case_and_script() {
        for text in ["my ORDER", "Orders?", "pre-order", "#order", "(ordered)"] {
            assert!(mentions(text, "order"), "{text}");
        }
        for text in ["the border", "recorder", "", "disorder"] {
            assert!(!mentions(text, "order"), "{text}");
        }
        assert!(mentions("我的订单在哪里", "订单"));
    }
}
