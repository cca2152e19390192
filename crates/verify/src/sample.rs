//! Which chunks of a table are compared where not all are to be.

/// Takes a share of chunks, evenly spread from a random beginning.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    share: f64,
    sum: f64,
    taken: bool,
    is_last: bool,
}

impl Sample {
    /// `share` is more than 0 and at most 1; `phase`, from 0 to 1, is where it begins.
    pub fn new(share: Option<f64>, phase: f64) -> Sample {
        Sample { share: share.unwrap_or(1.0), sum: phase, taken: false, is_last: false }
    }

    /// The next chunk is the last one: of every table at least one is compared.
    pub fn last(&mut self) {
        self.is_last = true;
    }

    /// Whether the next chunk is compared.
    pub fn takes(&mut self) -> bool {
        self.sum += self.share;
        let is_due = self.sum >= 1.0 || self.share >= 1.0;
        if is_due {
            self.sum -= 1.0;
        }
        let takes = is_due || (self.is_last && !self.taken);
        self.taken |= takes;
        takes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_chunks_is_taken_and_one_at_least() {
        for phase in [0.0, 0.3, 0.99] {
            let mut sample = Sample::new(Some(0.05), phase);
            let taken = (0..1_000).filter(|_| sample.takes()).count();
            assert!((49..=51).contains(&taken), "{taken}");
            let mut sample = Sample::new(Some(0.001), phase);
            let mut taken = (0..9).filter(|_| sample.takes()).count();
            sample.last();
            taken += usize::from(sample.takes());
            assert_eq!(taken, 1);
            assert!((0..100).all(|_| Sample::new(None, phase).takes()));
        }
    }
}
