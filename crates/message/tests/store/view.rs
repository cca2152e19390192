//! The view `message` reads like a plain table.

use std::sync::Arc;

use crossfade_model::{Clock, LaneProgress, Origin, RowChange, RowOp, Seen, StreamProgress};
use crossfade_servers::Flavor;
use sqlx::Row;

use crate::{at, client, forward, on_both_servers, started, store, update};

on_both_servers!(
    the_view_has_the_promised_columns,
    the_view_shows_each_operation_and_what_was_seen,
    odd_names_and_texts_unfold,
);

async fn the_view_has_the_promised_columns(flavor: Flavor) {
    store(flavor, "columns").await;
    let columns: Vec<String> = sqlx::query_scalar(
        "SELECT CAST(column_name AS CHAR) FROM information_schema.columns
         WHERE table_schema = 'crossfade' AND table_name = 'message' ORDER BY ordinal_position",
    )
    .fetch_all(&client(flavor).await)
    .await
    .unwrap();
    let promised = "stream, seq, day, first_seq, table_schema, table_name, op, row_key, before_image, after_image, origin, \
                    seen, status, committed_at, captured_at, source_position, event_index";
    assert_eq!(columns[..17].join(", "), promised);
}

fn seen_up_to(seq: u64) -> Arc<Seen> {
    let lane = LaneProgress { seq, batch_first: 1, batch_last: seq, lanes: 1 };
    let progress = StreamProgress { lanes: [(0, lane)].into(), ..StreamProgress::default() };
    Arc::new(Seen { streams: [("reverse/new".to_owned(), progress)].into() })
}

async fn the_view_shows_each_operation_and_what_was_seen(flavor: Flavor) {
    let store = store(flavor, "shows").await;
    let state = started(&store, &forward()).await;
    let mut batch = vec![update(1, 1, "a", 123_456), update(2, 2, "b\"\\\u{0}\n✓", 2), update(3, 3, "c", 3)];
    batch[0].change = RowChange { op: RowOp::Insert, before: None, ..batch[0].change.clone() };
    batch[2].change = RowChange { op: RowOp::Delete, after: None, ..batch[2].change.clone() };
    batch[1].origin = Origin::Sync;
    batch[1].effective = Some(Clock(-7));
    batch[1].seen = seen_up_to(4);
    batch[2].seen = seen_up_to(5);
    store.capture(&state, &batch, &[], &at(3), &seen_up_to(5), &[]).await.unwrap();

    let pool = client(flavor).await;
    let rows = sqlx::query(
        "SELECT stream, seq, first_seq, table_schema, table_name, op, CAST(row_key AS CHAR) AS row_key,
                before_image IS NULL AS has_no_before, after_image IS NULL AS has_no_after,
                JSON_UNQUOTE(JSON_EXTRACT(after_image, '$.name')) AS name, origin,
                CAST(JSON_EXTRACT(seen, '$.\"reverse/new\".lanes.\"0\".seq') AS CHAR) AS seen_seq, status,
                CAST(committed_at AS CHAR) AS committed_at, source_position, event_index, effective_clock,
                day = DATE(captured_at) AS is_day
         FROM message WHERE pair = 'shows' ORDER BY seq",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    assert_eq!(rows.len(), 3);
    let text = |row: usize, column: &str| rows[row].get::<Option<String>, _>(column).unwrap_or_default();
    let is = |row: usize, column: &str| rows[row].get::<i64, _>(column) != 0;
    for (n, op) in ["insert", "update", "delete"].into_iter().enumerate() {
        assert_eq!(text(n, "stream"), "forward/old");
        assert_eq!((rows[n].get::<u64, _>("seq"), rows[n].get::<u64, _>("first_seq")), (n as u64 + 1, 1));
        assert_eq!(
            (text(n, "table_schema"), text(n, "table_name"), text(n, "op")),
            ("app".into(), "users".into(), op.into())
        );
        assert_eq!(text(n, "row_key").replace(' ', ""), format!("{{\"id\":{}}}", n + 1));
        assert_eq!((is(n, "has_no_before"), is(n, "has_no_after")), (n == 0, n == 2));
        assert_eq!((text(n, "status"), is(n, "is_day")), ("pending".into(), true));
        assert_eq!(text(n, "source_position"), format!("binlog.000001:{}", n + 1));
        assert_eq!(rows[n].get::<u32, _>("event_index"), 3);
    }
    assert_eq!(text(0, "committed_at"), "2026-01-01 00:00:00.123456");
    assert_eq!(text(1, "name"), "b\"\\\u{0}\n✓");
    assert_eq!([text(0, "origin"), text(1, "origin")], ["user", "sync"]);
    assert_eq!([text(0, "seen_seq"), text(1, "seen_seq"), text(2, "seen_seq")], ["", "4", "5"]);
    let clocks: Vec<Option<i64>> = rows.iter().map(|row| row.get("effective_clock")).collect();
    assert_eq!(clocks, [None, Some(-7), None]);
}

async fn odd_names_and_texts_unfold(flavor: Flavor) {
    let store = store(flavor, "odd").await;
    let state = started(&store, &forward()).await;
    let texts = [
        "\u{feff}\u{ffff}\u{10ffff}",
        "\u{7f}\u{2028}\u{2029}\u{85}",
        "\u{1}\u{1f}\"\\/'`",
        " ",
        "",
        "null",
        "{\"a\":1}",
    ];
    let names = ["a\"b", "back\\slash", "tick`'s", "dot.ted $[0]", "ünï😀", "new\nline", " "];
    let mut batch = Vec::new();
    for (seq, (text, name)) in (1..).zip(texts.into_iter().zip(names)) {
        let mut message = update(seq, 1, text, 1);
        let mut layout = (*message.change.layout).clone();
        layout.columns[1] = name.into();
        layout.name = crossfade_model::TableName::new(name, text.chars().take(64).collect::<String>());
        message.change.layout = Arc::new(layout);
        batch.push(message);
    }
    store.capture(&state, &batch, &[], &at(1), &Seen::default(), &[]).await.unwrap();
    let rows: Vec<(u64, String, String, String)> = sqlx::query_as(
        "SELECT seq, table_schema, table_name, CAST(after_image AS CHAR CHARACTER SET utf8mb4) FROM message
         WHERE pair = 'odd' ORDER BY seq",
    )
    .fetch_all(&client(flavor).await)
    .await
    .unwrap();
    assert_eq!(rows.len(), texts.len());
    for ((_, schema, table, image), (text, name)) in rows.iter().zip(texts.into_iter().zip(names)) {
        let image: serde_json::Value = serde_json::from_str(image).unwrap();
        assert_eq!((schema.as_str(), table.as_str(), image[name].as_str()), (name, text, Some(text)));
    }
    assert_eq!(store.read_range(&forward(), 1, batch.len() as u64).await.unwrap(), batch);
}
