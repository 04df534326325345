//! What the README shows: its configuration works here and in OPA, and its options exist.

use std::collections::BTreeSet;

use opa_core::config::{EnvPolicy, Template};
use tests::peers;
use tests::serve::Serve;

const README: &str = include_str!("../../README.md");

const VARIABLES: [(&str, &str); 2] = [
    ("REGISTRY_LOGIN", "user:password"),
    ("RELEASE_KEY", "a secret"),
];

/// The one block of this language.
fn block(language: &str) -> &'static str {
    let opening = format!("```{language}\n");
    let mut blocks = README
        .split(&*opening)
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap());
    let block = blocks.next().expect("a block");
    assert_eq!(blocks.next(), None, "more than one block in {language}");
    block
}

fn allowed() -> [&'static str; 4] {
    ["--allow-env", VARIABLES[0].0, "--allow-env", VARIABLES[1].0]
}

/// In place of servers that aren't there: nothing listens on this port, which is reserved.
const NOWHERE: [&str; 4] = [
    "--set",
    "services.s3.url=http://127.0.0.1:9",
    "--set",
    "services.registry.url=http://127.0.0.1:9",
];

#[test]
fn the_configuration_is_understood_without_a_warning() {
    let template = Template::parse("README.md", block("yaml")).unwrap();
    let env = EnvPolicy::allow(VARIABLES.map(|(name, _)| name)).with_lookup(|name| {
        let mut variables = VARIABLES.into_iter();
        let found = variables.find(|(known, _)| name == *known);
        found.map(|(_, value)| value.into())
    });
    let config = template.config("orders", &env).unwrap();
    assert_eq!(config.warnings, []);
    assert_eq!(config.bundles.len(), 2);
}

#[tokio::test]
async fn the_configuration_starts_serve() {
    let arguments = [&NOWHERE[..], &allowed()].concat();
    let mut serve = Serve::start_in(&VARIABLES, block("yaml"), &arguments).await;
    assert_eq!(serve.process().ended(), None);
}

#[tokio::test]
async fn the_configuration_starts_opa() {
    let Some(opa) = peers::opa() else { return };
    let active = opa.active_configuration(block("yaml"), &NOWHERE, &VARIABLES);
    let active = active.await.unwrap();
    assert_eq!(active["bundles"].as_object().unwrap().len(), 2);
}

#[test]
fn the_options_exist() {
    let help = Serve::help();
    // Cargo's own come before the two dashes.
    let text: String = README
        .lines()
        .map(|line| line.split_once(" -- ").map_or(line, |(_, after)| after))
        .filter(|line| !line.starts_with("cargo "))
        .collect::<Vec<_>>()
        .join("\n");
    let options: BTreeSet<&str> = text
        .split(|c: char| !(c.is_ascii_lowercase() || c == '-'))
        .filter(|word| word.starts_with("--") && !word.trim_matches('-').is_empty())
        .collect();
    let missing: Vec<_> = options
        .iter()
        .filter(|option| {
            !help.contains(&format!("{option} ")) && !help.contains(&format!("{option}\n"))
        })
        .collect();
    assert_eq!(missing, Vec::<&&str>::new());
    assert!(options.contains("--config-file"), "{options:?}");
}
