//! What the program says of itself, without any server: every command has its help, with examples.

use std::process::{Command, Output};

fn crossfade(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_crossfade")).args(words).output().expect("the program starts")
}

fn help(words: &[&str]) -> String {
    let output = crossfade(&[words, &["--help"]].concat());
    let text = String::from_utf8(output.stdout).expect("help is text");
    assert!(output.status.success() && text.contains("Usage: "), "`crossfade {} --help`: {text}", words.join(" "));
    text
}

/// The commands that a help lists: a line each, indented by two.
fn commands(help: &str) -> Vec<&str> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = listed.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").collect()
}

#[test]
fn every_command_has_examples() {
    let all = help(&[]);
    let names = commands(&all);
    assert!(names.len() > 10, "{all}");
    let leaves = names.into_iter().flat_map(|name| {
        let of_command = help(&[name]);
        let nested: Vec<Vec<String>> =
            commands(&of_command).iter().map(|leaf| vec![name.to_owned(), (*leaf).to_owned()]).collect();
        if nested.is_empty() { vec![vec![name.to_owned()]] } else { nested }
    });
    let without = leaves.filter(|words| {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        !help(&words).contains("Examples:")
    });
    assert_eq!(without.collect::<Vec<_>>(), Vec::<Vec<String>>::new());
}

#[test]
fn p10_a_wrong_word_is_named() {
    let output = crossfade(&["synk", "forward"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains("synk") && errors.contains("sync"), "{errors}");
}
