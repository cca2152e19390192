//! How fast the machine itself is while something else is measured: those that are shared get slower and faster by themselves.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two pieces of work, each of which takes a few milliseconds.
const PAUSE: Duration = Duration::from_millis(500);
const ROUNDS: u64 = 2_000_000;

/// Watches until it is dropped.
pub struct Machine {
    course: Arc<Mutex<Vec<Mark>>>,
    stop: Arc<AtomicBool>,
}

/// How many pieces of work are done by now, and the CPU time that they took.
#[derive(Debug, Clone, Copy)]
struct Mark {
    at: Instant,
    pieces: u64,
    nanoseconds: u64,
}

impl Machine {
    pub fn watch() -> Machine {
        let machine = Machine { course: Arc::default(), stop: Arc::default() };
        let (course, stop) = (machine.course.clone(), machine.stop.clone());
        std::thread::spawn(move || {
            // The kernel counts a thread's time when it pauses. Where it does not tell, nothing is known.
            for pieces in 0.. {
                let Some(nanoseconds) = cpu_nanoseconds().filter(|_| !stop.load(Relaxed)) else { return };
                let mark = Mark { at: Instant::now(), pieces, nanoseconds };
                course.lock().unwrap_or_else(PoisonError::into_inner).push(mark);
                work();
                std::thread::sleep(PAUSE);
            }
        });
        machine
    }

    pub fn course(&self) -> Course {
        Course(self.course.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

fn work() {
    let mut number = 1_u64;
    for round in 0..ROUNDS {
        number = std::hint::black_box(number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(round));
    }
    std::hint::black_box(number);
}

/// Of this thread.
fn cpu_nanoseconds() -> Option<u64> {
    std::fs::read_to_string("/proc/thread-self/schedstat").ok()?.split(' ').next()?.parse().ok()
}

/// The machine's speed over time.
pub struct Course(Vec<Mark>);

impl Course {
    /// How long what takes from `at` to `end` would have taken at the speed that the machine had for `before` until then; the same
    /// time where that is not known.
    pub fn at_speed_of(&self, at: Instant, before: Duration, end: Instant) -> Duration {
        match (self.speed(at.checked_sub(before).unwrap_or(at), at), self.speed(at, end)) {
            (Some(then), Some(since)) => (end - at).mul_f64(since / then),
            _ => end - at,
        }
    }

    /// Pieces of work a nanosecond of CPU time.
    fn speed(&self, from: Instant, to: Instant) -> Option<f64> {
        let within = || self.0.iter().filter(|mark| from <= mark.at && mark.at <= to);
        let (first, last) = (within().next()?, within().next_back()?);
        let took = last.nanoseconds.checked_sub(first.nanoseconds).filter(|took| *took > 0)?;
        Some((last.pieces - first.pieces) as f64 / took as f64)
    }

    /// The lowest and the highest over some seconds each, as shares of the whole.
    pub fn spread(&self) -> Option<(f64, f64)> {
        let of_some = |marks: &[Mark]| self.speed(marks.first()?.at, marks.last()?.at);
        let speeds: Vec<f64> = self.0.chunks(20).filter(|marks| marks.len() > 10).filter_map(of_some).collect();
        let whole = of_some(&self.0)?;
        let lowest = speeds.iter().copied().min_by(f64::total_cmp)?;
        let highest = speeds.iter().copied().max_by(f64::total_cmp)?;
        Some((lowest / whole, highest / whole))
    }
}

#[test]
fn a_machine_that_became_twice_as_fast_is_reckoned_with() {
    let begun = Instant::now();
    let at = |seconds: u64| begun + Duration::from_secs(seconds);
    // A piece takes a millisecond, and half of one from the tenth on.
    let nanoseconds = |second: u64| 1_000_000 * second.min(10) + 500_000 * second.saturating_sub(10);
    let mark = |second| Mark { at: at(second), pieces: second, nanoseconds: nanoseconds(second) };
    let course = Course((0..=40).map(mark).collect());
    let asked = |from, until| course.at_speed_of(at(from), Duration::from_secs(5), at(until)).as_secs_f64();
    assert!((asked(5, 9) - 4.0).abs() < 0.01, "{}", asked(5, 9));
    assert!((asked(10, 20) - 20.0).abs() < 0.01, "{}", asked(10, 20));
    let spread = course.spread().expect("forty seconds are known");
    // 19 pieces in 14.5 ms at first, then 19 in 9.5, and 40 in 25 of the whole.
    assert!((spread.0 - 19.0 / 14.5 / 1.6).abs() < 0.001 && (spread.1 - 2.0 / 1.6).abs() < 0.001, "{spread:?}");
    assert_eq!(Course(Vec::new()).at_speed_of(at(1), Duration::from_secs(5), at(3)), Duration::from_secs(2));
}
