//! The configurations that README.md and `config/` show are ones that the program takes.

use std::path::{Path, PathBuf};

use crossfade_config::{Policy, Settings};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Every variable is set, as the reader of an example will do.
fn parse(file: &str, text: &str) -> Settings {
    let environment = |_: &str| Some("secret".to_owned());
    Settings::parse(Path::new(file), text, &environment).unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn the_readme_shows_a_configuration_that_works() {
    let readme = read("README.md");
    let example = readme.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a TOML block");
    assert_eq!(example.lines().count(), 5);
    let settings = parse("README.md", example);
    assert_eq!((settings.pair.as_str(), settings.tables.len()), ("users", 1));
}

#[test]
fn the_containers_have_a_configuration_that_works() {
    let settings = parse("compose.toml", &read("config/compose.toml"));
    let compose = read("docker-compose.yml");
    assert_eq!((settings.old.url.address(), settings.new.url.address()), ("old:3306".into(), "new:3306".into()));
    for service in ["old", "new", "init", "forward", "reverse"] {
        assert!(compose.contains(&format!("\n  {service}:\n")), "{service}");
    }
}

#[test]
fn the_example_with_versions_is_a_configuration_that_works() {
    let settings = parse("object-mapper.toml", &read("config/object-mapper.toml"));
    let [users, others] = settings.tables.as_slice() else { panic!("{:?}", settings.tables) };
    assert_eq!((users.policy, users.clock.as_deref()), (Policy::Version, Some("version")));
    assert_eq!((others.policy, others.clock.as_deref()), (Policy::Newest, Some("updated_at")));
}
