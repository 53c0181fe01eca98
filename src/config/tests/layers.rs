//! Layers: which value wins, and how variables address keys.

use std::time::Duration;

use super::*;

#[test]
fn each_layer_is_stronger_than_the_one_before() {
    let file = "[nats]\nurl = 'nats://file:1'\nnamespace = 'file'\n";
    let shared = ("NATS_URL", "nats://shared:1");
    let own = ("THROUGHLINE_NATS__URL", "nats://own:1");
    let flag = ("--nats-url", "nats.url", "nats://flag:1");
    for (text, env, flags, url, origin) in [
        ("", vec![], vec![], "nats://127.0.0.1:4222", "default"),
        (file, vec![], vec![], "nats://file:1", "t.toml:2"),
        (file, vec![shared], vec![], "nats://shared:1", "NATS_URL"),
        (file, vec![shared, own], vec![], "nats://own:1", "THROUGHLINE_NATS__URL"),
        (file, vec![shared, own], vec![flag], "nats://flag:1", "--nats-url"),
        (file, vec![("NATS_URL", "")], vec![], "nats://file:1", "t.toml:2"),
    ] {
        let config = layers(&env, &flags).load_text("t.toml", text).unwrap();
        assert_eq!(config.nats.url.expose(), url);
        assert_eq!(config.origin_of("nats.url").unwrap().to_string(), origin);
        if text == file {
            assert_eq!(config.nats.namespace, "file", "layers merge key by key");
        }
    }
    assert_eq!(load("", &[("DATABASE_URL", "postgres://u@h/db")]).database.url.expose(), "postgres://u@h/db");
}

#[test]
fn the_file_is_found_or_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut layers = Layers { directory: dir.path().to_owned(), ..Layers::default() };
    assert_eq!(layers.load().unwrap().context.recent_turns, 6, "no file is no mistake");

    let named = dir.path().join("other.toml");
    layers.file = Some(named.clone());
    let error = layers.load().unwrap_err().to_string();
    assert!(error.starts_with(&format!("{}: cannot be read: ", named.display())), "{error}");

    std::fs::write(&named, "[context]\nrecent_turns = 2\n").unwrap();
    std::fs::write(dir.path().join(DEFAULT_FILE), "[context]\nrecent_turns = 3\n").unwrap();
    assert_eq!(layers.load().unwrap().context.recent_turns, 2);
    layers.file = None;
    assert_eq!(layers.load().unwrap().context.recent_turns, 3);

    std::fs::write(dir.path().join(DEFAULT_FILE), b"[log]\n# caf\xe9\n").unwrap();
    let error = layers.load().unwrap_err().to_string();
    assert!(error.ends_with("throughline.toml:2: is not UTF-8"), "{error}");
}

#[test]
fn variables_reach_every_level_and_elements_by_name() {
    let config = load(
        CONTRACT,
        &[
            ("THROUGHLINE_STAGES__GENERATION__CONCURRENCY", "7"),
            ("THROUGHLINE_SOURCES__ORDER_HISTORY__TIMEOUT_MS", "1500"),
            ("THROUGHLINE_SOURCES__PRODUCT_INFO__DEFAULTS__PRODUCT_ID", "PROD-9"),
            ("THROUGHLINE_MODELS__GPT_4O_MINI__MODEL", "4"),
            ("THROUGHLINE_GENERATION__FALLBACK", "gpt-4o-mini, gpt-4o-mini"),
            ("THROUGHLINE_GENERATION__STREAM", "false"),
            ("THROUGHLINE_LOG__FILTER", "\"warn\""),
            ("THROUGHLINE_HTTP__LISTEN", ""),
        ],
    );
    assert_eq!(config.stages.generation.concurrency, 7);
    assert_eq!(config.sources[1].timeout, Duration::from_millis(1500));
    assert_eq!(config.sources[2].defaults["product_id"], "PROD-9");
    assert_eq!(config.models[0].model, "4", "a string's text may look like a number");
    assert_eq!(config.generation.fallback, ["gpt-4o-mini", "gpt-4o-mini"]);
    assert!(!config.generation.stream);
    assert_eq!(config.log.filter, "warn");
    assert_eq!(config.http.listen.port(), 8080, "an empty variable is not set");

    let sources = r#"[{name = "crm", url = "http://crm/{user_id}"}]"#;
    let config = load("", &[("THROUGHLINE_SOURCES", sources), ("THROUGHLINE_SOURCES__CRM__MAX_BYTES", "9")]);
    assert_eq!((config.sources[0].name.as_str(), config.sources[0].max_bytes), ("crm", 9));
}

#[test]
fn variables_that_are_not_ours_are_left_alone() {
    load(
        "",
        &[
            ("THROUGHLINE_CORPORA", "x"),
            ("THROUGHLINE_SERVICE_HOST", "10.0.0.1"),
            ("THROUGHLINE_SERVICE_PORT_HTTP", "8080"),
            ("THROUGHLINE_PORT", "tcp://10.0.0.1:8080"),
            ("THROUGHLINE_GATEWAY_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ],
    );
}

#[test]
fn openai_variables_make_and_complete_providers() {
    let config = load("", &[("OPENAI_API_KEY", CANARY)]);
    let provider = config.provider("openai").unwrap();
    assert_eq!(provider.base_url.expose(), OPENAI_BASE_URL);
    assert_eq!(provider.api_keys, [Secret::Env("OPENAI_API_KEY".to_owned())]);
    let implied = config.model(DEFAULT_MODEL).unwrap();
    assert_eq!((implied.provider.as_str(), implied.input_usd_per_million), ("openai", None));

    let local = ("OPENAI_BASE_URL", "http://127.0.0.1:11434/v1/");
    let config = load("[generation]\nmodel = 'llama3:8b'\nfallback = ['phi4']", &[local]);
    let provider = config.provider("openai").unwrap();
    assert_eq!((provider.base_url.expose(), provider.api_keys.len()), ("http://127.0.0.1:11434/v1", 0));
    assert_eq!(
        config.models.iter().map(|model| model.name.as_str()).collect::<Vec<_>>(),
        ["llama3:8b", "phi4"]
    );

    let other = "[[providers]]\nname = 'other'\nkind = 'openai'\nbase_url = 'http://other.example/v1'\n";
    let config = load(other, &[("OPENAI_API_KEY", CANARY), local]);
    assert_eq!(config.providers.len(), 1);
    assert_eq!(config.providers[0].base_url.expose(), "http://other.example/v1", "an explicit address wins");
    assert_eq!(config.providers[0].api_keys, [], "the vendor's key does not go to another host");
}

#[test]
fn each_vendor_s_variables_make_a_provider_with_a_default_model() {
    for (variable, kind, model) in [
        ("ANTHROPIC_API_KEY", ProviderKind::Anthropic, "claude-haiku-4-5"),
        ("GEMINI_API_KEY", ProviderKind::Gemini, "gemini-2.5-flash"),
    ] {
        let config = load("", &[(variable, CANARY)]);
        let [provider] = config.providers.as_slice() else { panic!("{variable}: {:?}", config.providers) };
        assert_eq!((provider.kind, provider.name.as_str()), (kind, kind.as_str()));
        assert_eq!(provider.base_url.expose(), kind.vendor_url());
        assert_eq!(provider.api_keys, [Secret::Env(variable.to_owned())]);
        assert_eq!(config.generation.model, model);
        assert_eq!(config.model(model).unwrap().provider, provider.name);
    }
    let config = load("", &[("GOOGLE_API_KEY", CANARY), ("GEMINI_API_KEY", CANARY)]);
    assert_eq!(config.providers[0].api_keys, [Secret::Env("GOOGLE_API_KEY".to_owned())], "it wins");

    let local = [("ANTHROPIC_BASE_URL", "http://127.0.0.1:9"), ("ANTHROPIC_API_KEY", CANARY)];
    let config = load("", &local);
    assert_eq!(config.providers[0].base_url.expose(), "http://127.0.0.1:9");
    assert_eq!(config.providers[0].api_keys.len(), 1, "the environment that names the host names the key");
}

#[test]
fn what_else_vendors_variables_say_counts_where_their_keys_do() {
    let org = [("OPENAI_API_KEY", CANARY), ("OPENAI_ORG_ID", "org-1 "), ("OPENAI_PROJECT_ID", "proj-1")];
    let provider = &load("", &org).providers[0];
    assert_eq!(
        (provider.organization.as_deref(), provider.project.as_deref()),
        (Some("org-1"), Some("proj-1"))
    );
    let other = "[[providers]]\nname = 'other'\nkind = 'openai'\nbase_url = 'http://other.example/v1'\n";
    let provider = &load(other, &org).providers[0];
    assert_eq!((&provider.organization, &provider.project), (&None, &None), "not to another host");

    let token = [("ANTHROPIC_AUTH_TOKEN", CANARY), ("ANTHROPIC_BASE_URL", "http://127.0.0.1:9")];
    let provider = &load("", &token).providers[0];
    assert_eq!(provider.api_keys, [Secret::Env("ANTHROPIC_AUTH_TOKEN".to_owned())]);
    assert_eq!(provider.key_header.as_deref(), Some("authorization"));
    let both = [("ANTHROPIC_AUTH_TOKEN", CANARY), ("ANTHROPIC_API_KEY", CANARY)];
    let provider = &load("", &both).providers[0];
    assert_eq!(provider.api_keys, [Secret::Env("ANTHROPIC_API_KEY".to_owned())], "the key wins");
    assert_eq!(provider.key_header, None);
    assert!(load("", &[("OPENAI_API_KEY", " "), ("ANTHROPIC_AUTH_TOKEN", "")]).providers.is_empty());
}

#[test]
fn a_provider_says_how_it_is_reached() {
    let file = "[[providers]]\nname = 'p'\nkind = 'openai'\nproxy = 'none'\nkey_header = 'api-key'\n\
                sends_finish_reason = false\nheaders.x-team = 'a'\nheaders.x-token = 'Bearer env:T'\n\
                query.api-version = '1'\n";
    let config = load(file, &[("HTTP_PROXY", "http://proxy:1")]);
    let provider = &config.providers[0];
    assert_eq!(provider.proxy, Some(ProxyChoice::None));
    assert_eq!((provider.headers.len(), provider.query.len(), provider.sends_finish_reason), (2, 1, false));
    assert!(!config.decisive().to_string().contains("x-team"), "headers are not on record");

    let wrong = "[[providers]]\nname = 'p'\nkind = 'gemini'\nproxy = 'ftp://user:canary-7f3a@h'\nkey_header = 'a b'\n\
                 project = 'x'\nheaders.authorization = 'canary-7f3a'\nquery.key = 'canary-7f3a'\n";
    let told = layers(&[], &[]).load_text("t.toml", wrong).unwrap_err().to_string();
    assert_eq!(told.lines().count(), 5, "{told}");
    assert!(!told.contains("canary"), "{told}");
}

#[test]
fn with_several_vendors_a_model_s_name_tells_whose_it_is() {
    let env = [("OPENAI_API_KEY", CANARY), ("ANTHROPIC_API_KEY", CANARY), ("GEMINI_API_KEY", CANARY)];
    let config = load("[generation]\nfallback = ['claude-sonnet-4-5', 'gemini-2.5-pro']\n", &env);
    let of: Vec<_> =
        config.models.iter().map(|model| (model.name.as_str(), model.provider.as_str())).collect();
    assert_eq!(
        of,
        [("gpt-4o-mini", "openai"), ("claude-sonnet-4-5", "anthropic"), ("gemini-2.5-pro", "gemini")]
    );
    let told = layers(&env, &[]).load_text("t.toml", "[routing]\ncomplex = ['llama3']\n").unwrap_err();
    assert_eq!(
        told.to_string(),
        "t.toml:2: routing.complex: which provider has \"llama3\"? Add it to [[models]] with one of: openai, \
         anthropic, gemini"
    );
}

#[test]
fn several_keys_and_rules_are_addressed_like_everything_else() {
    let file = "[[providers]]\nname = 'p'\nkind = 'openai'\napi_keys = ['env:A', 'file:b']\n\
                [[routing.rules]]\nname = 'long'\ncomplexity = 'complex'\nmin_chars = 500\n";
    let env = [("THROUGHLINE_ROUTING__RULES__LONG__MIN_CHARS", "900")];
    let config = load(file, &env);
    assert_eq!(config.providers[0].api_keys, [Secret::Env("A".to_owned()), Secret::File("b".into())]);
    assert_eq!(config.routing.rules[0].min_chars, Some(900));
    let shown = config.show();
    assert!(
        shown.contains("[[routing.rules]]") && shown.contains("api_keys = [\"env:A\", \"file:b\"]"),
        "{shown}"
    );
    let again = load(&shown, &[]);
    assert_eq!(again.show_json()["config"], config.show_json()["config"]);
    assert_eq!(again.show_json()["config"]["routing"]["rules"][0]["name"], "long");
    let lost = [("THROUGHLINE_ROUTING__RULES__LOGN__MIN_CHARS", "900")];
    let told = refused(file, &lost);
    assert!(
        told[0]
            .ends_with("none of [[routing.rules]] has that name (configured: long); did you mean \"long\"?")
    );
}
