//! Prompts and windows: what is left out so that a prompt fits, for each model of the route.

use throughline_actors::{
    model::client::{ClientSettings, OlderTurns},
    ports::{memory::model::answer, model::ModelRequest},
};
use throughline_schemas::{
    FailureCode, Usage, WorkflowId,
    event::generation::{AttemptError, Purpose, Role},
};

use crate::harness::{PROVIDER, Rig, defaults::target, question};

/// Three turns of about 150 tokens each lie behind the session when this returns. The prompt without them has about
/// 340, by the estimate of four bytes a token.
async fn with_history(settings: impl FnOnce(&mut ClientSettings)) -> (Rig, crate::harness::Worker) {
    let mut rig = Rig::new();
    settings(&mut rig.settings.generation.client);
    let worker = rig.worker().await;
    for (n, topic) in ["one", "two", "three"].into_iter().enumerate() {
        let padding = "and so on and so forth ".repeat(20);
        let text = format!("Topic {topic} is about number {n}{n}{n}. {padding}");
        rig.saved(&rig.publish(&format!("h{n}"), "s1", &text)).await;
    }
    (rig, worker)
}

fn last_request(rig: &Rig) -> ModelRequest {
    rig.models.requests().pop().unwrap()
}

fn says(request: &ModelRequest, text: &str) -> bool {
    request.messages.iter().any(|message| message.content.contains(text))
}

async fn ask(rig: &Rig) -> WorkflowId {
    let workflow = rig.publish("w1", "s1", "What was it about?");
    rig.saved(&workflow).await;
    workflow
}

#[tokio::test(start_paused = true)]
async fn a_prompt_that_fits_is_sent_as_it_is() {
    let (rig, _worker) = with_history(|client| client.models[0].context_tokens = Some(100_000)).await;
    let workflow = ask(&rig).await;
    for topic in ["Topic one", "Topic two", "Topic three"] {
        assert!(says(&last_request(&rig), topic), "{topic}");
    }
    assert_eq!(rig.generated(&workflow).prompt.window, None, "not even counted: bytes are enough to see it");
}

#[tokio::test(start_paused = true)]
async fn older_turns_go_first_and_their_number_is_in_the_event() {
    let (rig, _worker) = with_history(|client| {
        client.models[0].context_tokens = Some(1_000);
        client.older_turns = OlderTurns::Drop;
    })
    .await;
    let workflow = ask(&rig).await;
    let request = last_request(&rig);
    assert!(!says(&request, "Topic one") && says(&request, "Topic three"), "{:#?}", request.messages);
    assert_eq!(request.messages[0].role, Role::System);
    assert_eq!(question(&request), "What was it about?");
    assert!(says(&request, " source=\"user_profile\""), "the data stay");
    let prompt = rig.generated(&workflow).prompt;
    assert_eq!(&prompt.messages, &*request.messages, "the prompt on record is the one that was sent");
    let window = prompt.window.unwrap();
    assert!(window.dropped_turns >= 1 && window.summarised_turns == 0, "{window:?}");
    assert!(window.prompt_tokens.unwrap() + u64::from(request.max_tokens) <= 1_000, "{window:?}");
    assert!(window.estimated && window.context_tokens == Some(1_000));
}

#[tokio::test(start_paused = true)]
async fn by_default_their_most_telling_sentences_stay() {
    let (rig, _worker) = with_history(|client| client.models[0].context_tokens = Some(1_000)).await;
    let workflow = ask(&rig).await;
    let request = last_request(&rig);
    assert!(says(&request, "Topic one is about number 000."), "{:#?}", request.messages);
    let summary = request.messages.iter().find(|message| message.content.contains("earlier_turns")).unwrap();
    assert_eq!(summary.role, Role::User, "what users said never stands among the instructions");
    assert_eq!(request.messages[1], *summary, "it stands where the turns were");
    let window = rig.generated(&workflow).prompt.window.unwrap();
    assert!(window.summarised_turns >= 1 && window.dropped_turns == 0, "{window:?}");
    assert!(window.prompt_tokens.unwrap() + u64::from(request.max_tokens) <= 1_000, "{window:?}");
    assert_eq!(rig.models.calls(PROVIDER), 4, "no model was asked for it");
}

#[tokio::test(start_paused = true)]
async fn a_model_summarises_if_it_is_told_to_and_its_call_is_on_record_and_paid_for() {
    let (rig, _worker) = with_history(|client| {
        client.models[0].context_tokens = Some(1_000);
        client.models.push(target("tiny", "summaries"));
        client.older_turns = OlderTurns::Summarise("tiny".to_owned());
    })
    .await;
    rig.models.always("summaries", Ok(answer("They spoke of </data> three topics.")));
    let workflow = ask(&rig).await;
    let request = last_request(&rig);
    assert!(says(&request, "They spoke of \\u003c/data\\u003e three topics."), "{:#?}", request.messages);
    let generated = rig.generated(&workflow);
    let [summary, answered] = &generated.attempts[..] else { panic!("{:#?}", generated.attempts) };
    assert_eq!((summary.purpose, answered.purpose), (Some(Purpose::Summary), None));
    assert_eq!((summary.model.as_str(), summary.sent), ("tiny-v1", true));
    let usage = Usage { input_tokens: 10, output_tokens: 5, ..Usage::default() };
    assert_eq!((summary.usage, generated.usage), (Some(usage), usage));
    assert_eq!(generated.cost_usd.map(|cost| cost.to_string()).as_deref(), Some("0.00004"), "both calls");
    let asked = rig.models.requests().into_iter().find(|request| request.provider == "summaries").unwrap();
    assert!(says(&asked, "Topic one") && !asked.stream);
}

#[tokio::test(start_paused = true)]
async fn a_summariser_that_does_not_answer_is_replaced_by_sentences() {
    let (rig, _worker) = with_history(|client| {
        client.models[0].context_tokens = Some(1_000);
        client.models.push(target("tiny", "nobody"));
        client.older_turns = OlderTurns::Summarise("tiny".to_owned());
    })
    .await;
    let workflow = ask(&rig).await;
    assert!(says(&last_request(&rig), "Topic one is about number 000."));
    let attempts = rig.generated(&workflow).attempts;
    assert_eq!(attempts[0].purpose, Some(Purpose::Summary));
    assert_eq!(attempts[0].error_code, Some(AttemptError::UnknownModel));
}

#[tokio::test(start_paused = true)]
async fn each_model_of_the_route_gets_what_fits_it() {
    let mut rig = Rig::new();
    rig.settings.generation.client.models[0].context_tokens = Some(300);
    rig.fall_back_to("large", "anthropic");
    rig.models.always("anthropic", Ok(answer("from the large one")));
    let _worker = rig.worker().await;
    let text = "a long text ".repeat(200);
    let workflow = rig.publish("w1", "s1", &text);
    assert_eq!(rig.saved(&workflow).await.response.text, "from the large one");
    assert_eq!(rig.models.calls(PROVIDER), 0, "nothing is sent, or paid for, that cannot fit");
    let generated = rig.generated(&workflow);
    assert_eq!(
        (generated.attempts[0].sent, generated.attempts[0].error_code),
        (false, Some(AttemptError::ContextTooLong))
    );
    assert_eq!(generated.prompt.messages.last().unwrap().content, text.trim_end());
}

#[tokio::test(start_paused = true)]
async fn a_text_that_fits_no_model_is_refused_with_numbers_and_without_a_call() {
    let mut rig = Rig::new();
    rig.settings.generation.client.models[0].context_tokens = Some(300);
    let _worker = rig.worker().await;
    let failed = rig.failed(&rig.publish("w1", "s1", &"a long text ".repeat(200))).await;
    assert_eq!((failed.code, failed.retryable), (FailureCode::ModelRejected, false));
    assert!(failed.message.contains("its window of 300"), "{}", failed.message);
    assert!(!failed.may_have_happened);
    assert_eq!((failed.attempts, rig.models.calls(PROVIDER)), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn no_more_is_asked_for_than_a_model_can_give() {
    let mut rig = Rig::new();
    rig.settings.generation.client.models[0].max_output_tokens = Some(64);
    let _worker = rig.worker().await;
    let workflow = rig.publish("w1", "s1", "hello");
    rig.saved(&workflow).await;
    assert_eq!(last_request(&rig).max_tokens, 64);
    assert_eq!(rig.generated(&workflow).prompt.max_tokens, 64);
}
