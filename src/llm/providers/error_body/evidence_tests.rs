use super::*;

fn class(status: u16, names: &[&str], words: &str) -> Class {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let evidence = Evidence { names: &names, words, status: Some(status), is_page: false, says_wait: false };
    weigh(evidence).unwrap_or_else(|| by_status(status))
}

#[test]
fn every_pattern_is_one() {
    for row in DECISIVE.iter().chain(&GENERIC).chain([&QUOTA_IF_NOT_RATE, &RATE]) {
        for pattern in row.words {
            assert!(RegexSetBuilder::new([pattern]).unicode(false).build().is_ok(), "{pattern}");
        }
        assert!(row.names.iter().all(|name| *name == plain(name)), "{:?}", row.names);
    }
}

#[test]
fn a_prompt_that_is_too_long_is_recognised_in_any_words_and_under_any_status() {
    for words in [
        "This model's maximum context length is 4096 tokens. However, you requested 6000 tokens",
        "You passed 5000 input tokens and requested 1000 output tokens. However, the model's context length is only 4096 tokens.",
        "Input is too long for requested model.",
        "Range of input length should be [1, 129024]",
        "Invalid request: Your request exceeded model token limit: 8192",
        "prompt token count of 137500 exceeds the limit of 128000",
        "Your input exceeds the context window of this model.",
        "invalid params, context window exceeds limit (2013)",
        "the model is loaded with context length of only 4096 tokens.",
        "`inputs` tokens + `max_new_tokens` must be <= 4097. Given: 5000 `inputs` tokens and 1000 `max_new_tokens`",
        "prompt too long; exceeded max context length by 1234 tokens",
        "too many tokens: total number of tokens in the prompt cannot exceed 4081 - received 5000.",
        "Input length (5000 tokens) exceeds the maximum allowed length (4090 tokens).",
        "The total length of all messages is too long.",
        "Context size has been exceeded.",
        "The decoder prompt (length 5000) is longer than the maximum model length of 4096.",
        "This model's maximum prompt length is 131072 but the request contains 200000 tokens.",
        "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
        "prompt is too long: 210000 tokens > 200000 maximum",
        "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000",
        "the request exceeds the available context size. try increasing the context size",
        "Please reduce the length of the messages or completion.",
        "Conversation history has 9000 tokens, more than the 8192 tokens that the model accepts",
        "Request too large for model `m` on tokens per minute (TPM): Limit 6000, Requested 9000",
        "Your messages contain 70000 tokens, which is above the limit of 65536",
        "the query is too long for this model (limit 2048)",
        "Prompt exceeds max length",
        "`inputs` must have less than 1024 tokens. Given: 2000",
        "Requested tokens (5000) exceed context window of 2048",
        "Token indices sequence length is longer than the specified maximum sequence length (5000 > 4096)",
        "The engine prompt length 40000 exceeds the max_model_len 32768. Please reduce prompt.",
        "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context length",
        "Input tokens exceed the configured limit of 272000 tokens.",
        "total number of tokens (8000) exceeds the maximum of 4096",
        "上下文长度超过限制",
    ] {
        for status in [400, 413, 422, 500] {
            assert_eq!(
                class(status, &["invalid_request_error"], words),
                Class::ContextTooLong,
                "{status} {words}"
            );
        }
    }
    for name in [
        "context_length_exceeded",
        "too_many_prompt_tokens",
        "model_max_prompt_tokens_exceeded",
        "ContextWindowExceededError",
    ] {
        assert_eq!(class(400, &[name], "m"), Class::ContextTooLong, "{name}");
    }
}

#[test]
fn limits_for_a_time_and_limits_on_answers_are_no_matter_of_length() {
    for words in [
        "Rate limit reached for gpt-4o in organization org-1 on tokens per min (TPM): Limit 10000, Used 9500, Requested 1000. \
         Please try again in 3s. You can increase your rate limit by adding a payment method to your account at https://h/billing.",
        "This request would exceed your organization's rate limit of 30,000 input tokens per minute.",
        "Requests to the operation have exceeded token rate limit of your current pricing tier. Please retry after 26 seconds. \
         Please go here: https://h/quotaincrease if you would like to further increase the default rate limit.",
        "You exceeded your current quota, please check your plan and billing details. Quota exceeded for metric: requests per minute, limit: 15",
        "Service tier capacity exceeded for this model.",
    ] {
        assert_eq!(class(429, &["429"], words), Class::RateLimited, "{words}");
    }
    for words in [
        "max_tokens is too large: 100000. This model supports at most 16384 completion tokens, whereas you provided 100000.",
        "max_tokens: 128000 > 8192, which is the maximum allowed number of output tokens for this model",
        "`max_tokens` must be less than or equal to `8192`, the maximum value for `max_tokens` is less than the `context_window` for this model",
        "Invalid JSON in the request, please try again",
        "Unsupported value: 'temperature' does not support 0.7 with this model.",
        "Unsupported model x",
        "Could not route to model x",
        "API parameter wrong: temperature",
        "invalid parameter top_p",
        "only 4 stop sequences",
        "extra fields not permitted",
        "messages: roles must alternate between user and assistant",
        "tools.0.name: String should match pattern",
    ] {
        assert_eq!(class(400, &["invalid_request_error"], words), Class::BadRequest, "{words}");
    }
}

#[test]
fn an_empty_account_is_recognised_under_any_status() {
    for words in [
        "Insufficient balance or no resource package. Please recharge.",
        "Your team has either used all available credits or reached its monthly spending limit.",
        "Access denied, please make sure your account is in good standing.",
        "user quota is not enough, remaining: 0.00",
        "insufficient balance",
        "Sorry, your account balance is insufficient",
        "Your credit balance is too low to access the API. Please go to Plans & Billing to upgrade or purchase credits.",
        "You have run out of credits",
        "This request requires more credits, or fewer max_tokens.",
        "Budget has been exceeded! Current cost: 10.2, Max budget: 10",
        "You exceeded your current quota, please check your plan and billing details.",
        "Payment required",
        "Not enough credits",
        "The free tier of the model has been exhausted.",
        "Your account is not active, please check your billing details on our website.",
        "Your subscription has expired",
        "余额不足",
    ] {
        for status in [400, 401, 403, 429, 500] {
            assert_eq!(class(status, &[], words), Class::Quota, "{status} {words}");
        }
    }
    for name in [
        "insufficient_quota",
        "exceeded_current_quota_error",
        "CreditsError",
        "Arrearage",
        "1113",
        "billing_not_active",
    ] {
        assert_eq!(class(429, &[name], "m"), Class::Quota, "{name}");
    }
}

#[test]
fn a_filter_is_recognised_whatever_it_calls_itself() {
    for words in [
        "Input data may contain inappropriate content.",
        "Invalid prompt: your prompt was flagged as potentially violating our usage policy.",
        "The system has detected that the input or the answer may contain unsafe or sensitive content",
        "Content Exists Risk",
        "Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_X",
        "Output blocked by content filtering policy",
        "Your request was rejected as a result of our safety system.",
        "The response was filtered due to the prompt triggering the content management policy.",
    ] {
        for status in [400, 403, 451, 500] {
            let names = ["The caller does not have permission to execute the specified operation"];
            assert_eq!(class(status, &names, words), Class::ContentFiltered, "{status} {words}");
        }
    }
    assert_eq!(class(403, &[], "Request blocked by policy 42"), Class::Forbidden);
}

#[test]
fn models_that_are_not_there_and_places_that_are_not_served_are_told_from_keys() {
    for words in [
        "Invalid model: nope",
        "Model Not Exist",
        "x/nope is not a valid model ID",
        "The model `x` has been shut down",
        "The model `x` does not exist or you do not have access to it.",
        "model 'x' not found, try pulling it first",
        "The model x has been decommissioned and is no longer supported.",
        "The project does not have access to model `x`",
    ] {
        for status in [400, 403, 404, 410, 500] {
            assert_eq!(class(status, &[], words), Class::UnknownModel, "{status} {words}");
        }
    }
    assert_eq!(
        class(503, &[], "The model is currently not found on any worker, try again later"),
        Class::Transient
    );
    for words in [
        "Country, region, or territory not supported",
        "User location is not supported for the API use.",
        "This service is not available in your country",
        "The API has not been used in project 1 before or it is disabled.",
    ] {
        for (status, name) in
            [(400, "FAILED_PRECONDITION"), (403, "PERMISSION_DENIED"), (403, "request_forbidden")]
        {
            assert_eq!(class(status, &[name], words), Class::Forbidden, "{status} {words}");
        }
    }
    for (status, name, words) in [
        (401, "", "who are you"),
        (403, "permission_error", "Your API key does not have permission to use the specified resource"),
        (400, "", "API key not valid. Please pass a valid API key."),
        (403, "", "Invalid API key"),
        (400, "invalid_api_key", "m"),
        (401, "authentication_error", "invalid x-api-key"),
    ] {
        assert_eq!(class(status, &[name], words), Class::Credentials, "{status} {name} {words}");
    }
}

#[test]
fn what_may_succeed_later_is_transient() {
    for status in [408, 409, 424, 425, 498, 499, 500, 502, 503, 520, 529] {
        assert_eq!(class(status, &[], "x"), Class::Transient, "{status}");
    }
    assert_eq!(class(400, &["overloaded_error"], "Overloaded"), Class::Transient);
    assert_eq!(class(400, &["rate_limit_exceeded"], "slow down"), Class::RateLimited);
    // What is too large stays so.
    assert_eq!(class(413, &["RESOURCE_EXHAUSTED"], "m"), Class::BadRequest);
    assert_eq!(class(413, &["RESOURCE_EXHAUSTED"], "Payload too large."), Class::ContextTooLong);
    assert_eq!(class(499, &["CANCELLED"], "The operation was cancelled."), Class::Transient);
    let page = |status| {
        weigh(Evidence {
            names: &[],
            words: "Just a moment...",
            status: Some(status),
            is_page: true,
            says_wait: false,
        })
    };
    assert_eq!((page(403), page(401)), (Some(Class::Transient), None));
}
