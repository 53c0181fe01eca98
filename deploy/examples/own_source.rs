//! A worker whose data source `crm` is a function of this program, and whose model answers from what it returned:
//! `own_source throughline.toml`. The configuration has the entries `[[sources]] name = "crm"` and `[[models]] name = "echo"`.

use std::{error::Error, sync::Arc};

use throughline::worker::{
    Delta, DeltaSink, Document, FetchCall, FetchError, ModelAnswer, ModelFailure, ModelRequest, Models,
    Sources, Worker, async_trait,
};

/// Answers for `crm`; every other source is asked as configured.
struct Crm(Arc<dyn Sources>);

#[async_trait]
impl Sources for Crm {
    async fn fetch(&self, call: &FetchCall) -> Result<Document, FetchError> {
        if call.source != "crm" {
            return self.0.fetch(call).await;
        }
        // The URL has the values that the configuration asked for: here `http://crm/{user_id}`.
        let user = call.url.rsplit('/').next().unwrap_or_default();
        Ok(Document::from(serde_json::json!({"user": user, "tier": "gold"})))
    }
}

/// A model that says how long its prompt was.
struct Echo;

#[async_trait]
impl Models for Echo {
    async fn generate(
        &self,
        request: &ModelRequest,
        sink: &dyn DeltaSink,
    ) -> Result<ModelAnswer, ModelFailure> {
        let is_gold = request.messages.iter().any(|message| message.content.contains("gold"));
        let text = if is_gold { "You are a gold customer." } else { "Who are you?" };
        if request.stream {
            sink.delta(Delta::Text(text));
        }
        Ok(ModelAnswer::of_text(&request.model, text))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let file = std::env::args().nth(1).ok_or("usage: own_source throughline.toml")?;
    let worker =
        Worker::from_file(file)?.sources(|configured| Arc::new(Crm(configured))).models(|_| Arc::new(Echo));
    worker.run_until(async { drop(tokio::signal::ctrl_c().await) }).await?;
    Ok(())
}
