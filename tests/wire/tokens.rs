//! Token counts against those of others: the reference tokenizer's, and what providers counted (`corpora/tokens`).

use std::path::PathBuf;

use serde_json::Value;
use throughline::tokenizer::Tokenizers;
use throughline_actors::ports::tokenizer::Tokenizer;

/// Lines of a file, or `None` (said on standard error) where the corpora are absent.
fn records(file: &str) -> Option<Vec<Value>> {
    let corpora = std::env::var_os("THROUGHLINE_CORPORA")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/corpora"), PathBuf::from);
    let Ok(text) = std::fs::read_to_string(corpora.join("tokens").join(file)) else {
        eprintln!("left out: no tokens/{file} (set THROUGHLINE_CORPORA)");
        return None;
    };
    Some(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

#[test]
fn texts_have_as_many_tokens_as_the_reference_tokenizer_says() {
    let Some(cases) = records("cases.jsonl") else { return };
    for case in &cases {
        let text = case["text"].as_str().unwrap();
        for (model, encoding) in [("gpt-4", "cl100k_base"), ("gpt-4o", "o200k_base")] {
            let count = Tokenizers.count(model, text);
            assert_eq!(
                (count.tokens, count.estimated),
                (case[encoding].as_u64().unwrap(), false),
                "{model}: {text:?}"
            );
        }
    }
    eprintln!("{} texts, two encodings each", cases.len());
}
