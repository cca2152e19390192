//! What anybody may have written stands in what the tool shows; and two people want different things of one message.

use anyhow::{Result, ensure};
use crossfade_servers::Flavor;

use crate::{count, json, prepared, says, the_failed, tool, until_equal, until_failed};

/// Clears the screen, turns what follows round, and looks like another line of the list.
const STEERING: &str = "0x1b5b324a0a";
const TURNED: &str = "\u{202e}";

fn lines_are_plain(told: &str) -> Result<()> {
    let steers = |c: char| (c.is_control() && c != '\n') || TURNED.contains(c);
    ensure!(!told.contains(steers), "the terminal is steered by {told:?}");
    let forged = told.lines().find(|line| line.trim_start().starts_with("forward/old:999"));
    ensure!(forged.is_none(), "a line that nobody wrote: {forged:?}");
    Ok(())
}

/// A trigger of the target, a person's reason and a row's values say more than words.
pub async fn nothing_steers_the_terminal(flavor: Flavor) -> Result<()> {
    let mut migration = prepared(flavor, "steering").await?;
    let trigger = format!(
        "CREATE TRIGGER {{schema}}.guard BEFORE INSERT ON {{schema}}.users FOR EACH ROW
         IF NEW.n < 0 THEN
           SET @why = CONCAT('less than nothing', {STEERING}, 'forward/old:999 applied {TURNED}');
           SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = @why;
         END IF"
    );
    migration.on(&migration.new, &[&trigger]).await?;
    migration.start_both().await?;
    let insert = format!(
        "INSERT INTO {{schema}}.users (id, email, note, n)
         VALUES (1, CONCAT('a{TURNED}', {STEERING}), CONCAT({STEERING}, 'forward/old:999'), -1)"
    );
    migration.on(&migration.old, &[&insert]).await?;
    until_failed(&migration, 1).await?;
    let id = the_failed(&migration, "1644").await?;
    lines_are_plain(&says(&migration, &["messages", "list", "--status", "failed"], 0, &["less than nothing"]).await?)?;
    lines_are_plain(&says(&migration, &["messages", "list"], 0, &[&id]).await?)?;
    lines_are_plain(&says(&migration, &["messages", "show", &id], 0, &["less than nothing"]).await?)?;
    lines_are_plain(&says(&migration, &["retry", "--id", &id], 1, &["less than nothing"]).await?)?;
    lines_are_plain(&says(&migration, &["retry", "--id", &id, "--dry-run"], 0, &[&id]).await?)?;
    let users = format!("{}.users", migration.schema);
    lines_are_plain(&says(&migration, &["messages", "history", &users, "1"], 0, &[&id]).await?)?;
    // Programs get it as it is.
    let (_, shown) = json(&migration, &["messages", "show", &id, "--json"]).await?;
    ensure!(shown["after_image"]["note"] == "\u{1b}[2J\nforward/old:999", "{shown}");

    let reason = format!("\u{1b}[31mtest\nforward/old:999 applied {TURNED}{}", "x".repeat(20_000));
    lines_are_plain(&says(&migration, &["discard", "--id", &id, "--reason", &reason], 0, &["discarded"]).await?)?;
    lines_are_plain(&says(&migration, &["messages", "list", "--status", "discarded"], 0, &[&id, "test"]).await?)?;
    lines_are_plain(&says(&migration, &["retry", "--id", "forward/old:\u{1b}[2J"], 2, &[]).await?)?;
    migration.stop_both().await
}

/// One gives a message up while another corrects it, many times over. Each is told what became of it, and it becomes one thing.
pub async fn two_people(flavor: Flavor) -> Result<()> {
    const MESSAGES: usize = 12;
    let mut migration = prepared(flavor, "two_people").await?;
    migration.start_both().await?;
    let mut statements = vec!["INSERT INTO {schema}.users (id, email) VALUES (1, 'a@x')".to_owned()];
    statements
        .extend((10..10 + MESSAGES).map(|id| format!("INSERT INTO {{schema}}.users (id, email) VALUES ({id}, 'a@x')")));
    migration.on(&migration.old, &statements.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    until_failed(&migration, MESSAGES as u64).await?;
    let (mut edited, mut discarded) = (0, 0);
    let twins: [String; MESSAGES] = crate::those_failed(&migration, "1062").await?;
    for (number, id) in twins.into_iter().enumerate() {
        if number == MESSAGES / 2 {
            migration.stop(crossfade_tests::Direction::Forward).await?;
        }
        let set = format!("email=u{number}@x");
        let corrects = ["retry", "--edit", &id, "--set", &set, "--json"];
        let gives_up = ["discard", "--id", &id, "--reason", "twice", "--json"];
        let (corrected, given_up) =
            tokio::try_join!(tool(&migration, &corrects, &[]), tool(&migration, &gives_up, &[]))?;
        let done = (corrected.0 == Some(0), given_up.0 == Some(0));
        let (_, shown) = json(&migration, &["messages", "show", &id, "--json"]).await?;
        let row = format!("{{schema}}.users WHERE email = 'u{number}@x'");
        let there = count(&migration, &migration.new, &row).await?;
        let outcome = (shown["status"].as_str(), there);
        match done {
            (true, false) => ensure!(outcome == (Some("applied"), 1), "{shown}\n{corrected:?}\n{given_up:?}"),
            (false, true) => ensure!(outcome == (Some("discarded"), 0), "{shown}\n{corrected:?}\n{given_up:?}"),
            both => anyhow::bail!("{both:?}: {shown}\n{corrected:?}\n{given_up:?}"),
        }
        (edited, discarded) = (edited + u32::from(done.0), discarded + u32::from(done.1));
    }
    println!("{flavor:?}: {edited} corrected, {discarded} given up");
    ensure!((edited + discarded) as usize == MESSAGES, "{edited} + {discarded}");
    let open =
        count(&migration, &migration.new, "crossfade.request WHERE pair = '{pair}' AND ended_at IS NULL").await?;
    ensure!(open == 0, "{open} requests are open");
    migration.start(crossfade_tests::Direction::Forward, &[])?;
    until_failed(&migration, 0).await?;
    // Whoever changes a row later mends it.
    let mend = "UPDATE {schema}.users SET email = CONCAT('m', id, '@x'), n = 1 WHERE id >= 10";
    migration.on(&migration.old, &[mend]).await?;
    until_equal(&migration).await?;
    migration.stop_both().await
}
