//! What is configured to keep the log's past.

use std::sync::Arc;

use throughline_actors::ports::{archive::Archive, clock::Clock};
use throughline_schemas::recording::{FORMAT, Header, Prompt, VERSION};

use super::{PromptFileError, load_prompt, prompt_sources};
use crate::{
    archive::{Bucket, Folder},
    bus::nats::NatsBus,
    config::{ArchivePlace, Config},
};

/// The place for archives, if there is one.
pub(super) fn archive(
    config: &Config,
    bus: &Arc<NatsBus>,
    clock: &Arc<dyn Clock>,
) -> Result<Option<Arc<dyn Archive>>, PromptFileError> {
    match &config.retention.archive {
        ArchivePlace::Off => Ok(None),
        ArchivePlace::File(folder) => {
            let header = recording_header(config, clock.as_ref())?;
            let folder = Folder::new(Arc::clone(bus), Arc::clone(clock), folder.clone(), header);
            Ok(Some(Arc::new(folder)))
        }
        ArchivePlace::Bucket(name) => {
            let header = recording_header(config, clock.as_ref())?;
            Ok(Some(Arc::new(Bucket::new(Arc::clone(bus), Arc::clone(clock), name.clone(), header))))
        }
    }
}

/// The header of a recording that is made with the configuration of here and now; nothing is selected in it yet.
pub fn recording_header(config: &Config, clock: &dyn Clock) -> Result<Header, PromptFileError> {
    let sources = prompt_sources(&config.prompt)?;
    let hash = load_prompt(&config.prompt)?.hash().to_owned();
    Ok(Header {
        format: FORMAT.to_owned(),
        version: VERSION,
        created_at: clock.now(),
        namespace: config.nats.namespace.clone(),
        selection: String::new(),
        configuration_id: config.id(),
        configuration: config.decisive(),
        prompt: Prompt { id: config.prompt.id.clone(), system: sources.system, data: sources.data, hash },
        redacted: Vec::new(),
    })
}
