//! What is waited for at the moment, for people whose patience ends.

use std::sync::{Mutex, PoisonError};

#[derive(Debug, Default)]
pub(crate) struct Waits(Mutex<String>);

impl Waits {
    pub fn note(&self, waited_for: impl Into<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = waited_for.into();
    }

    pub fn shown(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
