//! `throughline record archives`.

use std::{path::Path, time::Duration};

use tempfile::NamedTempFile;

use super::{ArchivesArgs, broken};
use crate::{
    app::connect_bus,
    archive,
    bus::nats::ArchiveBucket,
    cli::{Exit, Failure, bus_error, output},
    config::{ArchivePlace, Config, Env},
    replay::recording::Reader,
};

/// How long closing the connection may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

pub(super) async fn run(args: &ArchivesArgs, config: &Config, env: &Env) -> Result<(), Failure> {
    let namespace = &config.nats.namespace;
    match &config.retention.archive {
        ArchivePlace::Off => Err(Failure {
            exit: Exit::BadConfiguration,
            message: "no archives are kept: retention.archive is \"off\"".to_owned(),
        }),
        ArchivePlace::File(folder) => in_folder(args, folder, namespace),
        ArchivePlace::Bucket(name) => {
            let bus = connect_bus(config, env, "record").await?;
            let done = async {
                let bucket = bus.archive_bucket(name).await.map_err(|error| bus_error::failure(&error))?;
                in_bucket(args, &bucket, namespace).await
            };
            let done = done.await;
            bus.close(CLOSE_LIMIT).await;
            done
        }
    }
}

fn in_folder(args: &ArchivesArgs, folder: &Path, namespace: &str) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::failed(format!("{}: {error}", folder.display()));
    if let Some(name) = &args.fetch {
        let from = folder.join(is_archive(name, namespace)?);
        let target = target(args, name)?;
        let file = part_beside(&target)?;
        std::fs::copy(&from, file.path())
            .map_err(|error| Failure::failed(format!("{}: {error}", from.display())))?;
        return finish(file, &target);
    }
    let mut found = Vec::new();
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let bytes = entry.metadata().map_err(failed)?.len();
        found.extend(entry.file_name().into_string().ok().map(|name| (name, bytes)));
    }
    list(found, namespace)
}

async fn in_bucket(args: &ArchivesArgs, bucket: &ArchiveBucket, namespace: &str) -> Result<(), Failure> {
    let failed = |error| bus_error::failure(&error);
    if let Some(name) = &args.fetch {
        let name = is_archive(name, namespace)?;
        let target = target(args, name)?;
        let file = part_beside(&target)?;
        if !bucket.get(name, file.path()).await.map_err(failed)? {
            return Err(Failure::failed(format!("there is no {}", bucket.place_of(name))));
        }
        return finish(file, &target);
    }
    let found = bucket.list().await.map_err(failed)?;
    list(found.into_iter().map(|object| (object.name, object.bytes)).collect(), namespace)
}

/// One a line, by the sequences that they hold.
fn list(found: Vec<(String, u64)>, namespace: &str) -> Result<(), Failure> {
    let mut archives: Vec<_> = found
        .into_iter()
        .filter_map(|(name, bytes)| archive::range_of(&name, namespace).map(|range| (range, name, bytes)))
        .collect();
    archives.sort_unstable();
    for ((first, before), name, bytes) in archives {
        output::line(&format!("{name}  messages {first} to {}, {bytes} bytes", before.saturating_sub(1)))?;
    }
    Ok(())
}

/// A name that nobody can lead to another place with.
fn is_archive<'a>(name: &'a str, namespace: &str) -> Result<&'a str, Failure> {
    archive::range_of(name, namespace).map(|_| name).ok_or_else(|| {
        Failure::usage(format!(
            "{name:?} is no archive of {namespace}; `throughline record archives` lists them"
        ))
    })
}

fn target(args: &ArchivesArgs, name: &str) -> Result<std::path::PathBuf, Failure> {
    let target = args.out.clone().unwrap_or_else(|| name.into());
    if target.exists() {
        return Err(Failure::usage(format!("{} is there already; choose another file", target.display())));
    }
    Ok(target)
}

/// A file of no name yet, where the target will be.
fn part_beside(target: &Path) -> Result<NamedTempFile, Failure> {
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty());
    let file = NamedTempFile::new_in(folder.unwrap_or(Path::new(".")));
    file.map_err(|error| Failure::failed(format!("{}: {error}", target.display())))
}

/// Gives the file its name if it is whole.
fn finish(file: NamedTempFile, target: &Path) -> Result<(), Failure> {
    let failed = |error| broken(target, &error);
    let mut reader = Reader::open(file.path()).map_err(failed)?;
    let mut messages = 0_u64;
    while reader.next_message().map_err(failed)?.is_some() {
        messages += 1;
    }
    file.persist_noclobber(target)
        .map_err(|error| Failure::failed(format!("{}: {}", target.display(), error.error)))?;
    output::line(&format!("{} has {messages} messages", target.display()))
}
