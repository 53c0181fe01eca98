//! The table of evidence: which names and which words say what an error is. A wording that is not recognised is added
//! here, as a pattern for its siblings, too, with a test beside those of its class.

use super::Class;

/// One line of the table.
pub(super) struct Row {
    pub(super) class: Class,
    /// Parts of names, in small letters and digits only. Of digits alone: the whole name.
    pub(super) names: &'static [&'static str],
    /// Patterns over the words in small letters.
    pub(super) words: &'static [&'static str],
}

/// What says exactly what happened. The first line that fits decides.
pub(super) const DECISIVE: [Row; 5] = [
    Row {
        class: Class::ContextTooLong,
        names: &[
            "contextlength",
            "contextwindow",
            "contextsize",
            "contextlimit",
            "contextoverflow",
            "prompttoolong",
            "inputtoolong",
            "promptistoolong",
            "toomanyprompttokens",
            "maxprompttokens",
            "stringabovemaxlength",
            "requesttoolarge",
            "payloadtoolarge",
            "toomanyinputtokens",
            "inputtokenlimit",
        ],
        words: &[
            // "context length is only 4096 tokens", "exceeds the context window", "context size has been exceeded"
            r"context[ -]?(length|size|window|limit).{0,80}(exceed|only|at most|maximum|limit|greater|larger|longer|overflow|too|full|requested|however|reduce|tokens)",
            r"(exceed|beyond|greater|larger|longer|over|outside|fit|maximum|max\.?|overflow|than).{0,60}context[ -]?(length|size|window|limit)",
            // "prompt is too long", "the total length of all messages is too long", "too many tokens in the input"
            r"(prompt|input|messages?|conversation|context|history|request|sequence|query)\b[^.;]{0,60}\b(too|is|are) (long|large|many tokens)\b.{0,80}(token|model|max|limit|\d{3,})",
            r"\b(prompt|input|messages|conversation|context|history|sequence)\b( \w+){0,4} (is |are )?too long\b",
            r"too many (input |prompt )?tokens",
            // "input length (5000 tokens) exceeds the maximum allowed length (4090 tokens)", "inputs tokens + ... must be
            // <= 4097"
            r"\b(prompt|inputs?|messages?|conversation|request(ed)?|sequence)\b.{0,80}(exceed|cannot exceed|greater than|longer than|larger than|more than|> ?\d|<= ?\d|must be (less|at most|below|under)|over the|surpass|above).{0,80}(length|limit|tokens?|maximum|allowed|\d{3,})",
            // "token limit: 8192", "maximum prompt length is 131072", "range of input length should be [1, 129024]"
            r"(maximum|max|allowed|limit|range).{0,30}(prompt|input|model|sequence)( token)? (length|size|limit|tokens).{0,60}\d{3,}",
            r"model token limit",
            // "total number of tokens exceeds the limit of 4096", "must have less than 1024 tokens"
            r"\btokens?\b.{0,40}exceed.{0,60}(maximum|limit|allowed|supported|window)",
            r"must have (less|fewer|at most).{0,20}\d{3,} tokens",
            r"上下文.{0,20}(超|长)|超(过|出).{0,20}(上下文|最大长度|长度限制)|输入.{0,10}过长",
            r"(reduce|shorten|trim|truncate) (the |your )?(length|size|number|amount)?( of )?(the |your )?(messages?|prompt|input|conversation|context|history)",
            r"request too large for .{0,80}requested \d+",
            r"(payload|request entity|request body) (is )?too large",
        ],
    },
    Row {
        class: Class::Quota,
        names: &[
            "insufficientquota",
            "insufficientuserquota",
            "insufficientbalance",
            "insufficientcredit",
            "insufficientfund",
            "billing",
            "creditserror",
            "credits",
            "arrearage",
            "arrears",
            "exceededcurrentquota",
            "paymentrequired",
            "outofcredit",
            "spendinglimit",
            "spendlimit",
            "budgetexceeded",
            "nocredit",
            "overdue",
            "balanceinsufficient",
            "1113",
            "1008",
        ],
        words: &[
            r"insufficient[_ ](\w+ ){0,2}(balance|credits?|funds|quota|resources? pack)",
            r"(balance|credits?|funds|free (tier|trial))\b( \w+){0,6} (is |are |has been |have been |was )?(insufficient|exhausted|depleted|used up|not enough|too low|negative|zero|empty|run out|expired|below)",
            r"(not enough|no|out of|ran out of|run out of|used (up )?all( of)?|exhausted|without|lack(s|ing)? of|need more|require(s)? more)( available| your| its| any| remaining| the| prepaid| free){0,3} (credits?|balance|funds)\b",
            r"(reached|exceeded|hit|over|exceeds|exceeding)( \w+){0,4} (spending|spend|billing|budget|hard|credit|usage)[ -](limit|cap|budget)",
            r"(spending|spend|billing|budget|hard|credit)[ -](limit|cap)( \w+){0,4} (reached|exceeded|hit)",
            r"\bbudget\b( \w+){0,4} (reached|exceeded|used up)",
            r"(recharge|top[ -]?up)\b( your| the| account| balance| and|,|\.|$)",
            r"(add|purchase|buy)( more| some)? (credits|funds)",
            r"payment (is )?(required|overdue|failed)|\barrears?\b|in good standing|account (is |has been )?(suspended|overdue|in debt|not active)",
            r"(subscription|plan|trial)( has| is)? (expired|inactive|ended|been cancelled)",
            r"余额不足|余额.{0,6}不足|欠费|额度.{0,6}(不足|用尽|已用完)",
        ],
    },
    Row {
        class: Class::ContentFiltered,
        names: &[
            "contentfilter",
            "contentpolicy",
            "responsibleai",
            "datainspection",
            "invalidprompt",
            "moderation",
            "safetycheck",
            "safetysystem",
            "safetyviolation",
            "promptblocked",
            "sensitive",
            "prohibitedcontent",
            "contentblocked",
            "policyviolation",
            "guardrail",
            "flagged",
            "1301",
            "1026",
            "1027",
        ],
        words: &[
            r"content[ -]?(management|filtering|filter|safety|moderation|usage)?[ -]?(polic|filter|moderation)",
            r"(violat|against|breach)\w*( \w+){0,5} (polic|guideline|terms|rules|safety)",
            r"\bflagged\b",
            r"(inappropriate|harmful|unsafe|sensitive|illegal|prohibited|disallowed|objectionable|risky)( or \w+)? (content|text|words?|information|material|input|output|data)",
            r"content exists risk|risk control",
            r"safety (check|system|filter|setting|reason|polic|guideline|concern|violation|classifier)",
            r"(blocked|rejected|refused|stopped|withheld)( \w+){0,4} (content|safety|moderation|guardrail|responsible)",
            r"\bguardrails?\b",
            r"敏感(词|内容|信息)|违规|不安全.{0,4}内容",
        ],
    },
    Row {
        class: Class::UnknownModel,
        names: &[
            "modelnotfound",
            "invalidmodel",
            "unknownmodel",
            "nosuchmodel",
            "deploymentnotfound",
            "modeldeprecated",
            "notfounderror",
            "modelnotexist",
            "modeldecommissioned",
            "modelretired",
            "modelnotavailable",
            "modelnotsupported",
            "modeldoesnotexist",
            "modelgone",
        ],
        words: &[
            r"(no such|invalid|unknown|unrecogni[sz]ed|nonexistent|non-existent) model\b",
            r"\bmodels?\b[^.;]{0,100}\b(not found|(does|do|did)(n't| not) exist|not exist|has been (shut down|deprecated|decommissioned|retired|removed|discontinued|sunset)|is (no longer|deprecated|decommissioned|retired|discontinued)|no longer (available|supported|exists)|is not (known|valid|a valid|found)|was not found|(could|can)(not|n't| not) be found|is unknown|is invalid)",
            r"模型.{0,20}(不存在|未找到|已下线)",
            r"not a valid model|(does not|doesn't|do not|don't) have access to( \w+){0,3} model\b",
        ],
    },
    Row {
        class: Class::Forbidden,
        names: &[
            "unsupportedcountry",
            "unsupportedregion",
            "requestforbidden",
            "servicedisabled",
            "regionnotsupported",
            "geoblock",
        ],
        words: &[
            r"(country|region|territory|location|jurisdiction)[^.]{0,60}(not supported|unsupported|not available|unavailable|not allowed|blocked|restricted|prohibited)",
            r"(not supported|unsupported|not available|unavailable|not allowed|restricted|blocked)( \w+){0,4} (country|region|territory|location|jurisdiction)",
            r"has not been used in project|(api|service|feature|product)( \w+){0,4} (is|are|has been) (disabled|not enabled)",
            r"(your )?(ip|ip address|address)( \w+){0,4} (is |has been )?(blocked|banned|not allowed|denied)",
        ],
    },
];

/// "You exceeded your current quota" is said of an empty account, and of a limit for each minute. It counts where nothing
/// speaks of the latter.
pub(super) const QUOTA_IF_NOT_RATE: Row = Row {
    class: Class::Quota,
    names: &["quotaexceeded", "exceededquota", "outofquota", "quotaexhausted", "usagelimit", "freetieronly"],
    words: &[
        r"(exceed\w*|reached|used up|exhausted|over|hit)( \w+){0,4} quota|quota( \w+){0,5} (exceed\w*|reached|used up|exhausted|not enough|insufficient|depleted)",
        r"(out of|no|not enough) quota|usage limit",
    ],
};

/// What speaks of limits for a time.
pub(super) const RATE: Row = Row {
    class: Class::RateLimited,
    names: &[
        "ratelimit",
        "toomanyrequests",
        "resourceexhausted",
        "throttl",
        "concurrencylimit",
        "requestlimit",
        "1302",
        "1303",
        "1305",
        "1002",
    ],
    words: &[
        r"rate[ -]?limit|too many (concurrent )?requests|throttl|slow down|too frequent|(requests|tokens|calls|queries) per (second|minute|min|hour|day)|\b[rt]p[msd]\b|请求.{0,6}频繁|限流|速率限制|concurren\w+ (limit|requests)|(request|concurrency) limit (reached|exceeded)",
    ],
};

/// What says no more than of which kind it is; tried after all words of [`DECISIVE`].
pub(super) const GENERIC: [Row; 4] = [
    Row {
        class: Class::Credentials,
        names: &[
            "invalidapikey",
            "apikeyinvalid",
            "incorrectapikey",
            "missingapikey",
            "authentication",
            "permissionerror",
            "permissiondenied",
            "unauthenticated",
            "unauthorized",
            "invalidtoken",
            "tokenexpired",
            "invalidcredential",
            "accesstoken",
            "doesnothavepermission",
            "invalidauth",
            "autherror",
            "1004",
        ],
        words: &[
            r"(invalid|incorrect|wrong|expired|missing|revoked|malformed|unknown|no|bad|provide (a|your)( valid)?|check your)( \w+){0,2} (api[ _-]?key|x-api-key|access token|bearer token|auth\w* (token|header)|credentials?)",
            r"(api[ _-]?key|x-api-key|access token|bearer token|auth\w* (token|header)|credentials?)\b[^.;]{0,50}\b(not valid|invalid|incorrect|wrong|expired|missing|revoked|disabled|required|not found|does not|doesn't|cannot|not allowed)",
            r"authentication (failed|fails|error|is required|required)|not authenticated|unauthenticated|\bunauthorized\b",
        ],
    },
    RATE,
    Row {
        class: Class::Transient,
        names: &[
            "overloaded",
            "servererror",
            "internalerror",
            "unavailable",
            "timeout",
            "cancelled",
            "canceled",
            "deadlineexceeded",
            "serviceunavailable",
            "badgateway",
            "upstreamerror",
            "capacity",
            "backenderror",
            "internalserver",
            "gatewaytimeout",
            "aborted",
            "apierror",
        ],
        words: &[
            r"\boverloaded\b|(is|being|currently) load(ing|ed)\b|warming up|cold start|服务繁忙|temporarily (unavailable|not available)|try again later|internal (server )?error|service unavailable|bad gateway|timed? ?out\b|at capacity|capacity exceeded|connection (reset|refused|closed)|upstream (error|connect)|operation was cancell?ed",
        ],
    },
    Row {
        class: Class::BadRequest,
        names: &[
            "invalidrequest",
            "invalidargument",
            "failedprecondition",
            "badrequest",
            "validationerror",
            "invalidparam",
            "invalidparameter",
            "unprocessable",
        ],
        words: &[],
    },
];
