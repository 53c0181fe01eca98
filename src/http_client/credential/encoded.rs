//! Finding a text within another one in which it may be escaped, without undoing escapes where it is not.

/// Ways of writing a character as several.
#[derive(Clone, Copy, Debug)]
enum Escape {
    /// In a JSON string (RFC 8259, section 7): `\u002B`, `\/`, `\"`.
    Json,
    /// In a URL (RFC 3986, section 2.1): `%2B`.
    Percent,
}

use Escape::{Json, Percent};

/// The bytes with which an escape begins.
pub(super) const ESCAPES: [u8; 2] = [b'\\', b'%'];

/// What may have been done to a text, the last one last. As it is counts too, and is tried before all of these.
const LAYERS: [&[Escape]; 14] = [
    &[Json],
    &[Percent],
    &[Json, Json],
    &[Json, Percent],
    &[Percent, Json],
    &[Percent, Percent],
    &[Json, Json, Json],
    &[Json, Json, Percent],
    &[Json, Percent, Json],
    &[Json, Percent, Percent],
    &[Percent, Json, Json],
    &[Percent, Json, Percent],
    &[Percent, Percent, Json],
    &[Percent, Percent, Percent],
];

/// What there is at a place of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Where the longest of the wanted texts ends, if one begins here.
    pub(super) end: Option<usize>,
    /// Whether the text ends before it is certain that none (or no longer one) begins here.
    pub(super) is_open: bool,
}

impl Found {
    fn add(&mut self, fit: Fit) {
        match fit {
            Fit::Whole(end) => self.end = self.end.max(Some(end)),
            Fit::Begun => self.is_open = true,
            Fit::No => {}
        }
    }
}

/// How a wanted text fits at a place.
#[derive(Clone, Copy)]
enum Fit {
    /// Up to there.
    Whole(usize),
    /// As far as the text goes.
    Begun,
    No,
}

/// Looks for each of `wanted` at this place of `text`.
pub(super) fn look(wanted: &[String], text: &[u8], at: usize) -> Found {
    let mut found = Found::default();
    for wanted in wanted {
        let wanted = wanted.as_bytes();
        let rest = &text[at..];
        let same = wanted.iter().zip(rest).take_while(|(a, b)| a == b).count();
        if same == wanted.len() {
            found.add(Fit::Whole(at + same));
        } else if same == rest.len() {
            found.add(Fit::Begun);
        }
        // Without an escape up to the first difference, no undoing would make it another.
        if rest[..rest.len().min(same + 1)].iter().any(|byte| ESCAPES.contains(byte)) {
            for layers in LAYERS {
                found.add(fit(wanted, layers, text, at));
            }
        }
    }
    found
}

fn fit(wanted: &[u8], layers: &[Escape], text: &[u8], mut at: usize) -> Fit {
    let mut rest = wanted;
    while !rest.is_empty() {
        match read(layers, text, at) {
            Ok(unit) => match rest.strip_prefix(unit.bytes()) {
                Some(left) => (rest, at) = (left, unit.next),
                None => return Fit::No,
            },
            Err(Cut) => return Fit::Begun,
        }
    }
    Fit::Whole(at)
}

/// One byte or one escaped character.
#[derive(Clone, Copy)]
struct Unit {
    bytes: [u8; 4],
    len: usize,
    /// Where the next one begins.
    next: usize,
}

impl Unit {
    fn byte(byte: u8, next: usize) -> Self {
        Self { bytes: [byte, 0, 0, 0], len: 1, next }
    }

    fn char(c: char, next: usize) -> Self {
        let mut bytes = [0; 4];
        let len = c.encode_utf8(&mut bytes).len();
        Self { bytes, len, next }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn is(&self, byte: u8) -> bool {
        self.bytes() == [byte]
    }
}

/// The text ends here, or within an escape.
struct Cut;

/// Why there is no escaped character.
enum Miss {
    /// It is no escape.
    Plain,
    /// The text ends before that is certain.
    Cut,
}

impl From<Cut> for Miss {
    fn from(Cut: Cut) -> Self {
        Self::Cut
    }
}

/// Reads the unit that begins here, with these escapes undone. What is no complete escape stands for itself.
fn read(layers: &[Escape], text: &[u8], at: usize) -> Result<Unit, Cut> {
    let Some((escape, within)) = layers.split_last() else {
        return text.get(at).map(|byte| Unit::byte(*byte, at + 1)).ok_or(Cut);
    };
    let first = read(within, text, at)?;
    let escaped = match escape {
        Json if first.is(b'\\') => read_json(within, text, first.next),
        Percent if first.is(b'%') => read_percent(within, text, first.next),
        Json | Percent => return Ok(first),
    };
    match escaped {
        Ok(unit) => Ok(unit),
        Err(Miss::Plain) => Ok(first),
        Err(Miss::Cut) => Err(Cut),
    }
}

/// What stands behind a `%`.
fn read_percent(within: &[Escape], text: &[u8], at: usize) -> Result<Unit, Miss> {
    let (byte, next) = read_hex(within, text, at, 2)?;
    u8::try_from(byte).map(|byte| Unit::byte(byte, next)).map_err(|_| Miss::Plain)
}

/// What stands behind a `\`.
fn read_json(within: &[Escape], text: &[u8], at: usize) -> Result<Unit, Miss> {
    let second = read(within, text, at)?;
    let byte = match second.bytes() {
        [byte @ (b'"' | b'\\' | b'/')] => *byte,
        b"b" => 8,
        b"f" => 12,
        b"n" => b'\n',
        b"r" => b'\r',
        b"t" => b'\t',
        b"u" => return read_code_units(within, text, second.next),
        _ => return Err(Miss::Plain),
    };
    Ok(Unit::byte(byte, second.next))
}

/// The four digits behind `\u`, and, of a pair, those of its second half.
fn read_code_units(within: &[Escape], text: &[u8], at: usize) -> Result<Unit, Miss> {
    let (first, next) = read_hex(within, text, at, 4)?;
    if !(0xD800..0xDC00).contains(&first) {
        return Ok(Unit::char(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER), next));
    }
    match read_second_half(within, text, next) {
        Ok((second, next)) => {
            let c = char::from_u32(0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00));
            Ok(Unit::char(c.unwrap_or(char::REPLACEMENT_CHARACTER), next))
        }
        Err(Miss::Plain) => Ok(Unit::char(char::REPLACEMENT_CHARACTER, next)),
        Err(Miss::Cut) => Err(Miss::Cut),
    }
}

fn read_second_half(within: &[Escape], text: &[u8], at: usize) -> Result<(u32, usize), Miss> {
    let mut next = at;
    for wanted in *b"\\u" {
        let unit = read(within, text, next)?;
        if !unit.is(wanted) {
            return Err(Miss::Plain);
        }
        next = unit.next;
    }
    let (second, next) = read_hex(within, text, next, 4)?;
    if (0xDC00..0xE000).contains(&second) { Ok((second, next)) } else { Err(Miss::Plain) }
}

/// So many hexadecimal digits.
fn read_hex(within: &[Escape], text: &[u8], mut at: usize, digits: usize) -> Result<(u32, usize), Miss> {
    let mut number = 0;
    for _ in 0..digits {
        let unit = read(within, text, at)?;
        let digit = match unit.bytes() {
            [byte] => char::from(*byte).to_digit(16),
            _ => None,
        };
        number = number * 16 + digit.ok_or(Miss::Plain)?;
        at = unit.next;
    }
    Ok((number, at))
}
