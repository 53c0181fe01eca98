//! The URL of a data source: what a message fills in, and what a secret does.

use super::Env;
use super::field::Field;
use super::secret::{Secret, SecretError, SecretValue};
use super::sources::check_placeholder;
use super::tree::Value;
use super::url::{SecretUrl, check_http, is_secret_placeholder};

/// A URL with `{placeholders}` in its path or query, each to be filled with a percent-encoded value; and with secrets,
/// as `{env:NAME}` or `{file:PATH}` also before the `@`, or, as a whole query value, without braces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UrlTemplate {
    /// With the placeholders as written, secrets in braces.
    pub template: SecretUrl,
    /// The names of those that a message fills, each once, in order of appearance.
    pub placeholders: Vec<String>,
    /// The secrets, each once, with their placeholders, braces included.
    pub secrets: Vec<(String, Secret)>,
    /// With something in the place of every placeholder: its scheme and host are the real ones.
    pub example: SecretUrl,
}

impl UrlTemplate {
    fn parse(text: &str) -> Result<Self, String> {
        let text = with_braces(text);
        let mut url = Self { template: SecretUrl::new(text.clone()), ..Self::default() };
        let mut filled = String::new();
        // Where in the filled URL the first value of a message and the last secret stand.
        let (mut first_value, mut secrets_at) = (None, Vec::new());
        let mut rest = text.as_str();
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) =
                after.split_once('}').ok_or("has a \"{\" without \"}\"; write a brace as %7B")?;
            filled.push_str(before);
            if is_secret_placeholder(name) {
                secrets_at.push(filled.len());
                url.add_secret(name)?;
            } else {
                check_placeholder(name)?;
                first_value.get_or_insert(filled.len());
                url.add_placeholder(name);
            }
            filled.push('x');
            rest = after;
        }
        filled.push_str(rest);
        if filled.contains('}') {
            return Err("has a \"}\" without \"{\"; write a brace as %7D".to_owned());
        }
        let start = filled.find("://").map_or(0, |at| at + "://".len());
        let host_end = filled[start..].find(['/', '?', '#']).map_or(filled.len(), |end| start + end);
        let host_start = filled[start..host_end].rfind('@').map_or(start, |at| start + at);
        if first_value.is_some_and(|at| at < host_end) {
            // A value from a text must never choose the host that is asked.
            return Err("may have placeholders only after the host".to_owned());
        }
        if secrets_at.iter().any(|at| *at < start || (host_start..host_end).contains(at)) {
            return Err("may have secrets only before the \"@\" and after the host".to_owned());
        }
        check_http(&filled)?;
        url.example = SecretUrl::new(filled);
        Ok(url)
    }

    fn add_secret(&mut self, name: &str) -> Result<(), String> {
        let secret = Secret::parse(name)?;
        if !self.secrets.iter().any(|(_, known)| *known == secret) {
            self.secrets.push((format!("{{{name}}}"), secret));
        }
        Ok(())
    }

    fn add_placeholder(&mut self, name: &str) {
        if !self.placeholders.iter().any(|known| known == name) {
            self.placeholders.push(name.to_owned());
        }
    }

    /// The values of the secrets, with their placeholders; reads files now.
    pub fn resolve(&self, env: &Env) -> Result<Vec<(String, SecretValue)>, SecretError> {
        self.secrets.iter().map(|(name, secret)| Ok((name.clone(), secret.resolve(env)?))).collect()
    }
}

/// Query values that are nothing but the name of a secret, in braces.
fn with_braces(text: &str) -> String {
    let Some((head, query)) = text.split_once('?') else { return text.to_owned() };
    let pairs = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, value)) if is_secret_placeholder(value) => format!("{name}={{{value}}}"),
        Some(_) | None => pair.to_owned(),
    });
    format!("{head}?{}", pairs.collect::<Vec<_>>().join("&"))
}

impl Field for UrlTemplate {
    fn read(value: &Value) -> Result<Self, String> {
        Self::parse(&String::read(value)?)
    }

    fn shown(&self) -> toml::Value {
        self.template.shown()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn parse(text: &str) -> UrlTemplate {
        UrlTemplate::parse(text).unwrap()
    }

    #[test]
    fn secrets_are_named_where_values_may_stand_and_before_the_host() {
        let url = parse(
            "https://{env:USER}:{file:/run/pass}@h/{user_id}/{env:A}?k=env:KEY&q={user_input}&k2={env:KEY}",
        );
        assert_eq!(url.placeholders, ["user_id", "user_input"]);
        let names: Vec<&str> = url.secrets.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["{env:USER}", "{file:/run/pass}", "{env:A}", "{env:KEY}"]);
        assert_eq!(url.example.expose(), "https://x:x@h/x/x?k=x&q=x&k2=x");
        assert_eq!(
            url.template.to_string(),
            "https://{env:USER}:{file:/run/pass}@h/{user_id}/{env:A}?k={env:KEY}&q={user_input}&k2={env:KEY}",
            "names are shown"
        );
        let env = Env::from(["USER", "A", "KEY"].map(|name| (name.to_owned(), "canary".to_owned())));
        assert!(parse("http://h/?k=env:KEY").resolve(&env).is_ok());
        assert!(parse("http://h/?k=env:NONE").resolve(&env).is_err());
    }

    #[test]
    fn nothing_chooses_the_host() {
        for text in [
            "http://{env:HOST}/x",
            "http://ann@{env:HOST}/x",
            "http://h{env:PORT}/x",
            "{env:URL}",
            "{file:/url}://h/",
            "http://{user_id}@h/",
            "http://h/{env:}",
            "http://h/{env:a-b}",
            "http://h/{file:}",
            "http://h/{open",
            "http://h/x}",
        ] {
            assert!(UrlTemplate::parse(text).is_err(), "{text}");
        }
    }
}
