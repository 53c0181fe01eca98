//! What changed in a text, word by word.

use std::time::Duration;

use serde::Serialize;
use similar::{ChangeTag, TextDiff};

/// How long a diff may search for the smallest one; what it has then is right, only longer.
const DIFF_LIMIT: Duration = Duration::from_millis(200);

/// A piece of both texts, or of one of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Piece {
    /// Where it is.
    pub part: Part,
    /// The words with the space between them.
    pub text: String,
}

/// Where a piece is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// In both texts.
    Same,
    /// Only in the first.
    Removed,
    /// Only in the second.
    Added,
}

/// How two texts differ.
#[derive(Debug, Clone, PartialEq)]
pub struct Diff {
    /// From the beginning to the end of both.
    pub pieces: Vec<Piece>,
    /// 1 if they are the same, 0 if they have no word in common.
    pub similarity: f32,
}

/// Compares two texts.
pub fn diff(before: &str, after: &str) -> Diff {
    let diff = TextDiff::configure().timeout(DIFF_LIMIT).diff_words(before, after);
    let mut pieces: Vec<Piece> = Vec::new();
    for change in diff.iter_all_changes() {
        let part = match change.tag() {
            ChangeTag::Equal => Part::Same,
            ChangeTag::Delete => Part::Removed,
            ChangeTag::Insert => Part::Added,
        };
        match pieces.last_mut() {
            Some(last) if last.part == part => last.text.push_str(change.value()),
            _ => pieces.push(Piece { part, text: change.value().to_owned() }),
        }
    }
    Diff { pieces, similarity: diff.ratio() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join(pieces: &[Piece], without: Part) -> String {
        pieces.iter().filter(|piece| piece.part != without).map(|piece| piece.text.as_str()).collect()
    }

    #[test]
    fn both_texts_can_be_read_from_it() {
        let (before, after) =
            ("Your order 4711 ships on Monday.", "Order 4711 will ship on Monday,\nI think.");
        let diff = diff(before, after);
        assert_eq!(join(&diff.pieces, Part::Added), before);
        assert_eq!(join(&diff.pieces, Part::Removed), after);
        assert!(diff.similarity > 0.3 && diff.similarity < 0.9, "{}", diff.similarity);
        assert!(diff.pieces.windows(2).all(|pair| pair[0].part != pair[1].part));
    }

    #[test]
    fn the_same_is_one_piece_and_nothing_is_none() {
        let same = diff("all the same", "all the same");
        assert_eq!((same.pieces.len(), same.pieces[0].part, same.similarity), (1, Part::Same, 1.0));
        assert_eq!(diff("", "").pieces, []);
    }
}
