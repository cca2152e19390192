//! Configurations that are right: the examples, defaults, URLs, and which tables are meant.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crossfade_config::{Endpoint, EntityReach, Fence, Policy, ServerUrl, Settings, TlsMode};
use crossfade_model::{FamilyPolicy, MergeRule, Side, TableName};

const SECOND: Duration = Duration::from_secs(1);

fn environment(name: &str) -> Option<String> {
    match name {
        "OLD_PASSWORD" => Some("p@ss:w/rd?%41#\"".to_owned()),
        "NEW_PASSWORD" | "STORE_PASSWORD" => Some("secret".to_owned()),
        "WHOLE_URL" => Some("mysql://u%40x:p%3Aw@db.example:3309".to_owned()),
        "HOST" => Some("db.example".to_owned()),
        _ => None,
    }
}

fn parse(text: &str) -> Settings {
    Settings::parse(Path::new("test.toml"), text, &environment).unwrap_or_else(|problems| panic!("{problems}"))
}

fn example(name: &str) -> Settings {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../config").join(name);
    parse(&std::fs::read_to_string(path).unwrap())
}

const SIDES: &str = "pair = 'p'\nold.url = 'mysql://u@o'\nnew.url = 'mysql://u@n'\n";

#[test]
fn the_minimal_example_gets_every_default() {
    let settings = example("minimal.toml");
    assert_eq!(settings.pair, "users");
    let Endpoint::Tcp { host, port } = &settings.old.url.endpoint else { panic!("{:?}", settings.old) };
    assert_eq!((host.as_str(), *port), ("127.0.0.1", 3306));
    assert_eq!(settings.old.url.password.expose(), "p@ss:w/rd?%41#\"", "a variable in the account is taken as it is");
    assert_eq!(settings.old.binlog_url(), &settings.old.url);
    assert_eq!(settings.store_url(), &settings.new.url);
    assert_eq!(settings.store.retention, Duration::from_secs(7 * 86_400));
    assert_eq!(settings.conflict.prefer, Side::New);
    assert_eq!(settings.conflict.fk_conflict, FamilyPolicy::ParentReturns);
    assert_eq!((settings.conflict.max_crossings, settings.conflict.crossing_window), (6, Duration::from_secs(60)));
    assert_eq!(settings.apply.canary_every, Duration::from_secs(60));
    assert_eq!((settings.apply.max_parked, settings.apply.max_parked_ppm), (1_000, 10_000));
    assert_eq!(settings.store.max_backlog_bytes, 16 << 30);
    assert_eq!((settings.apply.lanes, settings.apply.batch_rows, settings.apply.batch_bytes), (4, 8_000, 16 << 20));
    assert_eq!(settings.memory.limit_bytes, 512 << 20);
    let cutover = &settings.cutover;
    assert_eq!((cutover.fence, cutover.timeout, cutover.max_lag), (Fence::Flag, 10 * SECOND, 2 * SECOND));
    assert_eq!((cutover.verified_within, cutover.max_mismatch_ppm), (3_600 * SECOND, 0));
    assert!(cutover.require_instances && cutover.end_transactions_after.is_none());
    assert_eq!(settings.http.listen.to_string(), "127.0.0.1:8420");
    assert_eq!((settings.tables[0].policy, settings.tables[0].clock.as_deref()), (Policy::Newest, Some("updated_at")));
}

#[test]
fn several_servers_of_a_side_keep_their_order() {
    let text = "pair = 'p'\nold.urls = ['mysql://u:${OLD_PASSWORD}@a', 'mysql://u@b:3307']\nnew.url = 'mysql://u@n'\nnew.binlog_url = 'mysql://u@r'\n";
    let settings = parse(&format!("{text}table = [{{ name = 'a.b' }}]"));
    let addresses = |urls: Vec<ServerUrl>| urls.iter().map(ServerUrl::address).collect::<Vec<_>>();
    assert_eq!(addresses(settings.old.urls()), ["a:3306", "b:3307"]);
    assert_eq!(settings.old.url.password.expose(), "p@ss:w/rd?%41#\"");
    assert_eq!(addresses(settings.old.binlog_urls()), ["a:3306", "b:3307"]);
    assert_eq!(
        (addresses(settings.new.urls()), addresses(settings.new.binlog_urls())),
        (vec!["n:3306".into()], vec!["r:3306".into()])
    );
}

#[test]
fn the_full_example_says_what_its_comments_say() {
    let settings = example("crossfade.toml");
    assert_eq!(settings.old.url.tls_mode, TlsMode::Required);
    assert_eq!(settings.new.url.tls_ca.as_deref(), Some(Path::new("/etc/crossfade/new-ca.pem")));
    assert_eq!(settings.tables.len(), 6);
    let merge = settings.tables[0].merge.as_ref().unwrap();
    assert_eq!((merge["balance"], merge["last_seen_at"], merge.len()), (MergeRule::SumDelta, MergeRule::Max, 2));
    let address = &settings.tables[1];
    assert_eq!(address.merge, None);
    assert_eq!((address.old.to_string(), address.new.to_string()), ("app.address".into(), "crm.addresses".into()));
    assert_eq!(address.policy, Policy::Version);
    assert_eq!((address.column_on(Side::New, "ZIP"), address.column_on(Side::Old, "zip")), ("postal_code", "zip"));
    assert_eq!(address.clock_on(Side::New), Some("version"));
    assert!(settings.tables[2].one_way);
    assert_eq!(settings.tables[2].policy, Policy::PreferNew);
    // The commented-out lines of the example are valid, too.
    let minimal = example("minimal.toml");
    assert_eq!((settings.store, settings.apply, settings.memory), (minimal.store, minimal.apply, minimal.memory));
    assert_eq!((settings.cutover, settings.http), (minimal.cutover, minimal.http));
}

#[test]
fn an_entity_is_a_key_and_the_tables_that_hang_on_it() {
    let text = "[[table]]\nname = 'a.*'\n[entity]\nallow_on_old = ['banned']\n\
                [[entity.table]]\nname = 'a.items'\nparent = 'a.orders'\nvia = 'order_id'\n\
                [[entity.table]]\nname = 'a.users'\nkey = 'id'\nallow_on_old = ['Banned', 'pw']\n\
                [[entity.table]]\nname = 'a.orders'\nkey = 'user_id'\nallow_on_old = ['note']";
    let entity = parse(&format!("{SIDES}{text}")).entity.unwrap();
    assert_eq!((entity.name.as_str(), entity.batch, entity.per_second, entity.attempts), ("entity", 100, None, 3));
    assert_eq!((entity.fence_timeout, entity.lease), (10 * SECOND, 2 * SECOND));
    assert_eq!(entity.root().old, TableName::new("a", "users"), "the first that holds the key itself");
    assert_eq!(entity.root().allow_on_old, ["Banned", "pw"], "what `[entity]` allows are columns of the root");
    let reach = |name| entity.table(&TableName::new("a", name)).map(|table| table.reach.clone());
    let through = EntityReach::Through { parent: TableName::new("a", "orders"), via: "order_id".into() };
    assert_eq!(reach("items"), Some(through));
    assert_eq!(reach("orders"), Some(EntityReach::Key("user_id".into())));
    assert_eq!(reach("notes"), None);
    let text = "[[table]]\nname = 'a.b'\n[entity]\nname = 'user'\nper_second = 20\nbatch = 7\n\
                [[entity.table]]\nname = 'a.b'\nkey = 'id'";
    let entity = parse(&format!("{SIDES}{text}")).entity.unwrap();
    assert_eq!((entity.name.as_str(), entity.batch, entity.per_second), ("user", 7, Some(20)));
    assert_eq!(parse(&format!("{SIDES}table = [{{ name = 'a.b' }}]")).entity, None);
}

#[test]
fn no_secret_is_ever_printed() {
    let settings = example("minimal.toml");
    let shown = format!("{settings:?} {settings:#?} {} {}", settings.old.url, settings.old.url.password);
    assert!(!shown.contains("secret") && !shown.contains("p@ss") && shown.contains("sync@127.0.0.1:3306"), "{shown}");
}

#[test]
fn urls_are_read_in_all_their_forms() {
    let url = |text: &str| ServerUrl::parse(text).unwrap_or_else(|(message, _)| panic!("{text}: {message}"));
    let tcp = |host: &str, port| Endpoint::Tcp { host: host.to_owned(), port };
    let cases = [
        ("mysql://u@h", "u", "", tcp("h", 3306), TlsMode::Preferred),
        ("mysql://u:p@h:1/", "u", "p", tcp("h", 1), TlsMode::Preferred),
        ("mysql://u%3A:%40%2f%25@h:3307?ssl-mode=disabled", "u:", "@/%", tcp("h", 3307), TlsMode::Disabled),
        ("mysql://u:p@x@[::1]:3306/?ssl-mode=VERIFY_CA", "u", "p@x", tcp("::1", 3306), TlsMode::VerifyCa),
        ("mysql://u@[fe80::1]", "u", "", tcp("fe80::1", 3306), TlsMode::Preferred),
        ("mysql://u@h/?ssl-mode=VERIFY_IDENTITY&ssl-ca=a", "u", "", tcp("h", 3306), TlsMode::VerifyIdentity),
        (
            "mysql://u@localhost/?socket=%2Frun%2Fa%20b.sock",
            "u",
            "",
            Endpoint::Socket("/run/a b.sock".into()),
            TlsMode::Preferred,
        ),
    ];
    for (text, user, password, endpoint, tls_mode) in cases {
        let read = url(text);
        assert_eq!(
            (read.user.as_str(), read.password.expose(), read.endpoint, read.tls_mode),
            (user, password, endpoint, tls_mode),
            "{text}"
        );
    }
    assert_eq!(url("mysql://u@[::1]:3306").address(), "[::1]:3306");
}

#[test]
fn variables_may_hold_a_whole_url_or_a_part_of_one() {
    let text = "pair = 'p'\nold.url = '${WHOLE_URL}'\nnew.url = 'mysql://u:x${NEW_PASSWORD}y@${HOST}:3306/'\n\
                table = [{ name = 'a.b' }]";
    let settings = parse(text);
    assert_eq!((settings.old.url.user.as_str(), settings.old.url.password.expose()), ("u@x", "p:w"));
    assert_eq!(settings.old.url.address(), "db.example:3309");
    assert_eq!(settings.new.url.password.expose(), "xsecrety");
    assert_eq!(settings.new.url.address(), "db.example:3306");
}

#[test]
fn exact_entries_go_before_patterns_and_patterns_by_order() {
    let settings = parse(&format!(
        "{SIDES}
         [[table]]\nname = 'app.*'\npolicy = 'prefer-old'
         [[table]]\nold = 'app.*s'\nnew = 'crm.*s'
         [[table]]\nold = 'app.users'\nnew = 'crm.people'\nclock = 't'
         [[table]]\nname = 'app.gone'
         [[table]]\nname = '`we.ird`.`a*b``c`'
         [[table]]\nold = 'log.2*_x*'\nnew = 'log2.2*_x*'"
    ));
    let existing = [
        ("app", "users"),
        ("app", "orders"),
        ("App", "orders"),
        ("we.ird", "a*b`c"),
        ("we.ird", "aXb`c"),
        ("log", "2024_x1"),
        ("log", "2_x"),
        ("log", "2_"),
    ]
    .map(|(schema, table)| TableName::new(schema, table));
    let selected = settings.select(&existing);
    let pairs: Vec<String> = selected.iter().map(|table| format!("{} -> {}", table.old, table.new)).collect();
    assert_eq!(
        pairs,
        [
            "app.gone -> app.gone",
            "app.orders -> app.orders",
            "app.users -> crm.people",
            "log.2024_x1 -> log2.2024_x1",
            "log.2_x -> log2.2_x",
            "we.ird.a*b`c -> we.ird.a*b`c",
        ]
    );
    assert_eq!(selected[1].settings.policy, Policy::PreferOld);
}

#[test]
fn what_is_skipped_is_not_taken_by_a_pattern() {
    let settings = parse(&format!(
        "{SIDES}
         [[table]]\nname = 'app.tmp_*'\nskip = true
         [[table]]\nname = 'app.*'\nclock = 't'
         [[table]]\nname = 'app.sessions'\nskip = true
         [[table]]\nname = 'app.tmp_kept'"
    ));
    let existing = ["users", "sessions", "tmp_1", "tmp_kept"].map(|table| TableName::new("app", table));
    let selected = settings.select(&existing);
    let names: Vec<&str> = selected.iter().map(|table| &*table.old.table).collect();
    assert_eq!(names, ["tmp_kept", "users"]);
}

#[test]
fn rules_for_merging_columns_may_stand_in_a_section_of_their_own() {
    let text = "[[table]]\nname = 'a.b'\nmerge = 'columns'\n[table.merge_rules]\nn = 'min'\nm = 'newer'\n\
                [[table]]\nname = 'a.c'\nmerge = 'columns'\n[[table]]\nname = 'a.d'";
    let settings = parse(&format!("{SIDES}{text}"));
    let merge = |table: usize| settings.tables[table].merge.clone();
    let rules = [("m", MergeRule::Newer), ("n", MergeRule::Min)].map(|(column, rule)| (column.to_owned(), rule));
    assert_eq!((merge(0), merge(1), merge(2)), (Some(rules.into()), Some([].into()), None));
}

#[test]
fn the_preferred_side_is_the_policy_of_tables_without_a_clock() {
    let settings = parse(&format!("{SIDES}conflict.prefer = 'old'\ntable = [{{ name = 'a.b' }}]"));
    assert_eq!((settings.conflict.prefer, settings.tables[0].policy), (Side::Old, Policy::PreferOld));
}
