//! The report for people, in Markdown.

use std::fmt::Write;

use chrono::{DateTime, Utc};
use crossfade_message::SwitchState;

use super::FinalReport;
use crate::output::one_line;

pub fn of(report: &FinalReport) -> String {
    let mut page = Page::default();
    page.line(&format!("# Migration `{}`", report.pair));
    page.head(report);
    page.pauses(report);
    page.tables(report);
    page.changes(report);
    page.copies(report);
    page.aside(report);
    page.marks(report);
    page.timeline(report);
    page.0
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn line(&mut self, text: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{text}");
    }

    fn title(&mut self, text: &str) {
        self.line(&format!("\n## {text}\n"));
    }

    fn table(&mut self, header: &[&str], rows: Vec<Vec<String>>) {
        self.line(&format!("| {} |", header.join(" | ")));
        self.line(&format!("|{}", "---|".repeat(header.len())));
        for row in rows {
            let cells: Vec<String> = row.iter().map(|cell| one_line(cell).replace('|', "\\|")).collect();
            self.line(&format!("| {} |", cells.join(" | ")));
        }
    }

    fn head(&mut self, report: &FinalReport) {
        let began = report.began_at.map_or_else(|| "-".to_owned(), shown);
        let ended = report.ended_at.map_or_else(|| "when this was written".to_owned(), shown);
        self.line(&format!("\nBegun {began}, ended {ended}. Written {}.", shown(report.written_at)));
        self.line(&format!("The phase is {} (flag version {}).\n", report.phase, report.flag_version));
        let streams = report.streams.iter().map(|stream| {
            let numbers =
                [stream.captured, stream.settled, stream.refused, stream.held].map(|number| number.to_string());
            [vec![stream.stream.clone()], numbers.to_vec(), vec![stream.position.clone()]].concat()
        });
        let streams = streams.collect();
        self.table(&["stream", "captured", "settled", "refused", "held", "read up to"], streams);
    }

    fn pauses(&mut self, report: &FinalReport) {
        self.title("Changes of sides");
        if report.runs.is_empty() {
            return self.line("None.");
        }
        let rows = report.runs.iter().map(|run| {
            let state = match run.state {
                SwitchState::Done => "done",
                SwitchState::Undone => "undone",
                // The end itself, while its report is written.
                SwitchState::Open => "under way",
            };
            let pause = run.pause_ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms"));
            vec![run.run.clone(), state.to_owned(), shown(run.begun_at), pause, run.reason.clone().unwrap_or_default()]
        });
        let rows = rows.collect();
        self.table(&["change", "state", "begun", "users wrote nowhere for", "why it was undone"], rows);
    }

    fn tables(&mut self, report: &FinalReport) {
        self.title("The last comparison of all rows");
        let Some(comparison) = &report.comparison else { return self.line("None was made to the end.") };
        let (id, mismatches, unconfirmed) = (comparison.verification, comparison.mismatches, comparison.unconfirmed);
        let begun = shown(comparison.begun_at);
        self.line(&format!(
            "Comparison {id}, begun {begun}: {mismatches} rows missing or different, {unconfirmed} unconfirmed.\n"
        ));
        let rows = comparison.tables.iter().map(|table| {
            let numbers = [
                table.rows_old,
                table.rows_new,
                table.missing_on_old,
                table.missing_on_new,
                table.different,
                table.unconfirmed,
            ];
            [vec![table.table.clone()], numbers.map(|number| number.to_string()).to_vec()].concat()
        });
        let header = ["table", "rows old", "rows new", "missing on old", "missing on new", "different", "unconfirmed"];
        let rows = rows.collect();
        self.table(&header, rows);
    }

    fn changes(&mut self, report: &FinalReport) {
        self.title("Captured changes");
        let changes = &report.changes;
        if changes.not_counted > 0 {
            let text =
                format!("{} more were captured, and are purged or too many to be counted.\n", changes.not_counted);
            self.line(&text);
        }
        let rows = changes.tables.iter().map(|count| {
            let numbers = [count.inserts, count.updates, count.deletes].map(|number| number.to_string());
            [vec![count.stream.clone(), count.table.clone()], numbers.to_vec()].concat()
        });
        let rows = rows.collect();
        self.table(&["stream", "table", "inserts", "updates", "deletes"], rows);
        self.title("Changes that did not simply apply");
        if report.outcomes.is_empty() {
            return self.line("None.");
        }
        let rows = report.outcomes.iter().map(|count| {
            vec![count.stream.clone(), count.table.clone(), count.status.clone(), count.messages.to_string()]
        });
        let rows = rows.collect();
        self.table(&["stream", "table", "ended as", "changes"], rows);
    }

    fn copies(&mut self, report: &FinalReport) {
        if report.copies.is_empty() {
            return;
        }
        self.title("Rows that were there before");
        let rows = report.copies.iter().map(|copy| {
            let numbers = [copy.read, copy.inserted, copy.replaced].map(|number| number.to_string());
            let copied = copy.copied_at.map_or_else(|| "-".to_owned(), shown);
            [vec![copy.table.clone()], numbers.to_vec(), vec![copied]].concat()
        });
        let rows = rows.collect();
        self.table(&["table", "read", "inserted", "replaced", "copied"], rows);
    }

    fn aside(&mut self, report: &FinalReport) {
        self.title("Given up by people");
        if report.discarded.is_empty() {
            return self.line("Nothing.");
        }
        let rows = report
            .discarded
            .iter()
            .map(|gone| vec![gone.id.clone(), gone.table.clone(), shown(gone.discarded_at), gone.reason.clone()]);
        let rows = rows.collect();
        self.table(&["message", "table", "when", "why"], rows);
    }

    fn marks(&mut self, report: &FinalReport) {
        self.title("Marks");
        let rows = report.marks.iter().map(|mark| {
            let note = mark.note.clone().unwrap_or_default();
            vec![mark.name.clone(), shown(mark.taken_at), mark.old_position.clone(), mark.new_position.clone(), note]
        });
        let rows = rows.collect();
        self.table(&["mark", "taken", "old at", "new at", "note"], rows);
    }

    fn timeline(&mut self, report: &FinalReport) {
        self.title("Timeline");
        let lines = report.timeline.iter();
        let rows = lines.map(|line| vec![shown(line.written_at), line.kind.clone(), line.text.clone()]).collect();
        self.table(&["when (UTC)", "what", ""], rows);
    }
}

fn shown(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%S").to_string()
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;
    use crossfade_message::{ChangeCounts, JournalEntry};

    use super::*;
    use crate::command::final_report::RunEnd;

    #[test]
    fn nothing_that_somebody_has_written_breaks_a_table() {
        let at = Utc.timestamp_opt(1_700_000_000, 0).single().expect("a time");
        let text = "a | b\nc".to_owned();
        let report = FinalReport {
            pair: "users".to_owned(),
            written_at: at,
            phase: "new_only".to_owned(),
            flag_version: 7,
            began_at: Some(at),
            ended_at: None,
            streams: Vec::new(),
            comparison: None,
            changes: ChangeCounts { not_counted: 3, ..ChangeCounts::default() },
            outcomes: Vec::new(),
            copies: Vec::new(),
            discarded: Vec::new(),
            runs: vec![RunEnd {
                run: "cutover 1".to_owned(),
                kind: "cutover".to_owned(),
                state: SwitchState::Undone,
                begun_at: at,
                ended_at: Some(at),
                pause_ms: None,
                reason: Some(text.clone()),
            }],
            marks: Vec::new(),
            timeline: vec![JournalEntry { id: 1, kind: "init".to_owned(), text, written_at: at }],
        };
        let page = of(&report);
        assert!(page.contains("| cutover 1 | undone | 2023-11-14 22:13:20 | - | a \\| b c |"), "{page}");
        assert!(page.contains("| 2023-11-14 22:13:20 | init | a \\| b c |"), "{page}");
        assert!(page.contains("3 more were captured") && page.contains("None was made to the end."), "{page}");
    }
}
