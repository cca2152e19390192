//! How long a source keeps what is not read yet.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// By the source's retention, and by when it committed what follows next. Files go as a whole and when they are older, so this
/// is the least. `None` where nothing is ever purged, or where nobody knows since when something is unread.
pub fn time_left(retention: Option<Duration>, unread_since_micros: i64) -> Option<Duration> {
    let since = u64::try_from(unread_since_micros).ok().filter(|micros| *micros > 0)?;
    let age = SystemTime::now().duration_since(UNIX_EPOCH + Duration::from_micros(since)).unwrap_or_default();
    let left = retention?.saturating_sub(age);
    // Whole minutes: it is told to people, and a report that does not change is not written.
    Some(Duration::from_secs(left.as_secs() / 60 * 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_older_is_purged_sooner() {
        let micros_ago = |seconds: u64| {
            let then = SystemTime::now() - Duration::from_secs(seconds);
            then.duration_since(UNIX_EPOCH).unwrap().as_micros() as i64
        };
        let day = Some(Duration::from_secs(86_400));
        assert_eq!(time_left(day, micros_ago(3_630)), Some(Duration::from_secs(82_740)));
        assert_eq!(time_left(day, micros_ago(90_000)), Some(Duration::ZERO));
        assert_eq!(time_left(None, micros_ago(10)), None);
        assert_eq!(time_left(day, 0), None);
    }
}
