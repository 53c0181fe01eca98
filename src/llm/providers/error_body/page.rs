//! A web page where a provider's answer should be: what it says to a person.

use crate::http_client::text;

/// How much of a page is looked at, in bytes.
const LOOKED_AT: usize = 16 * 1024;

/// Whether this is a page.
pub(super) fn is_page(body: &[u8]) -> bool {
    let body = crate::http_client::without_bom(body).trim_ascii_start();
    let begins =
        |with: &str| body.get(..with.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(with.as_bytes()));
    ["<!doctype", "<html", "<head", "<body", "<?xml", "<title", "<center", "<h1"]
        .iter()
        .any(|with| begins(with))
}

/// Its title, else the text without its tags, on one line.
pub(super) fn words(body: &[u8], max_chars: usize) -> String {
    let body = String::from_utf8_lossy(&body[..body.len().min(LOOKED_AT)]);
    let lower = body.to_ascii_lowercase();
    let title = lower.find("<title").and_then(|at| {
        let from = at + lower[at..].find('>')? + 1;
        let to = from + lower[from..].find("</title")?;
        Some(text::one_line(&body[from..to], max_chars))
    });
    title.filter(|title| !title.is_empty()).unwrap_or_else(|| text::one_line(&without_tags(&body), max_chars))
}

fn without_tags(page: &str) -> String {
    let mut text = String::new();
    let mut rest = page;
    while let Some((before, tag)) = rest.split_once('<') {
        text.push_str(before);
        text.push(' ');
        rest = tag.split_once('>').map_or("", |(_, after)| after);
    }
    text.push_str(rest);
    text
}
