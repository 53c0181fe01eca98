//! `throughline record export`.

use std::path::Path;

use tempfile::NamedTempFile;
use throughline_actors::ports::clock::Clock;
use throughline_schemas::recording::{Header, VERSION};

use super::{ExportArgs, broken};
use crate::{
    app::recording_header,
    cli::{
        Failure,
        exit::with_causes,
        output,
        replay::{close, nothing, open, unreadable},
        signal::Signals,
    },
    config::{Config, Env},
    replay::{
        recording::{Redaction, Writer},
        selection::Selection,
        source::Source,
    },
    system::SystemClock,
};

pub(super) async fn run(args: &ExportArgs, config: &Config, env: &Env) -> Result<(), Failure> {
    let redaction = Redaction::new(&args.redact).map_err(|error| Failure::usage(with_causes(&error)))?;
    if args.out.exists() && !args.force {
        return Err(Failure::usage(format!("{} exists; --force replaces it", args.out.display())));
    }
    let (mut source, selection) = open(&args.selection, config, env).await?;
    let mut signals = Signals::install()?;
    let written = tokio::select! {
        biased;
        // The temporary file goes with the future that holds it.
        name = signals.next() => Err(Failure::failed(format!("stopped by {name}; nothing was written"))),
        written = Box::pin(write(args, config, &redaction, &mut source, &selection)) => written,
    };
    close(source).await;
    written
}

async fn write(
    args: &ExportArgs,
    config: &Config,
    redaction: &Redaction,
    source: &mut Source,
    selection: &Selection,
) -> Result<(), Failure> {
    let out = args.out.as_path();
    let failed = |error: &dyn std::error::Error| broken(out, error);
    let header = header(config, redaction, source, selection)?;
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = NamedTempFile::new_in(folder).map_err(|error| failed(&error))?;
    let mut writer = Writer::new(file, &header).map_err(|error| failed(&error))?;
    while let Some(history) = source.next().await.map_err(|error| unreadable(&error, &args.selection))? {
        writer.write(redaction.apply(history)).map_err(|error| failed(&error))?;
        // A recording is read without waiting: a signal would otherwise not be seen before the end.
        tokio::task::yield_now().await;
    }
    let (file, trailer) = writer.finish().map_err(|error| failed(&error))?;
    if trailer.workflows == 0 {
        return Err(nothing(selection));
    }
    file.as_file().sync_all().map_err(|error| failed(&error))?;
    let kept = if args.force { file.persist(out) } else { file.persist_noclobber(out) };
    kept.map_err(|error| failed(&error.error))?;
    output::line(&format!(
        "{}: {} workflows, {} messages, sha256 {}",
        out.display(),
        trailer.workflows,
        trailer.messages,
        trailer.sha256
    ))
}

/// Of a log, with the configuration of here and now; of a recording, with the one in it.
fn header(
    config: &Config,
    redaction: &Redaction,
    source: &Source,
    selection: &Selection,
) -> Result<Header, Failure> {
    let created_at = SystemClock.now();
    let redacted = redaction.rules().to_vec();
    if let Some(header) = source.header() {
        let redacted = [header.redacted.clone(), redacted].concat();
        let selection = format!("{} of: {}", selection.in_words(), header.selection);
        return Ok(Header { version: VERSION, created_at, selection, redacted, ..header.clone() });
    }
    let header = recording_header(config, &SystemClock).map_err(|error| Failure::configuration(&error))?;
    Ok(Header { selection: selection.in_words(), redacted, ..header })
}
