//! `throughline replay run`.

use std::{
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use rust_decimal::Decimal;
use serde_json::json;
use throughline_actors::{
    ports::{clock::Clock, source::Sources},
    replay::STAGES,
};
use throughline_schemas::{StageName, Usd};
use tokio::time::Instant;

use super::{ChangeArgs, close, comparison::render, nothing, open_whole, progress::Progress, unreadable};
use crate::{
    app::{BUILT_IN_DATA, http_sources},
    cli::{Failure, exit::with_causes, output, signal::Signals, timeline::Style},
    config::{Config, Env, Layers},
    llm::model_providers,
    replay::{
        Setup,
        report::{Comparison, Row, Totals, page},
        rerun::{Means, Reruns, left_out, now},
        selection::SelectionArgs,
    },
    system::SystemClock,
};

/// Readable by everybody, writable by its owner.
#[cfg(unix)]
const PAGE_MODE: u32 = 0o644;

const RUN_HELP: &str = "\
Runs the stages from --from up to the answer, really asking models; what comes before that stage is taken from the record.
Nothing is published or stored, no streams, sessions, rows or budgets of production are touched: what is made is compared with
what was, and forgotten. Earlier turns of a conversation are those that were.
The budget is kept before each call, at what that call may cost at most; the rest of the selection is left out when it is spent.
A workflow whose record lacks what --from begins with is left out and told; an earlier stage helps, for example --from input.

Exit codes: 0 when everything that could be run was (also if workflows were left out for their record, or fail as they did before);
1 when a workflow that had been answered fails now, when the budget or a signal ended it early, or when nothing is selected.

  throughline replay run --since 1d --limit 20 --model gpt-4o-mini --budget 0.50
  throughline replay run --failed --since 1h --html report.html
  throughline replay run order-4711 --prompt new-system.j2 --set generation.temperature=0";

/// `throughline replay run`
#[derive(Debug, Clone, Args)]
#[command(after_help = RUN_HELP)]
pub(in crate::cli) struct RunArgs {
    #[command(flatten)]
    selection: SelectionArgs,
    #[command(flatten)]
    change: ChangeArgs,
    /// Stage to begin with: input, context, external or generation
    #[arg(long, value_name = "STAGE", default_value = "generation")]
    from: StageName,
    /// Ask this model of the configuration, and no other
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Another prompt: a file in the place of system.j2, or a folder with system.j2 and data.j2
    #[arg(long, value_name = "FILE")]
    prompt: Option<PathBuf>,
    /// Ask the data sources again, instead of taking what they answered; begins at external or before
    #[arg(long)]
    live_sources: bool,
    /// What all calls may cost together, in US dollars; `none` for any amount
    #[arg(long, value_name = "USD", default_value = "1")]
    budget: String,
    /// Workflows that run at once
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    concurrency: u16,
    /// Write a page for people, too, that needs nothing else
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Show so many of the workflows that changed most
    #[arg(long, value_name = "N", default_value_t = 5)]
    show: usize,
    /// Print JSON lines: one for each workflow, and a summary
    #[arg(long)]
    json: bool,
}

impl RunArgs {
    fn budget(&self) -> Result<Option<Usd>, Failure> {
        if self.budget == "none" {
            return Ok(None);
        }
        let dollars: Option<Decimal> = self.budget.trim_start_matches('$').parse().ok();
        match dollars.filter(|dollars| !dollars.is_sign_negative()) {
            Some(dollars) => Ok(Some(Usd::new(dollars))),
            None => Err(Failure::usage(format!(
                "--budget {:?} is neither an amount of dollars such as 0.50, nor `none`",
                self.budget
            ))),
        }
    }

    /// Where to begin: live sources are asked by the external stage.
    fn beginning(&self) -> Result<StageName, Failure> {
        if !STAGES.contains(&self.from) {
            let message = "--from is input, context, external or generation: a re-run stores nothing";
            return Err(Failure::usage(message));
        }
        if self.live_sources && self.from == StageName::Generation {
            return Ok(StageName::External);
        }
        Ok(self.from)
    }

    fn setup(&self, config: &Config) -> Result<Setup, Failure> {
        let mut setup = Setup::new(config)?;
        if let Some(model) = &self.model {
            setup.only_model(model)?;
        }
        if let Some(path) = &self.prompt {
            let data = config.prompt.dir.as_ref().map(|dir| dir.join(&config.prompt.id).join("data.j2"));
            let data = data.and_then(|path| std::fs::read_to_string(path).ok());
            setup.prompt(path, data.as_deref().unwrap_or(BUILT_IN_DATA))?;
        }
        Ok(setup)
    }

    fn change(&self) -> Vec<String> {
        let model = self.model.iter().map(|model| format!("model {model}"));
        let prompt = self.prompt.iter().map(|path| format!("prompt {}", path.display()));
        let settings = self.change.settings.iter().cloned();
        let sources = self.live_sources.then(|| "sources asked again".to_owned());
        model.chain(prompt).chain(settings).chain(sources).collect()
    }
}

pub(super) async fn run(args: &RunArgs, layers: &Layers, config: &Config, env: &Env) -> Result<(), Failure> {
    let (from, budget) = (args.beginning()?, args.budget()?);
    let changed = args.change.apply(layers)?;
    let setup = args.setup(&changed)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let models = Arc::new(model_providers(&changed, env, &clock)?);
    let sources = if args.live_sources {
        Some(Arc::new(http_sources(&changed.sources, env, clock)?) as Arc<dyn Sources>)
    } else {
        None
    };
    let means = Means { models, sources, budget, concurrency: usize::from(args.concurrency), from };
    let mut reruns = Reruns::new(&setup, means).map_err(|error| Failure::configuration(&error))?;
    let (mut source, selection) = open_whole(&args.selection, config, env).await?;
    let mut signals = Signals::install()?;
    Reruns::warm_up(&setup).await;
    let (started_at, began) = (now(), Instant::now());
    let progress = Progress::new(args.selection.limit);
    let mut rows: Vec<Row> = Vec::new();
    let (mut reading, mut stopped) = (true, None);
    while reading || !reruns.is_idle() {
        let room = reading && reruns.has_room();
        tokio::select! {
            biased;
            // What is under way is abandoned; what is done is reported.
            name = signals.next() => {
                stopped = Some(format!("stopped by {name}"));
                break;
            }
            row = reruns.next(), if !reruns.is_idle() => match row {
                Some(Ok(row)) => {
                    progress.one(&spent(&reruns));
                    rows.push(row);
                }
                Some(Err(error)) => return Err(Failure::failed(format!("a re-run broke: {error}; this is a bug"))),
                None => {}
            },
            history = source.next(), if room => match history.map_err(|error| unreadable(&error, &args.selection))? {
                Some(history) => {
                    let workflow = history.workflow.clone();
                    let recorded = history.read().map_err(|error| {
                        Failure::failed(format!("{workflow}: {}", with_causes(&error)))
                    })?;
                    match reruns.refused() {
                        Some(reason) => rows.push(left_out(&recorded, &reason)),
                        None => reruns.begin(recorded),
                    }
                }
                None => reading = false,
            },
        }
    }
    progress.finish();
    close(source).await;
    if rows.is_empty() && stopped.is_none() {
        return Err(nothing(&selection));
    }
    rows.sort_by(|a, b| a.workflow.cmp(&b.workflow));
    let comparison = Comparison {
        change: args.change(),
        selection: selection.in_words(),
        started_at,
        took_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        budget_usd: budget,
        stopped: stopped.or_else(|| reruns.refused()),
        rows,
    };
    report(&comparison, args)
}

fn spent(reruns: &Reruns) -> String {
    reruns.spent().map_or_else(String::new, |spent| format!("${spent}"))
}

fn report(comparison: &Comparison, args: &RunArgs) -> Result<(), Failure> {
    if let Some(path) = &args.html {
        let page = page(comparison).map_err(|error| Failure::failed(with_causes(&error)))?;
        write(path, &page)?;
    }
    if args.json {
        for row in &comparison.rows {
            output::line(&serde_json::to_string(row).map_err(Failure::failed)?)?;
        }
        output::line(&summary(comparison).to_string())?;
    } else {
        output::line(&render(comparison, args.show, Style::of_stdout()))?;
        if let Some(path) = &args.html {
            output::line(&format!("the page is {}", path.display()))?;
        }
    }
    let worse = Totals::of(&comparison.rows).newly_failed > 0;
    if worse || comparison.stopped.is_some() { Err(Failure::failed("")) } else { Ok(()) }
}

fn summary(comparison: &Comparison) -> serde_json::Value {
    let Comparison { change, selection, started_at, took_ms, budget_usd, stopped, rows } = comparison;
    json!({"summary": {
        "change": change, "selection": selection, "started_at": started_at, "took_ms": took_ms,
        "budget_usd": budget_usd, "stopped": stopped, "totals": Totals::of(rows),
    }})
}

/// The page is there whole or not at all, even if the command is stopped meanwhile.
fn write(path: &Path, page: &str) -> Result<(), Failure> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = |error: std::io::Error| Failure::failed(format!("cannot write {}: {error}", path.display()));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    file.write_all(page.as_bytes()).map_err(failed)?;
    // Temporary files are their owner's alone; a page is as readable as the folder it is in.
    #[cfg(unix)]
    file.as_file()
        .set_permissions(std::os::unix::fs::PermissionsExt::from_mode(PAGE_MODE))
        .map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}
