//! What is `dev`'s own. Servers, databases and namespaces of others are left alone unless the command line names them.

use std::path::Path;

use throughline_actors::ports::bus::BusError;

use crate::{
    app::{database_url, stream_limits},
    bus::nats::{NatsBus, topology},
    cli::{Exit, Failure, exit::with_causes, output},
    config::{Config, Env, Origin},
    identity::place,
    storage::{Peeked, peek},
};

/// Flags with which a person names what is not `dev`'s own.
const NATS_FLAG: &str = "--nats-url";
const DATABASE_FLAG: &str = "--database-url";

/// Whether a person named the server for this run. One that is configured otherwise is refused: it is meant for workers,
/// and may be one that others share.
pub(super) fn names_a_server(config: &Config, own_file: &Path) -> Result<bool, Failure> {
    let leave_out = match config.origin_of("nats.url") {
        None | Some(Origin::Default) => return Ok(false),
        Some(Origin::Flag(_)) => return Ok(true),
        Some(Origin::Env(name)) => format!("unset {name}"),
        Some(Origin::File { file, .. }) if is_same(Path::new(&**file), own_file) => {
            format!(
                "leave out {file}, which an earlier `throughline dev` wrote for other terminals (unset THROUGHLINE_CONFIG)"
            )
        }
        Some(Origin::File { file, .. }) => {
            format!("run it in another folder, or with a --config other than {file}")
        }
    };
    let origin = config.origin_of("nats.url").map(ToString::to_string).unwrap_or_default();
    let message = format!(
        "{origin} names the NATS server {}, and `throughline dev` starts one of its own: for that, {leave_out}; to work on \
         that server all the same, say {NATS_FLAG}",
        config.nats.url
    );
    Err(Failure { exit: Exit::BadConfiguration, message })
}

fn is_same(one: &Path, other: &Path) -> bool {
    one.canonicalize().ok().zip(other.canonicalize().ok()).is_some_and(|(one, other)| one == other)
}

/// Whether a person named the database for this run. One that is configured otherwise is not used.
pub(super) fn names_a_database(config: &Config) -> bool {
    match config.origin_of("database.url") {
        None | Some(Origin::Default) => false,
        Some(Origin::Flag(_)) => true,
        Some(origin @ (Origin::Env(_) | Origin::File { .. })) => {
            output::note(&format!(
                "the database that {origin} names is left alone; to use it, say {DATABASE_FLAG}"
            ));
            false
        }
    }
}

/// Refuses a namespace of a server that is in use, unless it belongs to the database of this `dev`: an earlier run made
/// it. Nothing is changed to find out.
pub(super) async fn check_namespace(bus: &NatsBus, config: &Config, env: &Env) -> Result<(), Failure> {
    let failed = |error: BusError| Failure::unavailable(&error);
    let drifts = topology::check(bus, &stream_limits(config)).await.map_err(failed)?;
    let is_missing = |stream: &str| drifts.iter().any(|drift| drift.is_missing() && drift.object == stream);
    if is_missing(bus.names().events()) {
        return Ok(());
    }
    let entry = bus.deployment().await.map_err(failed)?.map(|(entry, _)| entry);
    let url = database_url(config, env)?;
    let peeked = peek(url.expose(), bus.namespace().as_str()).await;
    let peeked = peeked.map_err(|error| Failure::failed(with_causes(&error)))?;
    if let (Some(entry), Peeked::Identity(identity)) = (&entry, &peeked)
        && entry.identity == identity.id
    {
        return Ok(());
    }
    let namespace = bus.namespace();
    let whose = match entry {
        Some(entry) => format!("with the database {}", entry.database),
        None => "by somebody else".to_owned(),
    };
    let message = format!(
        "the namespace {namespace} is in use on {} {whose}, not with {} of this `throughline dev`: choose another one, for \
         example with --namespace dev",
        config.nats.url,
        place(config.database.url.expose())
    );
    Err(Failure { exit: Exit::BadConfiguration, message })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::{Layers, Override};

    fn config(env: &[(&str, &str)], flags: &[(&str, &str)], text: &str) -> Config {
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let flag = |(flag, value): &(&str, &str)| {
            let key = if *flag == NATS_FLAG { "nats.url" } else { "database.url" };
            Override::new(*flag, key, *value)
        };
        let overrides = flags.iter().map(flag).collect();
        Layers { env, overrides, ..Layers::default() }.load_text("shop.toml", text).unwrap()
    }

    #[test]
    fn a_server_is_used_only_if_the_command_line_names_it() {
        let own = Path::new(".throughline/throughline.toml");
        let url = "nats://shared:4222";
        let written = format!("[nats]\nurl = {url:?}");
        assert!(!names_a_server(&config(&[], &[], ""), own).unwrap());
        assert!(names_a_server(&config(&[], &[(NATS_FLAG, url)], &written), own).unwrap());
        for (config, words) in [
            (config(&[("NATS_URL", url)], &[], ""), "unset NATS_URL"),
            (config(&[("THROUGHLINE_NATS__URL", url)], &[], ""), "unset THROUGHLINE_NATS__URL"),
            (config(&[], &[], &written), "--config other than shop.toml"),
        ] {
            let refused = names_a_server(&config, own).unwrap_err();
            assert_eq!(refused.exit, Exit::BadConfiguration);
            for part in [words, "nats://shared:4222", "say --nats-url"] {
                assert!(refused.message.contains(part), "{part}: {}", refused.message);
            }
        }
    }

    #[test]
    fn the_file_that_it_wrote_itself_is_recognised() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("throughline.toml");
        std::fs::write(&own, "[nats]\nurl = \"nats://127.0.0.1:40000\"\n").unwrap();
        let layers = Layers { file: Some(own.clone()), ..Layers::default() };
        let refused = names_a_server(&layers.load().unwrap(), &own).unwrap_err();
        assert!(refused.message.contains("unset THROUGHLINE_CONFIG"), "{}", refused.message);
    }

    #[test]
    fn a_database_is_used_only_if_the_command_line_names_it() {
        let url = "sqlite://shop.db";
        assert!(!names_a_database(&config(&[("HOME", "/home/ada")], &[], "")));
        assert!(!names_a_database(&config(&[("DATABASE_URL", url)], &[], "")));
        assert!(!names_a_database(&config(&[], &[], &format!("[database]\nurl = {url:?}"))));
        assert!(names_a_database(&config(&[], &[(DATABASE_FLAG, url)], "")));
    }
}
