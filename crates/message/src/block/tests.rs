use std::sync::Arc;

use crossfade_model::{
    CalendarDate, Clock, ColumnKind, JsonDocument, LaneProgress, Message, OpaqueKind, OpaqueNode, Origin, Row,
    RowChange, RowOp, Seen, StreamProgress, TableLayout, TableName, TimeOfDay, Value,
};
use proptest::collection::vec;
use proptest::prelude::*;

use super::{decode, encode, filter_may_hold, image_json};

fn kinds() -> impl Strategy<Value = ColumnKind> {
    let text = |charset: &str| ColumnKind::Text { charset: charset.to_owned() };
    let mut kinds = vec![
        ColumnKind::Float,
        ColumnKind::Double,
        ColumnKind::Decimal { precision: 65, scale: 30 },
        text("utf8mb4"),
        text("gbk"),
        ColumnKind::Bytes { fixed_len: 0 },
        ColumnKind::Date,
        ColumnKind::Year,
        ColumnKind::Bit { bits: 64 },
        ColumnKind::Enum { labels: vec!["a,'b".to_owned(), String::new()] },
        ColumnKind::Set { labels: vec!["x".to_owned()] },
        ColumnKind::Json,
        ColumnKind::Geometry,
        ColumnKind::Vector,
        ColumnKind::Inet6,
        ColumnKind::Uuid,
        ColumnKind::Other { name: "odd".to_owned() },
    ];
    kinds.extend([true, false].map(|unsigned| ColumnKind::Integer { bytes: 8, unsigned }));
    for fraction_digits in [0, 3, 6] {
        kinds.push(ColumnKind::Time { fraction_digits });
        kinds.push(ColumnKind::Datetime { fraction_digits });
        kinds.push(ColumnKind::Timestamp { fraction_digits });
    }
    proptest::sample::select(kinds)
}

fn dates() -> impl Strategy<Value = CalendarDate> {
    (any::<u16>(), any::<u8>(), any::<u8>()).prop_map(|(year, month, day)| CalendarDate { year, month, day })
}

fn times() -> impl Strategy<Value = TimeOfDay> {
    (any::<u8>(), any::<u8>(), any::<u8>(), any::<u32>()).prop_map(|(hour, minute, second, micros)| TimeOfDay {
        hour,
        minute,
        second,
        micros,
    })
}

fn documents() -> impl Strategy<Value = JsonDocument> {
    let kind = prop_oneof![
        Just(OpaqueKind::Decimal),
        Just(OpaqueKind::Date),
        Just(OpaqueKind::Time),
        Just(OpaqueKind::Datetime),
        Just(OpaqueKind::Timestamp),
        any::<u8>().prop_map(|field_type| OpaqueKind::Bytes { field_type }),
        Just(OpaqueKind::Bit),
    ];
    let node =
        (any::<String>(), kind, any::<Vec<u8>>()).prop_map(|(path, kind, bytes)| OpaqueNode { path, kind, bytes });
    (any::<String>(), vec(node, 0..3)).prop_map(|(text, opaque)| JsonDocument { text, opaque })
}

/// Any value at all, legal for some column or not.
fn values() -> impl Strategy<Value = Value> {
    let charset = proptest::sample::select(vec!["gbk", "sjis", "utf8mb4", "cp1251", "dec8"]);
    prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::Int),
        any::<u64>().prop_map(Value::UInt),
        any::<u32>().prop_map(|bits| Value::Float(f32::from_bits(bits))),
        any::<u64>().prop_map(|bits| Value::Double(f64::from_bits(bits))),
        any::<f32>().prop_map(Value::Float),
        any::<f64>().prop_map(Value::Double),
        "-?[0-9]{1,35}(\\.[0-9]{1,30})?".prop_map(Value::Decimal),
        any::<String>().prop_map(Value::Text),
        "[\\x00-\\x7f]{0,40}".prop_map(Value::Text),
        (charset, any::<Vec<u8>>()).prop_map(|(charset, bytes)| Value::Encoded { charset, bytes }),
        any::<Vec<u8>>().prop_map(Value::Bytes),
        dates().prop_map(Value::Date),
        (any::<bool>(), any::<u16>(), any::<u8>(), any::<u8>(), any::<u32>()).prop_map(
            |(negative, hours, minute, second, micros)| Value::Time { negative, hours, minute, second, micros }
        ),
        (0_u8..60, 0_u32..1_000_000).prop_map(|(second, micros)| Value::Time {
            negative: second.is_multiple_of(2),
            hours: 838,
            minute: 59,
            second,
            micros
        }),
        (dates(), times()).prop_map(|(date, time)| Value::Datetime(date, time)),
        any::<i64>().prop_map(Value::Timestamp),
        (0_i64..4_000_000_000_000_000).prop_map(Value::Timestamp),
        any::<u16>().prop_map(Value::Year),
        any::<u64>().prop_map(Value::Bit),
        any::<String>().prop_map(Value::Enum),
        any::<String>().prop_map(Value::Set),
        documents().prop_map(Value::Json),
        any::<Vec<u8>>().prop_map(Value::Geometry),
        any::<Vec<u8>>().prop_map(Value::Vector),
    ]
}

/// Legal or wild.
fn commit_times() -> impl Strategy<Value = i64> {
    prop_oneof![any::<i64>(), 0_i64..4_000_000_000_000_000]
}

fn layouts() -> impl Strategy<Value = Arc<TableLayout>> {
    (any::<String>(), any::<String>(), vec((any::<String>(), kinds()), 1..6), any::<bool>()).prop_map(
        |(schema, table, columns, keyless)| {
            let row_key = if keyless { vec![] } else { vec![columns.len() - 1] };
            let (columns, kinds): (Vec<Arc<str>>, _) =
                columns.into_iter().map(|(name, kind)| (name.into(), kind)).unzip();
            Arc::new(TableLayout { name: TableName::new(schema, table), columns, kinds, row_key })
        },
    )
}

fn changes() -> impl Strategy<Value = RowChange> {
    layouts()
        .prop_flat_map(|layout| {
            let row = || vec(values(), layout.columns.len());
            (Just(layout.clone()), row(), row(), 0..3, any::<u32>())
        })
        .prop_map(|(layout, before, after, op, event_index)| match op {
            0 => RowChange { layout, op: RowOp::Insert, before: None, after: Some(after), event_index },
            1 => RowChange { layout, op: RowOp::Update, before: Some(before), after: Some(after), event_index },
            _ => RowChange { layout, op: RowOp::Delete, before: Some(before), after: None, event_index },
        })
}

fn messages() -> impl Strategy<Value = Message> {
    let origins =
        prop::sample::select(vec![Origin::User, Origin::Sync, Origin::Returned, Origin::Ruled, Origin::Asked]);
    (changes(), origins, 0_u64..3, commit_times(), any::<String>(), any::<Option<i64>>()).prop_map(
        |(change, origin, seen, committed_at_micros, position, effective)| Message {
            seq: 0,
            change,
            origin,
            seen: Arc::new(seen_up_to(seen)),
            committed_at_micros,
            source_position: position.into(),
            effective: effective.map(Clock),
        },
    )
}

fn seen_up_to(seq: u64) -> Seen {
    let lane = LaneProgress { seq, batch_first: 1, batch_last: seq, lanes: 1 };
    let progress = StreamProgress { lanes: [(0, lane)].into(), ..StreamProgress::default() };
    if seq == 0 { Seen::default() } else { Seen { streams: [("reverse/new".to_owned(), progress)].into() } }
}

/// By the variant too: `Int(5)` and `UInt(5)` are equal, but not the same.
fn exactly(messages: &[Message]) -> String {
    let bits = |row: &Option<Row>| {
        row.iter()
            .flatten()
            .map(|value| match value {
                Value::Float(number) => format!("f32:{:x}", number.to_bits()),
                Value::Double(number) => format!("f64:{:x}", number.to_bits()),
                other => format!("{other:?}"),
            })
            .collect::<Vec<_>>()
    };
    messages
        .iter()
        .map(|m| {
            let change = (&m.change.layout, m.change.op, bits(&m.change.before), bits(&m.change.after));
            format!(
                "{} {change:?} {} {:?} {:?} {} {:?} {:?}",
                m.seq, m.change.event_index, m.origin, m.seen, m.committed_at_micros, m.source_position, m.effective
            )
        })
        .collect::<Vec<_>>()
        .join("\n")
}

fn numbered(mut messages: Vec<Message>) -> Vec<Message> {
    for (seq, message) in (7..).zip(&mut messages) {
        message.seq = seq;
    }
    messages
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_goes_in_comes_out_exactly(messages in vec(messages(), 1..6)) {
        let messages = numbered(messages);
        let blocks = encode(&messages, &[]).unwrap();
        let back: Vec<Message> = blocks.iter().flat_map(|block| decode(block).unwrap()).collect();
        prop_assert_eq!(exactly(&back), exactly(&messages));
    }

    #[test]
    fn every_payload_is_json(messages in vec(messages(), 1..4)) {
        for block in encode(&numbered(messages), &[]).unwrap() {
            let mut json = Vec::new();
            std::io::Read::read_to_end(&mut flate2::read::ZlibDecoder::new(&block.payload[4..]), &mut json).unwrap();
            let parsed: serde_json::Value = serde_json::from_slice(&json).unwrap();
            prop_assert_eq!(parsed.as_array().unwrap().len() as u64, block.last_seq - block.first_seq + 1);
        }
    }

    #[test]
    fn a_damaged_block_is_an_error_or_the_same(
        messages in vec(messages(), 1..3), at in any::<prop::sample::Index>(), bit in 0_u8..8
    ) {
        let messages = numbered(messages);
        let mut block = encode(&messages, &[]).unwrap().remove(0);
        let at = at.index(block.payload.len());
        block.payload[at] ^= 1_u8 << bit;
        // zlib's checksum finds it, wherever it is.
        if let Ok(back) = decode(&block) {
            prop_assert_eq!(exactly(&back), exactly(&messages));
        }
    }
}

/// What is done to one place of a text.
#[derive(Debug, Clone)]
enum Damage {
    Cut,
    Remove(usize),
    Put(&'static str),
    Repeat(usize),
    Byte(u8),
}

fn damages() -> impl Strategy<Value = Vec<(prop::sample::Index, Damage)>> {
    let telling = [
        "\"",
        "\\",
        "\\u0000",
        "\\ud800",
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "null",
        "-",
        "1e999",
        "99999999999999999999",
        "{\"$base64\":\"",
        "=",
        ",\"x\":[",
        ",\"l\":[[0,0,0,18446744073709551615]]",
        "0000-00-00",
        "é",
        "\0",
    ];
    let damage = prop_oneof![
        Just(Damage::Cut),
        (1_usize..12).prop_map(Damage::Remove),
        prop::sample::select(telling.to_vec()).prop_map(Damage::Put),
        (1_usize..40).prop_map(Damage::Repeat),
        any::<u8>().prop_map(Damage::Byte),
    ];
    vec((any::<prop::sample::Index>(), damage), 1..4)
}

fn damaged(mut text: Vec<u8>, damages: &[(prop::sample::Index, Damage)]) -> Vec<u8> {
    for (at, damage) in damages {
        if text.is_empty() {
            break;
        }
        let at = at.index(text.len());
        match damage {
            Damage::Cut => text.truncate(at),
            Damage::Remove(count) => drop(text.drain(at..(at + count).min(text.len()))),
            Damage::Put(telling) => drop(text.splice(at..at, telling.bytes())),
            Damage::Repeat(count) => {
                let again: Vec<u8> = text[at..].iter().copied().take(*count).collect();
                text.splice(at..at, again);
            }
            Damage::Byte(byte) => text[at] = *byte,
        }
    }
    text
}

/// As MySQL's `COMPRESS()` does it.
fn compressed(text: &[u8]) -> Vec<u8> {
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut zlib, text).unwrap();
    [&(text.len() as u32).to_le_bytes()[..], &zlib.finish().unwrap()].concat()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    /// What somebody has written into the message table by hand: an answer, whatever it is.
    #[test]
    fn a_block_of_damaged_text_never_panics(
        messages in vec(messages(), 1..4), payload in damages(), seen in damages(), which in 0_u8..4
    ) {
        let mut block = encode(&numbered(messages), &[]).unwrap().remove(0);
        if which != 1 {
            let mut text = Vec::new();
            std::io::Read::read_to_end(&mut flate2::read::ZlibDecoder::new(&block.payload[4..]), &mut text).unwrap();
            block.payload = compressed(&damaged(text, &payload));
        }
        if which == 1 || which == 2 {
            block.seen = String::from_utf8_lossy(&damaged(block.seen.into_bytes(), &seen)).into_owned();
        }
        if which == 3 {
            (block.first_seq, block.last_seq) = (block.last_seq, u64::MAX);
        }
        drop(decode(&block));
    }

    /// The same of rows that are on their way back, which come with the layouts that they need.
    #[test]
    fn a_damaged_packed_block_never_panics(messages in vec(messages(), 1..3), damages in damages()) {
        let block = encode(&numbered(messages), &[]).unwrap().remove(0);
        let bytes = damaged(super::PackedBlock::of(&block).to_bytes(), &damages);
        if let Ok(packed) = super::PackedBlock::from_bytes(&bytes) {
            drop(packed.messages());
        }
    }
}

fn plain_message(seq: u64, value: Value, kind: ColumnKind) -> Message {
    let layout = TableLayout {
        name: TableName::new("app", "t"),
        columns: vec!["id".into(), "v".into()],
        kinds: vec![ColumnKind::Integer { bytes: 8, unsigned: false }, kind],
        row_key: vec![0],
    };
    let change = RowChange {
        layout: Arc::new(layout),
        op: RowOp::Insert,
        before: None,
        after: Some(vec![Value::Int(seq as i64), value]),
        event_index: 0,
    };
    Message {
        seq,
        change,
        origin: Origin::User,
        seen: Arc::default(),
        committed_at_micros: 0,
        source_position: "binlog.000001:4".into(),
        effective: None,
    }
}

#[test]
fn blocks_split_by_size_without_losing_a_message() {
    let text = |n: u64| Value::Text(format!("{n}").repeat(2000));
    let kind = || ColumnKind::Text { charset: "utf8mb4".to_owned() };
    let messages: Vec<Message> = (1..=3000).map(|n| plain_message(n, text(n), kind())).collect();
    let blocks = encode(&messages, &[]).unwrap();
    assert!(blocks.len() > 2, "{}", blocks.len());
    assert!(blocks.iter().all(|block| block.raw_bytes < 3 << 20));
    assert!(blocks.windows(2).all(|pair| pair[0].last_seq + 1 == pair[1].first_seq));
    let back: Vec<Message> = blocks.iter().flat_map(|block| decode(block).unwrap()).collect();
    assert_eq!(back, messages);
}

#[test]
fn a_huge_row_keeps_its_payload_small() {
    let bytes: Vec<u8> = (0..20_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let message = plain_message(1, Value::Bytes(bytes), ColumnKind::Bytes { fixed_len: 0 });
    let blocks = encode(std::slice::from_ref(&message), &[]).unwrap();
    assert_eq!(blocks.len(), 1);
    assert!(blocks[0].raw_bytes < 1000 && blocks[0].large.len() > 1 << 20, "{}", blocks[0].raw_bytes);
    assert_eq!(decode(&blocks[0]).unwrap(), [message]);
}

#[test]
fn a_hole_and_a_short_image_are_refused() {
    let kind = || ColumnKind::Double;
    let messages = [plain_message(1, Value::Double(1.0), kind()), plain_message(3, Value::Double(1.0), kind())];
    assert!(encode(&messages, &[]).unwrap_err().to_string().contains("has 3 there"));
    let mut short = plain_message(1, Value::Null, kind());
    short.change.after.as_mut().unwrap().pop();
    assert!(encode(&[short], &[]).unwrap_err().to_string().contains("1 values for 2 columns"));
}

#[test]
fn a_key_filter_knows_its_keys() {
    let messages: Vec<Message> = (1..=50).map(|n| plain_message(n, Value::Null, ColumnKind::Json)).collect();
    let hash = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let hashes: Vec<[u64; 2]> = (1..=50).map(|n| [hash(n), hash(n + 1000)]).collect();
    let blocks = encode(&messages, &hashes).unwrap();
    assert_eq!(blocks[0].key_filter.len(), 100 * 4);
    assert!((1..=50).all(|n| filter_may_hold(&blocks[0].key_filter, hash(n))));
    assert!((1001..=1050).all(|n| filter_may_hold(&blocks[0].key_filter, hash(n))));
    assert!(!(2000..3000).any(|n| filter_may_hold(&blocks[0].key_filter, hash(n))));
}

#[test]
fn images_read_as_they_should() {
    let shown = |value: Value, kind: ColumnKind| {
        let message = plain_message(1, value, kind);
        image_json(&message.change.layout, message.change.after.as_ref().unwrap())
    };
    let expect = |value, kind, text: &str| assert_eq!(shown(value, kind), format!("{{\"id\":1,\"v\":{text}}}"));
    let unsigned = || ColumnKind::Integer { bytes: 8, unsigned: true };
    expect(Value::UInt(1 << 53), unsigned(), "9007199254740992");
    expect(Value::UInt((1 << 53) + 1), unsigned(), "\"9007199254740993\"");
    expect(Value::Double(-0.0), ColumnKind::Double, "-0.0");
    expect(Value::Float(0.1), ColumnKind::Float, "0.1");
    expect(Value::Bytes(vec![0, 255]), ColumnKind::Bytes { fixed_len: 0 }, "{\"$base64\":\"AP8=\"}");
    expect(Value::Timestamp(0), ColumnKind::Timestamp { fraction_digits: 0 }, "\"0000-00-00 00:00:00\"");
    expect(Value::Timestamp(1_500_000), ColumnKind::Timestamp { fraction_digits: 1 }, "\"1970-01-01 00:00:01.5\"");
    expect(
        Value::Time { negative: true, hours: 838, minute: 59, second: 59, micros: 0 },
        ColumnKind::Time { fraction_digits: 2 },
        "\"-838:59:59.00\"",
    );
    expect(Value::Year(0), ColumnKind::Year, "\"0000\"");
    expect(Value::Null, ColumnKind::Json, "null");
    let gbk = || ColumnKind::Text { charset: "gbk".to_owned() };
    expect(Value::Encoded { charset: "gbk", bytes: vec![0xc4, 0xe3] }, gbk(), "\"你\"");
    expect(Value::Encoded { charset: "gbk", bytes: vec![0xff] }, gbk(), "{\"$base64\":\"/w==\"}");
}
