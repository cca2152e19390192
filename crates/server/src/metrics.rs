//! The status as metrics, in the OpenMetrics text format.

use std::fmt;
use std::sync::Arc;

use crossfade_message::{Flag, FlagInstance, WaitCounts};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::{Status, StreamLine};

type Labels = Vec<(&'static str, String)>;

/// The flags that are known, with the group whose they are, and who follows each.
pub type Followed = Vec<(Option<String>, Flag, Arc<[FlagInstance]>)>;

/// All metrics that are known; `crossfade_up` is 0 where the status is not.
pub fn text(status: Option<Arc<Status>>, followed: Followed) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("crossfade");
    registry.register_collector(Box::new(Metrics(status)));
    registry.register_collector(Box::new(FlagMetrics(followed)));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Metrics(Option<Arc<Status>>);

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let up = encoder.encode_descriptor("up", "Whether the store could be read", None, MetricType::Gauge)?;
        gauge(up, u64::from(self.0.is_some()) as f64)?;
        let Some(status) = &self.0 else { return Ok(()) };
        for (name, help, of) in GAUGES {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for line in &status.streams {
                if let Some(value) = of(line) {
                    gauge(family.encode_family(&stream(line, &[]))?, value)?;
                }
            }
        }
        let mut state =
            encoder.encode_descriptor("stream_state", "1 for the stream's state", None, MetricType::Gauge)?;
        for line in &status.streams {
            gauge(state.encode_family(&stream(line, &[("state", &line.state)]))?, 1.0)?;
        }
        for (name, help, of) in COUNTERS {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for line in &status.streams {
                counter(family.encode_family(&stream(line, &[]))?, of(line))?;
            }
        }
        conflicts(&mut encoder, status)?;
        authority(&mut encoder, status)?;
        judged(&mut encoder, status)?;
        waits(&mut encoder, status)?;
        for (name, help, value) in [
            ("store_size_bytes", "Size of the message table on disk", status.store.bytes),
            ("store_messages", "Messages in the message table", status.store.messages),
        ] {
            gauge(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?, value as f64)?;
        }
        verify_rounds(&mut encoder, status)
    }
}

/// Name, help, and value.
type FlagGauge = (&'static str, &'static str, fn(&Flag) -> f64);

#[derive(Debug)]
struct FlagMetrics(Followed);

impl Collector for FlagMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        if self.0.is_empty() {
            return Ok(());
        }
        let gauges: [FlagGauge; 3] = [
            ("flag", "0 old_only, 1 write_both, 2 read_new, 3 new_only", |flag| f64::from(flag.phase.flag())),
            ("flag_version", "Changes of the flag", |flag| flag.version as f64),
            ("flag_fenced", "Whether users write nowhere for a moment", |flag| f64::from(u8::from(flag.fenced))),
        ];
        for (name, help, of) in gauges {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (group, flag, _) in &self.0 {
                gauge(family.encode_family(&of_group(group))?, of(flag))?;
            }
        }
        let help = "Instances that follow the flag, by whether they have acknowledged its version";
        let mut family = encoder.encode_descriptor("flag_instances", help, None, MetricType::Gauge)?;
        for (group, flag, instances) in &self.0 {
            let current = instances.iter().filter(|instance| instance.version >= flag.version).count();
            for (state, count) in [("current", current), ("behind", instances.len() - current)] {
                let labels: Labels = of_group(group).into_iter().chain([("state", state.to_owned())]).collect();
                gauge(family.encode_family(&labels)?, count as f64)?;
            }
        }
        Ok(())
    }
}

fn of_group(group: &Option<String>) -> Labels {
    group.iter().map(|group| ("group", group.clone())).collect()
}

/// Of the last round that has ended in the background; nothing of it before there was one.
fn verify_rounds(encoder: &mut DescriptorEncoder<'_>, status: &Status) -> Result<(), fmt::Error> {
    let help = "Whether both sides are to be compared in the background";
    let on = encoder.encode_descriptor("verify_continuous", help, None, MetricType::Gauge)?;
    gauge(on, f64::from(u8::from(status.verify.on)))?;
    let Some(last) = &status.verify.last else { return Ok(()) };
    let ended = last.ended_at.map_or(0.0, |at| at.timestamp_micros() as f64 / 1e6);
    for (name, help, value) in [
        ("verify_round_ended_timestamp_seconds", "When the last round of comparing has ended", ended),
        ("verify_round_rows", "Rows that the last round has compared", last.rows as f64),
        ("verify_round_differences", "Rows that the last round found missing or different", last.differences as f64),
        ("verify_round_unconfirmed", "Rows of which the last round could not tell", last.unconfirmed as f64),
    ] {
        gauge(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?, value)?;
    }
    Ok(())
}

type Gauge = (&'static str, &'static str, fn(&StreamLine) -> Option<f64>);

const GAUGES: &[Gauge] = &[
    ("stream_ready", "Whether the stream is running or catching up, and nothing is retried", |line| {
        Some(f64::from(u8::from(line.health().is_green())))
    }),
    ("lag_seconds", "Age of the oldest change that is not applied", |line| line.lag_seconds),
    ("lag_messages", "Changes that are captured and not yet settled", |line| Some(line.lag_messages as f64)),
    ("failed_messages", "Changes that the target has refused and that wait", |line| Some(line.open_failures as f64)),
    ("held_messages", "Changes that wait for the other direction", |line| Some(line.held as f64)),
    ("standby_processes", "Processes that are ready to take over", |line| Some(line.standby.len() as f64)),
    ("unread_kept_seconds", "Until the source may purge what is not read yet", |line| {
        line.unread_kept_seconds.map(|seconds| seconds as f64)
    }),
];

type Counter = (&'static str, &'static str, fn(&StreamLine) -> u64);

const COUNTERS: &[Counter] = &[
    ("captured_changes", "Changes by users that were read from the source", |line| line.captured),
    ("applied_changes", "Changes that were judged on the target", |line| line.applied),
    ("echoes", "Row changes of its own that crossfade has recognised and not captured", |line| line.echoes),
];

fn conflicts(encoder: &mut DescriptorEncoder<'_>, status: &Status) -> Result<(), fmt::Error> {
    let help = "Changes that met a concurrent one, by the table's name at the source";
    let mut family = encoder.encode_descriptor("conflicts", help, None, MetricType::Counter)?;
    for line in &status.streams {
        for (table, counts) in &line.conflicts {
            for (outcome, count) in [("won", counts.won), ("lost", counts.lost), ("stale", counts.stale)] {
                let labels = stream(line, &[("table", table), ("outcome", outcome)]);
                counter(family.encode_family(&labels)?, count)?;
            }
        }
    }
    Ok(())
}

/// Only where there are some: other pairs know of no authority.
fn authority(encoder: &mut DescriptorEncoder<'_>, status: &Status) -> Result<(), fmt::Error> {
    let counts = |line: &StreamLine| line.conflicts.values().map(|counts| counts.authority).sum::<u64>();
    if status.streams.iter().all(|line| counts(line) == 0) {
        return Ok(());
    }
    let help =
        "Changes that were lost since the other side had authority over their row, by the table's name at the source";
    let mut family = encoder.encode_descriptor("authority_conflicts", help, None, MetricType::Counter)?;
    for line in &status.streams {
        for (table, counts) in &line.conflicts {
            counter(family.encode_family(&stream(line, &[("table", table)]))?, counts.authority)?;
        }
    }
    Ok(())
}

fn judged(encoder: &mut DescriptorEncoder<'_>, status: &Status) -> Result<(), fmt::Error> {
    let help = "Changes by what they were judged by: the locked row, what was captured by then, or a wait";
    let mut family = encoder.encode_descriptor("judged_changes", help, None, MetricType::Counter)?;
    for line in &status.streams {
        let ways =
            [("sight", line.judged_by_sight), ("look-up", line.judged_by_look_up), ("waiting", line.judged_by_waiting)];
        for (by, count) in ways {
            counter(family.encode_family(&stream(line, &[("by", by)]))?, count)?;
        }
    }
    Ok(())
}

fn waits(encoder: &mut DescriptorEncoder<'_>, status: &Status) -> Result<(), fmt::Error> {
    let help = "How long lanes waited until the other reader had told what users of the target did";
    let mut family = encoder.encode_descriptor("hold_wait_seconds", help, None, MetricType::Histogram)?;
    for line in &status.streams {
        let WaitCounts { count, total_micros, within_10_ms, within_100_ms, within_1_s, .. } = line.waits;
        // Each as those that the one before has not.
        let buckets = [
            (0.01, within_10_ms),
            (0.1, within_100_ms.saturating_sub(within_10_ms)),
            (1.0, within_1_s.saturating_sub(within_100_ms)),
            (f64::INFINITY, count.saturating_sub(within_1_s)),
        ];
        let seconds = total_micros as f64 / 1e6;
        family.encode_family(&stream(line, &[]))?.encode_histogram::<NoLabelSet>(seconds, count, &buckets, None)?;
    }
    Ok(())
}

fn stream(line: &StreamLine, more: &[(&'static str, &str)]) -> Labels {
    let own = std::iter::once(("stream", line.stream.clone()));
    own.chain(more.iter().map(|(name, value)| (*name, (*value).to_owned()))).collect()
}

fn gauge(mut encoder: MetricEncoder<'_>, value: f64) -> Result<(), fmt::Error> {
    encoder.encode_gauge(&value)
}

fn counter(mut encoder: MetricEncoder<'_>, value: u64) -> Result<(), fmt::Error> {
    encoder.encode_counter::<NoLabelSet, _, u64>(&value, None)
}
