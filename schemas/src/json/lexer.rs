//! The tokens of a JSON text, well-formed or not. It never fails: what is wrong with a text is for others to say.

use std::ops::Range;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// A text in its quotes.
    Text,
    /// A text without its second quote: the rest of all.
    Unclosed,
    /// `{`
    OpenObject,
    /// `[`
    OpenArray,
    /// `}` or `]`
    Close,
    /// `:`
    Colon,
    /// `,`
    Comma,
    /// Anything else up to the next blank or token: numbers, `true`, `NaN`, rubbish.
    Word,
}

/// A token and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: TokenKind,
    pub(super) at: Range<usize>,
}

/// See the module's documentation.
pub(super) struct Lexer<'t> {
    bytes: &'t [u8],
    at: usize,
}

impl<'t> Lexer<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { bytes: text.as_bytes(), at: 0 }
    }

    /// Where the text that begins here ends, behind its second quote.
    fn end_of_text(&self, from: usize) -> Option<usize> {
        let mut at = from + 1;
        while let Some(byte) = self.bytes.get(at) {
            match byte {
                b'"' => return Some(at + 1),
                b'\\' => at += 2,
                _ => at += 1,
            }
        }
        None
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

fn ends_a_word(byte: u8) -> bool {
    is_blank(byte) || b"\"{}[]:,".contains(&byte)
}

impl Iterator for Lexer<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        let rest = self.bytes.get(self.at..)?;
        let start = self.at + rest.iter().position(|byte| !is_blank(*byte))?;
        let one = start + 1;
        let (kind, end) = match self.bytes.get(start)? {
            b'"' => match self.end_of_text(start) {
                Some(end) => (TokenKind::Text, end),
                None => (TokenKind::Unclosed, self.bytes.len()),
            },
            b'{' => (TokenKind::OpenObject, one),
            b'[' => (TokenKind::OpenArray, one),
            b'}' | b']' => (TokenKind::Close, one),
            b':' => (TokenKind::Colon, one),
            b',' => (TokenKind::Comma, one),
            _ => {
                let word = self.bytes.get(start..)?.iter().position(|byte| ends_a_word(*byte));
                (TokenKind::Word, word.map_or(self.bytes.len(), |length| start + length))
            }
        };
        self.at = end;
        Some(Token { kind, at: start..end })
    }
}
